# `make train` and `make test` need Python >= 3.11 (PYTHON=python3.12 picks another) and nothing else.
PYTHON ?= python3
BIN := .venv/bin
export OMP_NUM_THREADS ?= $(shell nproc 2>/dev/null || echo 2)

.PHONY: train test fast lint clean

train: .venv/.dim  ## Deep InfoMax on digits: runs/digits (a finished run is only shown)
	$(BIN)/python -m dim.train --out runs/digits --resume

# One thread a worker: two workers on two cores, and not four threads fighting over them.
test: .venv/.dev  ## the whole suite
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

fast: .venv/.dev  ## the suite without trained critics
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m "not slow"

lint: .venv/.dev  ## formatter, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf .venv runs dist

.venv/.dim .venv/.dev: .venv/.%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[$*]"
	touch $@
