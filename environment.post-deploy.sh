#!/usr/bin/env bash
# Snakemake runs this once it has built the environment of environment.yml (--software-deployment-method conda).
# The jobs then run the code that the study is planned with: the Snakefile sets DIFFTIME_CODE to its folder.
set -euo pipefail
python -m pip install --no-deps --editable "$DIFFTIME_CODE"
