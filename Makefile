# Everything goes through a virtual environment in .venv, made on first use from pinned versions.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= configs/cnn.py
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Tests of under a second each, in a minute with lint and types.
FAST := tests/analysis $(wildcard tests/test_*.py) tests/cli/test_flags.py tests/cli/test_console.py \
	tests/data/test_datasets.py tests/data/test_image_files.py tests/data/test_image_folder.py \
	tests/data/test_preprocess.py tests/data/test_splits.py tests/models/test_registry.py \
	tests/report/test_formats.py tests/train/test_optim.py tests/workdir/test_files.py
SLOW := $(addprefix tests/test_,contributing.py docs.py notebooks.py packaging.py tasks.py)

.PHONY: help train test check format lint types pytest mutants notebooks baselines tables hooks clean

help: ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

train: $(VENV)/core ## train CONFIG (configs/cnn.py)
	$(BIN)/python -m mnist_jax.main --config=$(CONFIG)
	@printf '\nwhat next?\n  $(BIN)/mnist-jax list\n  $(BIN)/mnist-jax train --config=fast\n'
	@printf '  $(BIN)/mnist-jax explore --dataset=digits\n  . $(BIN)/activate\n'

test: lint types pytest ## run lint, types and all tests

check: lint types $(VENV)/dev ## run lint, types and the fast tests, in a minute
	$(BIN)/python -m pytest -q -n 2 --dist=loadfile $(filter-out $(SLOW),$(FAST))

format: $(VENV)/dev ## ruff: fix and format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: $(VENV)/dev ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/dev ## mypy
	$(BIN)/mypy

pytest: $(VENV)/dev ## run the tests only
	$(BIN)/python -m pytest -n 2 --dist=loadfile

mutants: $(VENV)/dev $(VENV)/mutants ## change 200 places of the code, one by one: do its tests fail? (hours)
	$(BIN)/python tests/mutants.py

notebooks: $(VENV)/notebooks ## open experiments/notebooks in JupyterLab
	$(BIN)/jupyter lab experiments/notebooks

baselines: $(VENV)/core ## measure the shipped configs: experiments/results/baselines.md
	$(BIN)/python -m experiments.baselines

tables: $(VENV)/core ## write all tables again from their JSON, and the quotes of docs/tour.md
	$(BIN)/python -m experiments.tables

hooks: $(VENV)/dev ## run lint and types before each commit
	$(PIP) pre-commit
	$(BIN)/pre-commit install

clean: ## remove the environment and the caches, keep the runs
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with 'make PYTHON=python3.12 ...'" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }  # or half of one would be taken for whole

# Stamps: the environment as these files describe it.
$(VENV)/core: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) --editable .
	@touch $@

$(VENV)/dev $(VENV)/mutants $(VENV)/notebooks: $(VENV)/core
	$(PIP) --editable '.[$(@F)]'
	@touch $@
