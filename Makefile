# The habits in one word each; `make` alone lists them. VENV, CONSTRAINTS, BASE_PYTHON: see bash/_venv.sh.
VENV ?= .venv
export VENV
SHELL := bash
.SHELLFLAGS := -euo pipefail -c

help:
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-6s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## .venv with the tested versions, and what tests and lint need (minutes, the first time)
	@source bash/_venv.sh; install requirements-dev.txt

demo: ## trains thoughts for the toy LLM on the CPU, evaluates, prints one table
	bash bash/run_demo.sh

test: ## the test suite
	bash bash/run_tests.sh

lint: setup ## ruff: rules and format; pyright: types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

bench: setup ## speed of a training step and of an evaluation on the toy pair, against the published way
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/train_step.py --shape tiny --device cpu --generator small_block
	OMP_NUM_THREADS=1 $(VENV)/bin/python benchmarks/evaluate.py --shape tiny --device cpu

.PHONY: help setup demo test lint bench
