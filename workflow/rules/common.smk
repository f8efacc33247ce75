# The study, checked before anything runs, and what the rules need of it.

import gc
import os
import re
from functools import cache
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.utils import min_version

from difftime.figures import caption
from difftime.images.listing import listing
from difftime.study.collecting import Busy, hold
from difftime.study.fingerprint import ROOT, fingerprint
from difftime.study.registry import DERIVED, FIGURES, MEASUREMENTS
from difftime.study.settings import (
    COLLECTED,
    FITTED,
    BadSettings,
    asked_for,
    family,
    flat,
    plain_study,
    read_study,
    what_it_is,
)

min_version("9.15")
# a DAG of thousands of jobs is millions of objects that live to the end: looking for garbage among them takes its time
gc.set_threshold(500_000, 20, 20)
# environment.post-deploy.sh, which knows no place, installs this code into the environment that Snakemake builds
os.environ.update(DIFFTIME_CODE=str(ROOT.parent))

try:
    STUDY = read_study(
        workflow.config_settings.configfiles,
        workflow.config_settings.config,
        base=Path(workflow.basedir) / "config.yaml",
        known=workflow.config_settings.overwrite_config,
    )
except BadSettings as error:
    raise WorkflowError(str(error)) from None

# what the scripts see of it: Snakemake merges the files too, but leaves in a data set what another kind of it had
config.clear()
config.update(plain_study(STUDY))

GRID = STUDY.cells()
RESULTS = STUDY.results
PLACE = "dataset={dataset}/sde={sde}/net={net}/T={T}"
CELL = f"{RESULTS}/cells/{PLACE}"
TABLES = f"{RESULTS}/tables/{{dataset}}"
MEASURED = [*MEASUREMENTS, *(f"noise_{name}" for name in FITTED)]
LOG = f"{RESULTS}/logs/{PLACE}"
BENCHMARK = f"{RESULTS}/benchmarks/{PLACE}"
# resources and not parameters: they change no result, so their change re-runs nothing. Every job of a group has them, as
# Snakemake refuses a group whose jobs differ in a resource that is a text; and one that is a number must be a whole one
TEXTS = {
    "checkpoint_minutes": str(STUDY.checkpoint_minutes),
    "data_dir": STUDY.data_dir,
}


NOTHING = "(?!)"  # a pattern that no text has


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


def is_mixture(dataset):
    return family(STUDY.datasets[dataset].kind) == "mixture"


@cache
def cell_settings(dataset, sde, net, T):
    """What determines the weights of a cell, setting by setting."""
    return flat(STUDY.cell(dataset, sde, net, T).model_dump(mode="json"))


@cache
def measurement_settings(dataset, measurement):
    """What determines a measurement of the cells on some data, or how a p_noise is fitted, setting by setting."""
    if measurement in MEASUREMENTS:
        return flat(STUDY.measurement(dataset, measurement))
    noise = getattr(STUDY.noise, measurement.removeprefix("noise_"))
    return flat(noise.model_dump(mode="json"))


@cache
def images_settings(dataset):
    """What images these are, setting by setting, and what a cheap look says of the files."""
    data = STUDY.datasets[dataset]
    files = listing(Path(data.path)) if data.path else ""
    return flat(what_it_is(data) | {"files": files})


def parameters(of, settings):
    """Parameters of a rule, one per setting that any of its jobs has: Snakemake names those that changed.

    A job without a setting has null there. One null is in every job: another data set in the study, with settings of its
    own, must be no change of a job that has none of them.
    """
    names = sorted({name for found in settings for name in found})
    return {"absent": absent} | {
        name.replace(".", "_"): parameter(of, name) for name in names
    }


def absent(wildcards):
    return None


def enumerated(settings):
    """Settings whose names are no names of parameters, as those of a whole study may not be."""
    return {f"s{k}": item for k, item in enumerate(sorted(settings.items()))}


def parameter(of, name):
    """One setting as a job's parameter, 'training.steps = 3000'; null where the job has no such setting."""

    def value(wildcards):
        found = of(wildcards)
        return f"{name} = {found[name]}" if name in found else None

    return value


def of_cell(wildcards):
    return cell_settings(wildcards.dataset, wildcards.sde, wildcards.net, wildcards.T)


def of_measurement(wildcards):
    return measurement_settings(wildcards.dataset, wildcards.measurement)


def of_images(wildcards):
    return images_settings(wildcards.dataset)


def images_of(wildcards):
    """The file that says that a cell's images are there, and which they are; none for a mixture."""
    if is_mixture(wildcards.dataset):
        return []
    return f"{RESULTS}/data/{wildcards.dataset}.json"


def is_pretrained(wildcards):
    return wildcards.net in STUDY.pretrained()


def model_of(wildcards):
    """The file that says which model a pretrained network is; none for a network that is trained."""
    return f"{CELL}/model.json".format(**wildcards) if is_pretrained(wildcards) else []


def files_of_model(wildcards):
    """The contents of a model's files; nothing of code of one's own, which is no file here."""
    return listing(Path(STUDY.nets[wildcards.net].path))


def weights_of(wildcards):
    """What says which network a cell has: its trained weights, or which model it is."""
    return model_of(wildcards) or f"{CELL}/weights.safetensors".format(**wildcards)


def fitted(wildcards):
    """The files of the p_noises that are fitted."""
    names = [name for name in STUDY.noises(wildcards.dataset) if name in FITTED]
    return [f"{CELL}/noise_{name}.safetensors".format(**wildcards) for name in names]


def resource(wildcards, name, usual):
    """What the network of a cell, or else its data, say of a job's resources; mixtures and other jobs take the usual."""
    if not hasattr(wildcards, "net"):
        return usual
    net, data = STUDY.nets[wildcards.net], STUDY.datasets[wildcards.dataset]
    return asked_for(data, net, name, usual)


def memory(wildcards, attempt):
    """MB: PyTorch itself takes 300; a retry gets more."""
    return resource(wildcards, "memory", 1000) * attempt


def minutes(wildcards, attempt):
    return resource(wildcards, "minutes", 30) * attempt


def gpus(wildcards):
    return resource(wildcards, "gpu", 0)


def one_gpu(wildcards):
    """For what is not shared among several."""
    return min(gpus(wildcards), 1)


def cpus(wildcards):
    """At least one for each of the processes that share the work."""
    return max(resource(wildcards, "threads", 1), gpus(wildcards))


def small(wildcards):
    """The group of jobs that are too short for a submission of their own; images are in none."""
    return "cell" if is_mixture(wildcards.dataset) else None


def cell_tables(wildcards):
    """The tables of single cells that a table is collected from."""
    files = GRID.files(wildcards.dataset, wildcards.table)
    return [f"{RESULTS}/cells/{part}" for part in files]


def derived_from(wildcards):
    """The tables, by their names, that a derived table is made from, and the cells' values of each image."""
    entry, dataset = DERIVED[wildcards.table], wildcards.dataset
    planned = GRID.tables(dataset)
    tables = [name for name in (*entry.needs, *entry.wants) if name in planned]
    units = {
        name: [f"{RESULTS}/cells/{part}" for part in GRID.files(dataset, name)]
        for name in entry.units
    }
    return {
        name: f"{RESULTS}/tables/{dataset}/{name}.parquet" for name in tables
    } | units


def figure_table(wildcards):
    dataset, table = wildcards.place.partition("/")[0], FIGURES[wildcards.figure].table
    return f"{RESULTS}/tables/{dataset}/{table}.parquet"


def plain_of(wildcards):
    """What a derived table is told of the study."""
    return STUDY.plain(wildcards.dataset)


def made_by(wildcards):
    """The code of a derived table."""
    return fingerprint(DERIVED[wildcards.table].module)


def figure_style(wildcards):
    return STUDY.style(wildcards.place.partition("/")[0])


def figure_caption(wildcards):
    return caption(wildcards.figure)


def drawn_by(wildcards):
    return fingerprint(f"figures.{wildcards.figure}")


def in_report(table):
    """A table's HTML page, which Snakemake's report shows."""
    return report(
        f"{TABLES}/{table}.html",
        caption="../report/table.rst",
        category="Tables",
        subcategory="{dataset}",
        labels={"table": table},
    )
