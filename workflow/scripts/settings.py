"""Write settings, which are this job's parameters, to a file."""

from difftime.study.job import job
from difftime.study.settings import unflat, write_json

with job(snakemake):  # noqa: F821
    write_json(unflat(filter(None, snakemake.params)), snakemake.output[0])  # noqa: F821
