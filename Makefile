# make run     the default study: environment, training, tables, figures, and what they say
# make test    everything the tests need, then all of them
# make help    the rest

PYTHON ?= python3
CORES ?= all
SLURM_TESTS ?= tests/slurm
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
export PATH := $(CURDIR)/$(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help run test test-slurm lint format smoke sensitivity report readme schema benchmark docs docs-build clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "difftime needs Python 3.11 or newer; $$($(PYTHON) --version) is $(PYTHON). Try: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "Python's venv module is missing. On Debian and Ubuntu: sudo apt install python3-venv" >&2; rm -rf $(VENV); exit 1; }
	@touch $@

$(VENV)/run: $(VENV)/python pyproject.toml constraints.txt
	@echo "Installing the pinned packages into $(VENV) (PyTorch is the large one) ..."
	@$(INSTALL) --editable '.[study,flow]'
	@touch $@

$(VENV)/docs: $(VENV)/run
	@$(INSTALL) --editable '.[docs]'
	@touch $@

$(VENV)/test: $(VENV)/run
	@$(INSTALL) --editable '.[test]'
	@touch $@

run: $(VENV)/run  ## the default study on all cores; CORES=2 takes fewer
	snakemake --cores $(CORES)
	@difftime show results

smoke: $(VENV)/run  ## every rule once, in two minutes
	snakemake --cores $(CORES) --configfile config/smoke.yaml
	@difftime show results/smoke

sensitivity: $(VENV)/run  ## T* by setting: some forty minutes on two cores
	snakemake --cores $(CORES) --configfile config/sensitivity.yaml
	@difftime show results/sensitivity

report: $(VENV)/run  ## results/report.html: tables, figures and settings in one file that opens offline
	snakemake --report results/report.html

test: $(VENV)/test  ## all tests
	pytest --ignore tests/slurm --numprocesses auto --dist loadfile

test-slurm: $(VENV)/test  ## install Debian's Slurm and test the study on it: needs root
	@command -v slurmctld >/dev/null && command -v munged >/dev/null || \
	  { apt-get update -qq && apt-get install -y -qq --no-install-recommends slurm-wlm munge; } || \
	  echo "Slurm cannot be installed here: its tests will be skipped." >&2
	pytest $(SLURM_TESTS)

docs-build: $(VENV)/docs  ## the documentation in docs/_build/html; runs the tutorials; any warning is an error
	sphinx-build --quiet --fail-on-warning --keep-going docs docs/_build/html

docs: docs-build  ## the documentation at http://localhost:8000
	$(BIN)/python -m http.server 8000 --directory docs/_build/html

lint: $(VENV)/test  ## style of Python and Snakemake files, and types
	ruff check .
	ruff format --check .
	mypy difftime
	snakefmt --check Snakefile workflow
	snakemake --lint

format: $(VENV)/test  ## put the style right
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

readme: $(VENV)/run  ## put the default study's findings and figures into README.md and the docs
	for part in findings cheapest table1 figures rules; do $(BIN)/python -m workflow.readme $$part || exit 1; done

schema: $(VENV)/run  ## write the settings' JSON schema for editors
	difftime schema > workflow/schemas/config.schema.json

benchmark: $(VENV)/run  ## measure the speed of a study, of training, of images and of the workflow: some twenty minutes
	for part in study training images workflow; do $(BIN)/python -m benchmarks.$$part || exit 1; done

clean:  ## remove the environment; results stay
	rm -rf $(VENV)
