# EnsembleRL. `make` alone lists the targets; PYTHON=... chooses the interpreter of the environment.
.DEFAULT_GOAL := help
.PHONY: help setup demo test slurm faults utilisation lint docs bench-quick check clean

# python3.11 where it answers, else any python3 that is new enough (a name on the path may be a shim)
NEW_ENOUGH := 'import sys; sys.exit(sys.version_info < (3, 11))'
PYTHON ?= $(shell for p in python3.11 python3; do \
	if $$p -c $(NEW_ENOUGH) >/dev/null 2>&1; then echo $$p; break; fi; done)
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := torch==2.13.0
EXTRAS := test,sim,peers,plot,docs,dev
DEMO_OUTPUT ?= demo-output
PYTEST_ARGS ?=

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY)  ## make .venv with everything in it, once for each change of the pins

# PyTorch goes first and by its exact version: a range would fetch another build of several GB
$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found; say which: make PYTHON=/path/to/python3" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q -c constraints.txt $(TORCH)
	$(PIP) install -q -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

demo: $(READY)  ## run a real campaign on a real code; store, table and picture land in demo-output/
	$(BIN)/python workflows/calibrate_argon.py --out $(DEMO_OUTPUT)

test: $(READY)  ## run the tests and the examples in docstrings and pages
	$(BIN)/python -m pytest $(PYTEST_ARGS)

slurm:  ## install Slurm for the cluster tests (Debian, as root; `make test` as root does so itself)
	$(PYTHON) tests/cluster/slurm.py install

faults: $(READY)  ## inject faults into campaigns on a private Slurm; the table goes to docs/faults.md
	$(BIN)/python tests/cluster/faults.py

utilisation: $(READY)  ## share of worker time that members have, on a private Slurm
	$(BIN)/python tests/cluster/utilisation.py

lint: $(READY)  ## ruff (rules and format), mypy --strict, the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

docs: $(READY)  ## build the pages into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html

bench-quick: $(READY)  ## every benchmark in its short form
	set -e; for file in benchmarks/[a-z]*.py; do echo "$$file --quick"; $(BIN)/python $$file --quick; done

check: lint docs test bench-quick  ## all of the above but the demo

clean:  ## remove what these targets made, except .venv and your runs/
	rm -rf docs/_build docs/api/generated $(DEMO_OUTPUT) build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find ensemblerl tests workflows benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
