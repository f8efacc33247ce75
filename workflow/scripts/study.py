"""Write the grid of a study to a file, for `difftime collect`, `show` and `suggest`."""

import json

from difftime.study.job import job
from difftime.study.settings import write_json

with job(snakemake):  # noqa: F821
    write_json(json.loads(snakemake.params.study), snakemake.output[0])  # noqa: F821
