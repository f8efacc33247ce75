"""Read a model that somebody else trained, before jobs start that measure it."""

from pathlib import Path

from difftime.study.job import job

with job(snakemake, "study.commands.model"):
    from difftime.study.commands.model import run

    run(Path(snakemake.output.model).parent, data_dir=Path(snakemake.resources.data_dir))
