"""See to it that the images of a data set are there and fit the study, before jobs start that may have no network."""

from pathlib import Path

from difftime.study.job import job

with job(snakemake):
    from difftime.study.commands.fetch import run
    from difftime.study.settings import Study, parse

    study, dataset = parse(Study, snakemake.config, "The study"), snakemake.wildcards.dataset
    run(study.datasets[dataset], study.needs(dataset), Path(snakemake.output[0]), data_dir=Path(study.data_dir))
