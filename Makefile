# Everything runs in .venv and caches in .cache: nothing outside this folder is touched.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export OPENJEPA_CACHE := $(CURDIR)/.cache/openjepa
export HF_HOME := $(CURDIR)/.cache/huggingface
export PIP_CACHE_DIR := $(CURDIR)/.cache/pip
export MPLCONFIGDIR := $(CURDIR)/.cache/matplotlib
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := true
PARALLEL := -n auto --dist loadscope

.DEFAULT_GOAL := help
.PHONY: help demo test test-all lint types docs docs-serve wheel api bench golden clean

help: ## Show what can be made
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

demo: .venv/ready ## Install, train a text JEPA for a few minutes, and show whether it learned
	$(BIN)/openjepa train t_jepa

test: .venv/ready ## Install and run the tests, but for the slow ones (a few minutes on two cores)
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow"

test-all: .venv/ready ## Run every test, the slow ones too
	$(BIN)/python -m pytest $(PARALLEL)

lint: .venv/ready ## Check style, formatting and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: .venv/ready ## Check types
	$(BIN)/ty check src

docs: .venv/ready ## Build the documentation site into site/; any warning is an error, no network is used
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs-serve: .venv/ready ## Serve the site on this machine, rebuilt when a page changes
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

wheel: .venv/ready ## Build sdist and wheel into dist/
	$(BIN)/python -m build --no-isolation --outdir dist

api: .venv/ready ## Record the public API anew (review the difference before you commit it)
	$(BIN)/python -m tests.public_api

bench: .venv/ready ## Measure speed as ratios in one run, into benchmarks/results/
	$(BIN)/python benchmarks/bench_step.py t_jepa
	$(BIN)/python benchmarks/bench_step.py lang_jepa invariance=0
	$(BIN)/python benchmarks/bench_step.py nano_jepa
	$(BIN)/python benchmarks/bench_step.py i_jepa

golden: .venv/ready ## Record the reference training curves again (review the difference before you commit it)
	$(BIN)/python -m tests.golden.record

clean: ## Remove the environment, the caches, the site and what was built
	rm -rf .venv .cache site dist
