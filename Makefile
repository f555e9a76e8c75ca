# Every task of the project. `make demo` and `make test` set everything up by themselves.
# Needs Python 3.11 or newer with pip; everything else goes into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# Threads that wait by spinning take a shared processor from those that work.
export OMP_WAIT_POLICY ?= PASSIVE

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
# A checkout that was set up for benchmarks once (make bench-setup) stays so.
LOCK := $(if $(wildcard $(VENV)/.bench),requirements-bench.lock,requirements.lock)
STAMP := $(VENV)/.synced-$(LOCK)
# uv does not read pip's settings, so a mirror that pip was told of is handed on.
INDEX = $${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null \
	|| echo https://pypi.org/simple)}}
UV = UV_COMPILE_BYTECODE_TIMEOUT=600 UV_DEFAULT_INDEX="$(INDEX)" $(BIN)/python -m uv

.PHONY: help setup demo format check test bench bench-setup lock clean

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv from the lock file, where that or pyproject.toml changed

$(STAMP): pyproject.toml $(LOCK)
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "setting up $(VENV) from $(LOCK) (minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(UV) pip sync --quiet --compile-bytecode --require-hashes --python $(BIN)/python $(LOCK)
	@$(UV) pip install --quiet --no-deps --no-build-isolation --python $(BIN)/python --editable .
	@rm -f $(VENV)/.synced-*
	@touch $@

demo: setup ## from real pictures to a proven, saved, usable classifier
	@$(BIN)/python examples/digits.py demo/digits
	$(BIN)/headstart fit demo/digits --baseline --output demo/model
	$(BIN)/headstart predict demo/model demo/digits/3/0003.png demo/digits/7/0007.png --quiet

format: setup ## rewrite the code as ruff likes it
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

check: setup ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports

test: check ## every check, then every test
	@$(BIN)/python -m pytest

bench: setup ## one benchmark: make bench NAME=extract [QUICK=1]
	@$(BIN)/python -m benchmarks $(or $(NAME),$(error name the benchmark: make bench NAME=extract)) $(if $(QUICK),--quick)

bench-setup: ## add what the benchmarks compare against (fastai, lightning, transformers)
	@mkdir -p $(VENV) && touch $(VENV)/.bench
	@$(MAKE) --no-print-directory setup
	@touch $(VENV)/.bench  # A new .venv begins empty.
	@$(UV) pip install --quiet --no-deps --python $(BIN)/python textgenrnn  # its table of characters, not its TensorFlow

lock: setup ## resolve pyproject.toml anew into both lock files
	@$(UV) pip compile --quiet pyproject.toml --all-extras --universal --generate-hashes \
		--no-emit-index-url --no-header --upgrade --output-file requirements-bench.lock
	@$(UV) pip compile --quiet pyproject.toml --extra parquet --extra text --extra demo --extra dev --universal --generate-hashes \
		--no-emit-index-url --no-header --constraint requirements-bench.lock --output-file requirements.lock

clean: ## remove what make made
	rm -rf $(VENV) demo .pytest_cache .ruff_cache .hypothesis .import_linter_cache
