"""A derived table, from the tables that it is made from."""

from difftime.study.job import job
from difftime.study.registry import DERIVED

entry = DERIVED[snakemake.wildcards.table]
with job(snakemake, entry.module):
    from difftime.study.saving import save_derived

    save_derived(entry, dict(snakemake.input.items()), snakemake.params.settings, snakemake.output.parquet)
