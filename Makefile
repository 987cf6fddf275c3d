# Everything happens in .venv, which any target makes when it is missing or when the pinned
# versions changed. A machine needs Python 3.11 or newer and make; nothing else.

# `make -C` and `make -f` alike: all paths are meant from this file's folder.
ROOT := $(dir $(abspath $(lastword $(MAKEFILE_LIST))))
VENV := $(ROOT).venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
IN_ROOT := cd '$(ROOT)' &&

# The first Python that really runs (a pyenv shim may exist and not run) and is new enough.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	$$name -c '$(USABLE)' >/dev/null 2>&1 && echo $$name && break; done)

# More words for the command behind run and test: make run ARGS='path/to/file.py:Class --reload'
ARGS ?=

# Tests mostly wait for processes, so a few more at once than a small machine has cores.
JOBS ?= 3

.DEFAULT_GOAL := help
.PHONY: help install run test lint format format-check types check chaos deploy-tools lock clean

help: ## Show what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' '$(lastword $(MAKEFILE_LIST))' | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## Make .venv with the pinned versions, and the project in it

run: $(STAMP) ## Start Redis, the ingress and a worker, and show each notification; Ctrl-C ends it
	@$(IN_ROOT) exec $(BIN)/nb-bridge dev $(ARGS)

test: $(STAMP) ## Run all tests
	@$(IN_ROOT) $(BIN)/python -m pytest -q -n $(JOBS) $(ARGS)

# The same seed makes the same faults; what a run found broken is printed, and its histories kept.
SEED ?=
MINUTES ?= 1

chaos: $(STAMP) ## Kill, freeze and cut what runs, and prove the promises: SEED=… MINUTES=…
	@$(IN_ROOT) $(BIN)/python tests/chaos/chaos.py --minutes $(MINUTES) \
		$(if $(SEED),--seed $(SEED)) $(ARGS)

lint: $(STAMP) ## Look for faults with ruff
	@$(IN_ROOT) $(BIN)/ruff check -q .

format: $(STAMP) ## Put every file into the common format
	@$(IN_ROOT) $(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

format-check: $(STAMP) ## Fail where `make format` would change something
	@$(IN_ROOT) $(BIN)/ruff format -q --check .

types: $(STAMP) ## Check types with mypy, strictly
	@$(IN_ROOT) $(BIN)/mypy --no-error-summary

check: lint format-check types test ## All of lint, format-check, types, test: what CI runs

deploy-tools: ## Fetch what tests/deploy reads deploy/ with into .deploy-tools; without it those skip
	@PYTHON='$(PYTHON)' $(ROOT)deploy/ci-tools.sh

lock: ## Resolve the newest versions again and pin them in requirements.lock
	@rm -rf '$(VENV)-lock' && $(PYTHON) -m venv '$(VENV)-lock'
	@$(IN_ROOT) $(VENV)-lock/bin/pip install -qq --upgrade pip
	@$(IN_ROOT) $(VENV)-lock/bin/pip install -qq hatchling '.[embedded,tls,reload,flask]' --group dev
	@$(IN_ROOT) { echo '# Made by `make lock`. Runtime, extras, development and build: pinned.'; \
		$(VENV)-lock/bin/pip freeze --exclude nb-command-bridge; } >requirements.lock
	@rm -rf '$(VENV)-lock'

clean: ## Remove .venv and everything else that was made; .data, what `make run` keeps, stays
	@$(IN_ROOT) rm -rf .venv .deploy-tools build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@$(IN_ROOT) find bridge consumers tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): $(ROOT)requirements.lock $(ROOT)pyproject.toml
	@test -n '$(PYTHON)' || { echo 'no Python 3.11 or newer found; say make PYTHON=…' >&2; exit 2; }
	@$(BIN)/python -c '$(USABLE)' 2>/dev/null || \
		{ echo 'making .venv with $(PYTHON)'; $(PYTHON) -m venv --clear '$(VENV)'; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@echo 'installing into .venv; the first time it takes a minute'
	@$(IN_ROOT) $(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(IN_ROOT) $(BIN)/python -m pip install -qq --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch '$@'
