"""The tables of single cells as one."""

from difftime.study.job import job

with job(snakemake, "tables.parquet"):
    from difftime.study.saving import save_collected

    save_collected(snakemake.input.parts, snakemake.wildcards.table, snakemake.output.parquet)
