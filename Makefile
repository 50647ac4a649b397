# Every target sets itself up: a virtual environment in .venv with the versions of constraints.txt.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-long lint format clean

# The whole job on a small rendered data set, on a CPU.
demo: .venv/ready
	$(BIN)/tca demo

# Tests run side by side, each on one core.
test test-long: export OMP_NUM_THREADS := 1

# All tests, those that repeat themselves with reduced counts.
test: lint
	$(BIN)/python -m pytest -n auto -m "not long"

# All tests with their full counts.
test-long: lint
	$(BIN)/python -m pytest -n auto

lint: .venv/ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.venv/ready: pyproject.toml constraints.txt tca/cache/_rows.c
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tca needs Python 3.11 or newer; name one: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo build dist *.egg-info
