"""The explorer, and the findings that the report opens with."""

from pathlib import Path

from difftime.study.job import job

with job(snakemake, "study.pages"):
    from difftime.study.pages import save_pages

    explorer, findings = map(Path, snakemake.output)
    save_pages(snakemake.input.tables, snakemake.input.pictures, snakemake.params.kinds, (explorer, findings))
