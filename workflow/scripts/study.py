"""Write what a study is into its results, for `difftime show`, `collect`, `partial` and `suggest`."""

from difftime.study.job import job
from difftime.support.plain import write_json

with job(snakemake):
    write_json(snakemake.config, snakemake.output[0])
