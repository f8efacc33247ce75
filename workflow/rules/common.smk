# The settings, checked before anything runs, and what the rules need of them.

import gc
import json
from contextlib import suppress
from functools import cache
from itertools import islice
from pathlib import Path
from shlex import quote

import pandas as pd
from snakemake.exceptions import IncompleteCheckpointException, WorkflowError
from snakemake.utils import Paramspace, min_version

from difftime.study.settings import (
    FIGURE_TABLE,
    FITTED,
    MEASURED_BY,
    BadSettings,
    added_times,
    cell_name,
    decisions,
    family,
    read_study,
    refined_lines,
    refuse_repeated_keys,
    round_name,
    what_it_is,
)
from difftime.images.listing import listing
from difftime.study.fingerprint import fingerprint
from difftime.support.files import expanded

min_version("9.15")
# a DAG of thousands of jobs is millions of objects that live to the end: looking for garbage among them takes its time
gc.set_threshold(500_000, 20, 20)

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
NOISES = {
    name: " ".join(f"--p-noise {noise}" for noise in STUDY.noises(name))
    for name in STUDY.datasets
}
REFINED = refined_lines(STUDY.study)
LINE = {key: f"{{{key}}}" for key in ("dataset", "sde", "net")}
ROUND = f"{RESULTS}/{round_name(LINE, '{round}')}"
MEASURED = {table: STUDY.cells().measured(table) for table in MEASURED_BY}
TRADED = [
    "training",
    "elbo",
    "likelihood",
    "samples",
    "bpd",
    "image_elbo",
    "image_quality",
]
# resources and not parameters: they change no result, so their change re-runs nothing. Every job of a group has them, as
# Snakemake refuses a group whose jobs differ in a resource that is a text; and one that is a number must be a whole one
TEXTS = {
    "checkpoint_minutes": str(STUDY.checkpoint_minutes),
    "data_dir": STUDY.data_dir,
}
RUNNING = STUDY.scout.canonical(exclude={"cells"})
TABLES = STUDY.cells().tables()


wildcard_constraints:
    dataset="[^/=]+",
    sde="[^/=]+",
    net="[^/=]+",
    T="[^/=]+",
    noise="|".join(FITTED),
    round="[1-9][0-9]*",


@cache
def cells_settings(dataset, sde, net):
    """What determines the weights of cells that differ in T only."""
    return STUDY.cell(dataset, sde, net, T="1").model_dump(mode="json")


def cell_settings(wildcards):
    """Everything that determines the weights of a cell, as JSON."""
    common = cells_settings(wildcards.dataset, wildcards.sde, wildcards.net)
    return json.dumps(common | {"T": float(wildcards.T)}, sort_keys=True)


def cell_tables(wildcards):
    """The tables of single cells that a study's table is collected from."""
    grid = STUDY.cells().extended(lambda line: added_times(made(line)))
    return [f"{RESULTS}/cells/{part}" for part in grid.parts(wildcards.table)]


def made(line):
    """The file with the decision of a round on a line, which Snakemake makes first if it is not there."""
    return lambda round: Path(checkpoints.refine.get(**line, round=round).output[0])


def block_of(wildcards):
    """The key columns of a refined line, and its block."""
    own = {key: wildcards[key] for key in LINE}
    return next((line, block) for line, block in REFINED if line == own)


def running_before(wildcards):
    """The running ELBOs of all cells that a line has before a round."""
    line, block = block_of(wildcards)
    added = islice(added_times(made(line)), int(wildcards.round) - 1)
    cells = [cell_name(line | {"T": f"{T:g}"}) for T in (*block.T, *added)]
    return [f"{RESULTS}/cells/{cell}/running.parquet" for cell in cells]


def refine_settings(wildcards):
    return block_of(wildcards)[1].refine.canonical()


def refine_noise(wildcards):
    """The p_noise whose optimum is looked for."""
    return STUDY.known_noises(wildcards.dataset)[0]


def rounds(wildcards):
    """The decisions on all refined lines, to the last."""
    return [
        f"{RESULTS}/{round_name(line, round)}"
        for line, _ in REFINED
        for round, _ in enumerate(decisions(made(line)), 1)
    ]


def rounds_begun(wildcards):
    """The same with the next one of every line, so that they are refined side by side."""
    files = []
    for line, _ in REFINED:
        files.append(f"{RESULTS}/{round_name(line, 1)}")
        with suppress(IncompleteCheckpointException):
            files += [
                f"{RESULTS}/{round_name(line, round)}"
                for round, _ in enumerate(added_times(made(line)), 2)
            ]
    return files


def refined_table(wildcards):
    """The table of refined lines, if there are any."""
    return {"refined": f"{RESULTS}/tables/refined.parquet"} if REFINED else {}


def refined_option(wildcards, input):
    return f"--refined {quote(input.refined)}" if REFINED else ""


def image_settings(wildcards):
    """What images these are, as JSON."""
    return json.dumps(what_it_is(STUDY.datasets[wildcards.dataset]), sort_keys=True)


def image_needs(wildcards):
    """What the study will do with these images, as JSON."""
    return STUDY.needs(wildcards.dataset).canonical()


def image_files(wildcards):
    path = STUDY.datasets[wildcards.dataset].path
    return listing(expanded(path)) if path else ""


def images_of(wildcards):
    """The file that says that a cell's images are there, and which they are; none for a mixture."""
    if family(STUDY.datasets[wildcards.dataset]) == "mixture":
        return []
    return f"{RESULTS}/data/{wildcards.dataset}.json"


def noises(wildcards):
    """Where the reverse process of a cell starts, as options of its measurements."""
    return NOISES[wildcards.dataset]


def known_noises(wildcards):
    """The same without those that are fitted, which are of one T."""
    return " ".join(
        f"--p-noise {name}" for name in STUDY.known_noises(wildcards.dataset)
    )


def fitted(wildcards):
    """The files of the p_noises that are fitted."""
    names = [name for name in STUDY.noises(wildcards.dataset) if name in FITTED]
    return [f"{CELL}/noise_{name}.safetensors".format(**wildcards) for name in names]


def noise_settings(wildcards):
    """How a p_noise is fitted, as JSON."""
    return getattr(STUDY.noise, wildcards.noise).canonical()


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


def traded(wildcards):
    """The tables that this study's trade-off draws on, and what was measured of each image."""
    tables = {
        table: f"{RESULTS}/tables/{table}.parquet"
        for table in TRADED
        if MEASURED[table]
    }
    images = [
        f"{RESULTS}/cells/{cell}/{table}_images.parquet"
        for table in ("bpd", "image_elbo")
        for cell in MEASURED[table]
    ]
    return tables | {"images": images}


def tradeoff_options(wildcards, input):
    return " ".join(
        f"--{table.replace('_', '-')} {quote(input[table])}"
        for table in TRADED
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


def asked_for(wildcards, name, usual):
    """What a network, or else the data set, says of a job's resources; collecting jobs and mixtures take the usual."""
    net = STUDY.nets.get(getattr(wildcards, "net", ""))
    data = STUDY.datasets.get(getattr(wildcards, "dataset", ""))
    return getattr(net, name, None) or getattr(data, name, usual)


def memory(wildcards, attempt):
    """MB: PyTorch itself takes 300; a retry gets more."""
    return asked_for(wildcards, "memory", 1000) * attempt


def minutes(wildcards, attempt):
    return asked_for(wildcards, "minutes", 30) * attempt


def gpus(wildcards):
    return asked_for(wildcards, "gpu", 0)


def one_gpu(wildcards):
    """For what is not shared among several."""
    return min(gpus(wildcards), 1)


def cpus(wildcards):
    """At least one for each of the processes that share the work."""
    return max(asked_for(wildcards, "threads", 1), gpus(wildcards))


def small(wildcards):
    """The group of jobs that are too short for a submission of their own; images are in none."""
    mixture = family(STUDY.datasets[wildcards.dataset]) == "mixture"
    return "cell" if mixture else None
