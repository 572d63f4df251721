# Every target sets up what it needs: a virtual environment in .venv, made once, with this package and its tools.
#   make demo                    train with and without memory, about five minutes on two CPU cores
#   make test                    all tests but the longest; make test-slow runs those, make coverage measures coverage
#   make wheel                   build dist/, and check that the wheel is complete
#   make docs                    build the documentation site into docs/_build/html
#   make test PYTHON=python3.13  with another Python (add VENV=.venv313 to keep the first environment)
#   make setup JAX='jax[cuda13]' for an NVIDIA GPU, JAX='jax[tpu]' for a TPU: before the first other target
PYTHON ?= python3
JAX ?= jax
VENV ?= .venv
BIN := $(VENV)/bin
.DEFAULT_GOAL := help
# Large pages where Linux has them: a training step on CPU takes 10 to 20% less time.
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
# Python keeps its compiled modules, so that the tests and the programs that they start do not compile them again.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: help setup demo test test-slow lint format bench coverage wheel docs clean

help:
	@echo "make demo | test | test-slow | lint | format | bench | coverage | wheel | docs | clean     [PYTHON=python3] [VENV=.venv]"

# The stamp is written last, so an interrupted set-up starts again; `venv` leaves what is already installed in place.
$(VENV)/.installed: pyproject.toml requirements.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]' '$(JAX)'
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

$(VENV)/.installed-release: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[release]'
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[docs]'
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/python experiments/demo.py

test: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Lines and branches; fails below the percentage in pyproject.toml.
coverage: setup
	$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder --cov --cov-report=term

test-slow: setup $(VENV)/.installed-docs
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(BIN)/python -m pytest -m slow --timeout 3600

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench
	$(BIN)/python experiments/benchmark.py train benchmark --sweep model.memory=none,kv --peers True
	$(BIN)/python experiments/benchmark.py decode benchmark --sweep model.memory=none,kv --rows 1 8 --peers True

wheel: $(VENV)/.installed-release
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/twine check --strict dist/*

# Warnings are errors, and nothing is downloaded.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m sphinx -E -W --keep-going -q docs docs/_build/html

clean:
	rm -rf $(VENV) build dist docs/_build .cache .coverage* *.egg-info .pytest_cache .ruff_cache .hypothesis
