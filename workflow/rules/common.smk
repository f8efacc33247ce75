# The study, checked before anything runs, and what the rules need of it.

import gc
import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

CLONE = Path(str(workflow.current_basedir), "../..").resolve()
# the code of this clone plans, whatever difftime is installed
sys.path.insert(0, str(CLONE))

from difftime.study.collecting import Busy, hold
from difftime.study.fingerprint import ROOT, fingerprint, handed_on
from difftime.study.plan import MEASURED, Plan
from difftime.study.registry import DERIVED, FIGURES, MEASUREMENTS, modules
from difftime.study.settings import (
    COLLECTED,
    FITTED,
    BadSettings,
    plain_study,
    read_study,
)

min_version("9.15")
# a DAG of thousands of jobs is millions of objects that live to the end: looking for garbage among them takes its time
gc.set_threshold(500_000, 20, 20)
# environment.post-deploy.sh, which knows no place, installs this code into the environment that Snakemake builds
os.environ.update(DIFFTIME_CODE=str(ROOT.parent))
# jobs need not read the whole package again to see that it is the code that was planned
os.environ.update(handed_on(modules()))

# a module that Snakemake reads from a repository elsewhere has no folder here
DEFAULT = CLONE / "config.yaml"
if not DEFAULT.is_file():
    DEFAULT = Path(workflow.source_path("../../config.yaml"))


configfile: str(DEFAULT)


def study_asked_for():
    """The default study, and over it what the command line says, or the `config:` of a workflow that uses this one."""
    if not workflow.modifier.is_main_snakefile():
        return read_study(overrides=config, base=DEFAULT, said_by="the module's config")
    given = workflow.config_settings
    return read_study(
        given.configfiles, given.config, base=DEFAULT, known=given.overwrite_config
    )


try:
    STUDY = study_asked_for()
except BadSettings as error:
    raise WorkflowError(str(error)) from None

# what the scripts see of it: Snakemake merges the files too, but leaves in a data set what another kind of it had
config = plain_study(STUDY)

PLAN = Plan(STUDY)
RESULTS = STUDY.results
PLACE = "dataset={dataset}/sde={sde}/net={net}/T={T}"
CELL = f"{RESULTS}/cells/{PLACE}"
TABLES = f"{RESULTS}/tables/{{dataset}}"
LOG = f"{RESULTS}/logs/{PLACE}"
BENCHMARK = f"{RESULTS}/benchmarks/{PLACE}"
# resources and not parameters: they change no result, so their change re-runs nothing. Every job of a group has them, as
# Snakemake refuses a group whose jobs differ in a resource that is a text; and one that is a number must be a whole one
TEXTS = {
    "checkpoint_minutes": str(STUDY.checkpoint_minutes),
    "data_dir": STUDY.data_dir,
}


wildcard_constraints:
    dataset="[^/=]+",
    sde="[^/=]+",
    net="[^/=]+",
    T="[^/=]+",
    noise="|".join(FITTED),
    measurement="|".join(MEASURED),
    place="[^/=]+(/[^/=]+)?",


def hold_alone(results):
    try:
        hold(results)
    except Busy as error:
        raise WorkflowError(str(error)) from None


def left_by(measurement):
    """The tables that a measurement leaves in a cell, by their names."""
    made = MEASUREMENTS[measurement]
    return {table: f"{CELL}/{table}.parquet" for table in (*made.tables, *made.units)}


def in_report(table):
    """A table's HTML page, which Snakemake's report shows."""
    return report(
        f"{TABLES}/{table}.html",
        caption="../report/table.rst",
        category="Tables",
        subcategory="{dataset}",
        labels={"table": table},
    )
