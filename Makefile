# Every target makes its virtual environment first, in $(VENV), and again when pyproject.toml or constraints.txt change:
# `demo` with what the package itself needs, the others with what its tests and extras need too.
#
#   make demo                paint back the example pictures into $(OUT)
#   make test                the tests, without the slow ones
#   make slow                the slow ones
#   make matrix              the cells of families and methods that `slow` leaves out
#   make lint types docs     what their names say
#
# Variables: PYTHON (the interpreter), VENV, OUT, ARGS (more arguments for the command or pytest), and TORCH_INDEX, an
# index to install torch from. On Linux without a GPU, PyPI's torch works and is large; the small one comes with
#   make test TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo-out
TORCH_INDEX ?=
ARGS ?=

# The tests use one thread each, and as many processes as there are cores, up to four for the memory's sake.
PARALLEL := --numprocesses auto --maxprocesses 4 --dist worksteal

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
FULL := $(VENV)/.installed-full
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install --constraint constraints.txt
export HF_HUB_OFFLINE ?= 1

.DEFAULT_GOAL := help
.PHONY: help demo test slow matrix lint format types docs clean

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Paintback needs Python 3.10 or newer; say make PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch
	$(PIP) --editable .
	@touch $@

$(FULL): $(STAMP)
	$(PIP) --editable '.[audio,bench,cluster,dev,models,video,web]'
	@touch $@

demo: $(STAMP)
	$(BIN)/paintback demo -o $(OUT) $(ARGS)

test: $(FULL)
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

slow: $(FULL)
	$(BIN)/python -m pytest -m slow $(PARALLEL) --ignore tests/web --ignore tests/batch $(ARGS)
	$(BIN)/python -m pytest -m 'slow and not timing' tests/web tests/batch $(ARGS)

matrix: $(FULL)
	$(BIN)/python -m pytest -m matrix $(PARALLEL) tests/models $(ARGS)

lint: $(FULL)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache

format: $(FULL)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(FULL)
	$(BIN)/mypy

docs: $(FULL)
	$(PIP) --editable '.[docs]'
	$(BIN)/python docs/generate.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict  # --quiet would hide warnings from --strict too

clean:
	rm -rf $(VENV) $(OUT) site .pytest_cache .mypy_cache .ruff_cache .hypothesis
