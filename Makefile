# Two commands on a fresh clone: `make demo` and `make test`.
PYTHON ?= python3.11
ifeq (, $(shell command -v $(PYTHON) 2>/dev/null))
PYTHON := python3
endif
BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 2
# Passive waiting keeps a shared machine usable: spinning OpenMP barriers were 28 times slower beside other load.
export OMP_WAIT_POLICY ?= PASSIVE
# Packages are installed uncompiled, which is faster; what is used is compiled once, at its first import.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help env demo test test-slow check bench docs ui clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

env: $(STAMP)  ## create .venv with everything that development and tests need

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[test,dev]"
	@touch $(STAMP)

demo: env  ## simulated cohort -> store -> three phases, four variants -> report, in minutes
	$(BIN)/cerebro run recipes/demo.yaml --out runs/demo

test: env  ## everything but the slow tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m "not slow"

test-slow: env  ## the slow tests: kills, whole recipes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) -m slow

check: env  ## style, types, import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p cerebro
	$(BIN)/lint-imports --no-cache

bench: env  ## ours beside the peers, interleaved, as ratios; JSON under outputs/bench
	mkdir -p outputs/bench
	$(BIN)/python benchmarks/run.py data --json outputs/bench/data.json
	$(BIN)/python benchmarks/run.py preprocess --json outputs/bench/preprocess.json
	$(BIN)/python benchmarks/run.py labram --json outputs/bench/labram.json
	$(BIN)/python benchmarks/run.py signal_jepa --json outputs/bench/signal_jepa.json
	$(BIN)/python benchmarks/run.py mamba2 --json outputs/bench/mamba2.json
	$(BIN)/python benchmarks/run.py finetune --json outputs/bench/finetune.json

docs: env  ## run every example that the documentation shows
	$(BIN)/python -m pytest -q tests/docs

ui: env  ## MLflow's pages for the runs in this folder, on this machine only
	$(BIN)/mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port 5000

clean:  ## remove caches and what the demo wrote; .venv stays
	rm -rf runs/demo stores/demo cohorts/demo outputs/bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
