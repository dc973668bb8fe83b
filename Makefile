# Two commands do everything: `make run` and `make test`. Needs Python 3.11 or newer and make.
PYTHON ?= python3
CORES ?= $(shell nproc 2>/dev/null || echo 2)
INSTALL = .venv/bin/python -m pip --disable-pip-version-check install --quiet --no-compile
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Packages are compiled when they are first imported, and kept so.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: run test settings docs lint unit workflow recipes cluster lock clean

run: .venv/run.stamp  ## the demo (or your config.yaml), to the SIDs and the report
	snakemake --cores $(CORES)
	snakemake --report results/report.html
	@echo "SIDs: results/pid2sid.parquet   report: results/report.html   explorer: results/explorer.html"

test: .venv/dev.stamp lint unit workflow  ## all checks and tests; SIDMILL_LONG=1 adds those of a minute or more

settings: .venv/dev.stamp  ## write config.yaml, its schema and docs/settings.md from src/sidmill/settings
	python -m sidmill.settings

docs: .venv/dev.stamp  ## write the diagrams of docs/index.md and the schemas of docs/schemas
	python docs/diagrams.py
	python docs/schemas.py

lint: .venv/dev.stamp
	ruff check
	ruff format --check
	snakefmt --check Snakefile workflow/rules
	snakemake --lint
	lint-imports
	mypy

unit: .venv/dev.stamp
	python -m pytest tests/unit -n 2

workflow: .venv/dev.stamp
	python -m pytest tests/workflow tests/cluster -n 2 --dist loadfile -rs --durations=20

recipes: .venv/dev.stamp .recipes/stamp  ## docs/recipes and profiles/s3, with the packages of others that they name
	PYTHONPATH=.recipes python -m pytest tests/recipes tests/workflow/test_s3.py -rs

cluster: .venv/dev.stamp  ## on the Slurm that answers here: tests/cluster/slurm.py starts one
	python -m pytest tests/cluster -rs --durations=0

.venv/run.stamp: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "SIDMill needs Python 3.11 or newer: make PYTHON=python3.11")'
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	@echo "Installing packages into .venv: about a minute, once"
	$(INSTALL) --requirement requirements.lock
	$(INSTALL) --no-deps --editable .
	touch $@

# Snakemake imports every plugin that is installed, in every command: this one only where jobs go to Slurm.
.venv/slurm.stamp: .venv/run.stamp requirements-slurm.lock
	$(INSTALL) --requirement requirements-slurm.lock
	touch $@

.venv/dev.stamp: .venv/slurm.stamp requirements-dev.lock
	$(INSTALL) --requirement requirements-dev.lock
	touch $@

# Beside .venv and without their dependencies: .venv has these, in versions of its own.
.recipes/stamp: .venv/dev.stamp requirements-recipes.lock
	rm -rf .recipes
	$(INSTALL) --no-deps --target .recipes --requirement requirements-recipes.lock
	touch $@

lock:  ## pin again, at the newest versions, what pyproject.toml asks for
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet .
	.venv-lock/bin/python -m pip freeze --exclude sidmill | sed 's/+cpu$$//' > requirements.lock
	.venv-lock/bin/python -m pip install --quiet --constraint requirements.lock .[slurm]
	.venv-lock/bin/python -m pip freeze --exclude sidmill | sed 's/+cpu$$//' \
	    | grep --invert-match --line-regexp --fixed-strings --file requirements.lock > requirements-slurm.lock
	.venv-lock/bin/python -m pip install --quiet --constraint requirements.lock --constraint requirements-slurm.lock .[dev]
	.venv-lock/bin/python -m pip freeze --exclude sidmill | sed 's/+cpu$$//' | grep --invert-match --line-regexp \
	    --fixed-strings --file requirements.lock --file requirements-slurm.lock > requirements-dev.lock
	rm -rf .venv-lock build src/*.egg-info

clean:
	rm -rf results .snakemake
