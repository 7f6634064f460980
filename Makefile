# `make check` and `make test` for every change; `make test-all` is what CI runs. VENV chooses the virtual environment.
VENV ?= .venv
PYTHON ?= python3
BIN = $(VENV)/bin

.PHONY: check test test-all format report clean

check: $(VENV)/.installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py

test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -m "not slow and not browser and not cluster" -n auto --dist loadfile

test-all:
	VENV=$(VENV) PYTHON=$(PYTHON) sh .ci/test

format: $(VENV)/.installed
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

# What `--to html` puts into each page; needs npm. The result is in the repository, so that installing does not.
report:
	cd exporter/formats/report/frontend && npm ci --ignore-scripts --no-audit --no-fund && npm run build

$(VENV)/.installed: pyproject.toml configs/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c configs/constraints.txt -e '.[test]'
	touch $@

clean:
	rm -rf .venv build *.egg-info .mypy_cache .pytest_cache .ruff_cache
