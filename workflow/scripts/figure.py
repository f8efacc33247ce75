"""A figure of one data set, or of one network of it."""

from difftime.study.job import job

name = snakemake.wildcards.figure
with job(snakemake, f"figures.{name}"):
    from difftime.study.saving import save_figure

    place, output = snakemake.wildcards.place, snakemake.output.pdf
    save_figure(name, place, snakemake.input.table, snakemake.params.settings, output)
