"""A figure of one data set, or of one network of it."""

from difftime.study.job import job

name = snakemake.wildcards.figure  # noqa: F821
with job(snakemake, f"figures.{name}"):  # noqa: F821
    from difftime.study.collecting import save_figure

    place, output = snakemake.wildcards.place, snakemake.output.pdf  # noqa: F821
    save_figure(name, place, snakemake.input.table, snakemake.params.settings, output)  # noqa: F821
