# The settings, checked before anything runs, and what the rules need of them.

from pathlib import Path
from shlex import quote

import pandas as pd
from snakemake.exceptions import WorkflowError
from snakemake.utils import Paramspace, min_version

from difftime.config import (
    FIGURE_TABLE,
    MEASURED_BY,
    BadSettings,
    cell_name,
    read_study,
    refuse_repeated_keys,
)
from difftime.source import fingerprint

min_version("9.15")

try:
    for path in workflow.configfiles:
        refuse_repeated_keys(Path(path))
    STUDY = read_study(config, "The configuration")
except BadSettings as error:
    raise WorkflowError(str(error)) from None

RESULTS = STUDY.results
GRID = STUDY.grid()
CELLS = Paramspace(pd.DataFrame([keys for keys, _ in GRID]), param_sep="=")
CELL = f"{RESULTS}/cells/{CELLS.wildcard_pattern}"
LOG = f"{RESULTS}/logs/{CELLS.wildcard_pattern}"
BENCHMARK = f"{RESULTS}/benchmarks/{CELLS.wildcard_pattern}"
NOISES = " ".join(f"--p-noise {name}" for name in STUDY.p_noise)
MEASURED = {
    measure: [cell_name(keys) for keys, block in GRID if measure in block.measure]
    for measure in ("elbo", "likelihood", "samples")
}
TABLES = [table for table, measure in MEASURED_BY.items() if MEASURED[measure]]
if MEASURED["elbo"]:
    TABLES += ["optimum", "summary"]
if MEASURED["elbo"] and MEASURED["likelihood"]:
    TABLES += ["bounds"]


wildcard_constraints:
    dataset="[^/=]+",
    sde="[^/=]+",
    net="[^/=]+",
    T="[^/=]+",


def cell_settings(wildcards):
    """Everything that determines the weights of a cell, as JSON."""
    return STUDY.cell(**wildcards).canonical()


def cell_tables(wildcards):
    """The tables of single cells that a study's table is collected from."""
    names = MEASURED[MEASURED_BY[wildcards.table]]
    return [f"{RESULTS}/cells/{name}/{wildcards.table}.parquet" for name in names]


def figure_table(wildcards):
    """The one table that a figure shows."""
    return f"{RESULTS}/tables/{FIGURE_TABLE[wildcards.figure]}.parquet"


def summarised(wildcards):
    """The tables, beside elbo and optimum, that a summary of this study draws on."""
    return {
        table: f"{RESULTS}/tables/{table}.parquet"
        for table in ("likelihood", "samples")
        if MEASURED[table]
    }


def summary_options(wildcards, input):
    return " ".join(
        f"--{table} {quote(input[table])}"
        for table in ("likelihood", "samples")
        if MEASURED[table]
    )


def figure_settings(wildcards):
    return STUDY.figures.of(wildcards.figure)


def figure_code(wildcards):
    return fingerprint(f"figures.{wildcards.figure}")


def in_report(table):
    """A table's HTML page, which Snakemake's report shows."""
    return report(
        f"{RESULTS}/tables/{table}.html",
        caption="../report/table.rst",
        category="Tables",
        labels={"table": table},
    )


def memory(wildcards, attempt):
    """MB: PyTorch itself takes 300; a retry gets more."""
    return 1000 * attempt


def minutes(wildcards, attempt):
    return 30 * attempt
