# Everything a person needs is `make audit` and `make test`; the rest is for developers.
# Each target makes the virtual environment in .venv first, once.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
WORKERS ?= 2

# Where the real data sets are looked for, if the environment does not say. Without them
# everything runs on the embedded differentially private editions, and says so.
PRIVFAIR_DATA_DIR ?= $(firstword $(wildcard data ../shared/datasets))
ifeq ($(shell test -d "$(PRIVFAIR_DATA_DIR)" && echo yes),yes)
override PRIVFAIR_DATA_DIR := $(shell cd "$(PRIVFAIR_DATA_DIR)" && pwd)
export PRIVFAIR_DATA_DIR
else
unexport PRIVFAIR_DATA_DIR
endif

PIP_INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	--constraint constraints.txt
PYTEST = OMP_NUM_THREADS=1 PRIVFAIR_FULL_RUN=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help audit test test-all lint docs bench mutants install clean

help:  ## Show the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

audit: $(VENV)/.installed  ## Audit Adult: writes reports/adult.html and reports/adult.json
	@$(BIN)/privfair audit adult --output reports --ledger reports/ledger.db

test: $(VENV)/.installed-dev  ## Run the tests, doctests, documentation snippets and examples
	@$(PYTEST)

test-all: $(VENV)/.installed-dev  ## The same, with the slow studies
	@$(PYTEST) -m "not gpu and not network" --timeout=1800

lint: $(VENV)/.installed-dev  ## Check style, types and the floors of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed-docs  ## Build the documentation; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html
	@echo "open docs/_build/html/index.html"

bench: $(VENV)/.installed-dev  ## Run the benchmarks; each writes benchmarks/results/<name>.json
	@for script in benchmarks/bench_*.py; do \
		echo "== $$script"; $(BIN)/python "$$script" || exit 1; done

mutants: $(VENV)/.installed-dev  ## Plant the known bugs, and run mutmut: the tests must notice
	$(BIN)/python tests/mutants/run.py
	$(BIN)/mutmut run
	$(BIN)/mutmut results

install: $(VENV)/.installed  ## Only make the virtual environment

clean:  ## Remove what the other targets made, but not .venv
	rm -rf reports build dist docs/_build docs/gallery docs/api mutants .coverage* \
		htmlcov .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find privfair tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@command -v "$(PYTHON)" >/dev/null || { \
		echo "No program '$(PYTHON)'. Install Python 3.11 or newer, or name one: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "privfair needs Python 3.11 or newer; '$(PYTHON)' is $$("$(PYTHON)" -V 2>&1 | head -n 1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@"$(PYTHON)" -m venv $(VENV) || { rm -rf $(VENV); \
		echo "Could not make a virtual environment; on Debian and Ubuntu install the package python3-venv." >&2; exit 1; }

# The stamps keep pip from running again until what it would install has changed.
$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing privfair and its dependencies into $(VENV) ..."
	@$(PIP_INSTALL) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing the test tools into $(VENV) ..."
	@$(PIP_INSTALL) --editable ".[dev,data]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed-dev
	@echo "Installing the documentation tools into $(VENV) ..."
	@$(PIP_INSTALL) --editable ".[docs]"
	@touch $@
