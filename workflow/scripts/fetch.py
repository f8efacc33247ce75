"""See to it that the images of a data set are there and fit the study, before jobs start that may have no network."""

from difftime.study.job import job

with job(snakemake):  # noqa: F821
    from difftime.study.commands.fetch import run
    from difftime.study.settings import study_of

    study, dataset = study_of(snakemake.config), snakemake.wildcards.dataset  # noqa: F821
    run(study.datasets[dataset], study.needs(dataset), snakemake.output[0], data_dir=study.data_dir)  # noqa: F821
