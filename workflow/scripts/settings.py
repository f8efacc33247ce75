"""Write settings, which are this job's parameters, to a file."""

from difftime.study.job import job
from difftime.support.plain import unflat, write_json

with job(snakemake):
    write_json(unflat(filter(None, snakemake.params)), snakemake.output[0])
