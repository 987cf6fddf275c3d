# Everything happens in .venv, which any target makes when it is missing or when the pinned
# versions changed. A machine needs Python 3.11 or newer and make; nothing else.

# `make -C` and `make -f` alike: all paths begin at this file's folder, which may have blanks
# in its name. Make takes them for ends of words, so targets have it escaped, and recipes go there.
MAKEFILE := $(strip $(MAKEFILE_LIST))
ROOT := $(shell cd "$$(dirname '$(MAKEFILE)')" && pwd)
IN_ROOT := cd '$(ROOT)' &&
NAMED := $(subst $(wordlist 2,1,) ,\ ,$(ROOT))
STAMP := $(NAMED)/.venv/.installed
BIN := .venv/bin

# The first Python that really runs (a pyenv shim may exist and not run) and is new enough.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3 python; do \
	$$name -c '$(USABLE)' >/dev/null 2>&1 && echo $$name && break; done)

# More words for the command behind run and test: make run ARGS='path/to/file.py:Class --reload'
ARGS ?=

# Tests mostly wait for processes, so a few more at once than a small machine has cores; fewer where
# they are measured, for that makes each of them slower.
JOBS ?= $(if $(MEASURED),4,6)

# Where this is set, every process compiles everything anew, and the tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install run test lint format format-check types check chaos pairs upgrade soak matrix bench deploy-tools lock clean unsafe audit outage coverage screenshots dist docs image-test

help: ## Show what can be made
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' '$(MAKEFILE)' | \
		while IFS="$$(printf '\t')" read -r name text; do printf '  %-14s %s\n' "$$name" "$$text"; done

install: $(STAMP) ## Make .venv with the pinned versions, and the project in it

run: $(STAMP) ## Start Redis, the ingress and a worker, and show each notification; Ctrl-C ends it
	@$(IN_ROOT) exec $(BIN)/nb-bridge dev $(ARGS)

test: $(STAMP) ## Run all tests
	@$(IN_ROOT) $(BIN)/$(if $(MEASURED),coverage run,python) -m pytest -q -n $(JOBS) --dist worksteal \
		$(if $(MEASURED),--hypothesis-profile thorough -m 'not alone') $(ARGS)
	@$(if $(MEASURED),$(IN_ROOT) { $(BIN)/python -m pytest -q -m alone $(ARGS) || [ $$? -eq 5 ]; })

# Every process of the tests leaves a file of its own, but those that were killed. Those that want
# the machine for themselves come after, and are not measured.
coverage: $(STAMP) ## Run all tests, and fail where less than 95 % of the branches were taken
	@$(IN_ROOT) $(BIN)/coverage erase
	@$(MAKE) --no-print-directory -f '$(lastword $(MAKEFILE_LIST))' test MEASURED=yes
	@$(IN_ROOT) $(BIN)/coverage combine -q && $(BIN)/coverage report

# The same seed makes the same faults; what a run found broken is printed, and its histories kept.
SEED ?=
SEEDS ?=
MINUTES ?= 1
# alone, sentinel, cluster, or all by turns; and which servers of `make matrix`, by turns: of SEEDS all.
TOPOLOGY ?=
SERVERS ?=

chaos: $(STAMP) ## Kill, freeze and cut what runs, and prove the promises: SEED=… or SEEDS=1-30, TOPOLOGY=…
	@$(IN_ROOT) $(BIN)/python tests/chaos/chaos.py --minutes $(MINUTES) \
		$(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) \
		$(if $(TOPOLOGY),--topology $(TOPOLOGY)) $(if $(SERVERS),--servers $(SERVERS)) $(ARGS)

pairs: $(STAMP) ## Two faults at a time done to one ingress, in 250 combinations: ARGS='--count 20 --jobs 4'
	@$(IN_ROOT) $(BIN)/python tests/chaos/pairs.py $(ARGS)

# A folder with an older release, or a revision; without it the last release.
OLD ?=

upgrade: $(STAMP) ## From an older release to this one and back, process by process, under 800/s: OLD=…
	@$(IN_ROOT) $(BIN)/python tests/chaos/upgrade.py $(if $(OLD),--old '$(OLD)') $(ARGS)

# Where its figures, its plot and a summary go.
OUT ?= soak-results

outage: $(STAMP) ## Kill Redis under traffic and show what becomes of it, as in README.md: half a minute
	@$(IN_ROOT) $(BIN)/python tests/chaos/outage.py $(ARGS)

soak: $(STAMP) ## An hour of the platform's full rate with faults; memory must stay flat: MINUTES=… OUT=…
	@$(IN_ROOT) $(BIN)/python tests/chaos/soak.py --out '$(OUT)' \
		$(if $(filter command line,$(origin MINUTES)),--minutes $(MINUTES)) $(ARGS)

matrix: $(STAMP) ## Contract and integration tests on Redis 6.2, 7.0, 8.2, Valkey 8.1 and 9.1: ARGS='--only redis-6.2'
	@$(IN_ROOT) $(BIN)/python tests/matrix.py $(ARGS)

bench: $(STAMP) ## Measure everything beside 0.1 and what people would use instead: ARGS='--marks --rounds 3'
	@$(IN_ROOT) $(BIN)/python tests/benchmarks/bench.py $(ARGS)

screenshots: $(STAMP) ## Take README's pictures of the console, of ten minutes of traffic: ARGS='--minutes 2'
	@$(IN_ROOT) $(BIN)/python tests/screenshots.py $(ARGS)

lint: $(STAMP) ## Look for faults with ruff, and for imports from one room to one above it
	@$(IN_ROOT) $(BIN)/ruff check -q .
	@$(IN_ROOT) found=$$($(BIN)/lint-imports --no-logo --no-cache 2>&1) || { echo "$$found"; exit 1; }

format: $(STAMP) ## Put every file into the common format
	@$(IN_ROOT) $(BIN)/ruff format -q . && $(BIN)/ruff check -q --fix .

format-check: $(STAMP) ## Fail where `make format` would change something
	@$(IN_ROOT) $(BIN)/ruff format -q --check .

types: $(STAMP) ## Check types with mypy, strictly
	@$(IN_ROOT) $(BIN)/mypy --no-error-summary

# The tools of both are pinned dev dependencies: deptry has to see the packages where they are
# installed, and the others add seconds to `make install` and their own hashes to the lock.
unsafe: $(STAMP) ## Look for unsafe code with bandit, for undeclared dependencies with deptry
	@$(IN_ROOT) $(BIN)/bandit -q -c pyproject.toml -r bridge consumers
	@$(IN_ROOT) found=$$($(BIN)/deptry --no-ansi . 2>&1) || { echo "$$found"; exit 1; }

# What an audit without the database of advisories is: a failure, or with ADVISORIES=optional a line.
ADVISORIES ?= required

audit: unsafe ## … and for known faults of the pinned versions: ADVISORIES=optional where offline
	@$(IN_ROOT) $(BIN)/python tests/advisories.py $(ADVISORIES)

check: lint format-check types unsafe coverage ## All of lint, format-check, types, unsafe, test, coverage: what CI runs

# Everything that is published is published from what this left.
dist: $(STAMP) ## Build wheel and sdist into dist, and try each in an environment that has nothing else
	@$(IN_ROOT) $(BIN)/python tests/packages.py

docs: $(STAMP) ## Make a site of the pages in build/site; a link that leads nowhere is a fault
	@$(IN_ROOT) $(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --nitpicky --fresh-env \
		--conf-dir docs --doctree-dir build/doctrees . build/site
	@$(IN_ROOT) $(BIN)/python tests/pages.py build/site

deploy-tools: ## Fetch what tests/deploy and tests/browser need into .deploy-tools; without it those skip
	@PYTHON='$(PYTHON)' '$(ROOT)/deploy/ci-tools.sh'

# On a base made of Debian's packages, so no registry of images is needed; as root, in a minute.
image-test: $(STAMP) ## Build deploy/Dockerfile and run it read-only, and the units under a systemd of their own
	@$(IN_ROOT) $(BIN)/python -m pytest -q tests/image $(ARGS)

# For every Python from 3.11 and every platform, with the hashes of all files of a version: pip then
# installs none that was put there later. What is pinned stays, as far as pyproject.toml allows.
lock: $(STAMP) ## Pin what pyproject.toml asks for in requirements.lock; ARGS=--upgrade: the newest
	@$(IN_ROOT) $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
		--no-annotate --custom-compile-command 'make lock' --fork-strategy fewest \
		--all-extras --group dev --group release --group docs \
		--output-file requirements.lock $(ARGS) pyproject.toml

clean: ## Remove .venv and everything else that was made; .data, what `make run` keeps, stays
	@$(IN_ROOT) rm -rf .venv .bench .deploy-tools .image-test .servers .upgrade bench-results build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage*
	@$(IN_ROOT) find bridge consumers tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The version is in bridge/__init__.py, and what is installed says which it is.
$(STAMP): $(NAMED)/requirements.lock $(NAMED)/pyproject.toml $(NAMED)/bridge/__init__.py
	@test -n '$(PYTHON)' || { echo 'no Python 3.11 or newer with venv found (Debian, Ubuntu:' \
		'apt install python3-venv); or say which: make PYTHON=/path/to/python' >&2; exit 2; }
	@$(IN_ROOT) { $(BIN)/python -c '$(USABLE)' 2>/dev/null || \
		{ echo 'making .venv with $(PYTHON)'; $(PYTHON) -m venv --clear .venv; }; }
	@$(IN_ROOT) { $(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null; }
	@echo 'installing into .venv; the first time it takes a minute'
	@$(IN_ROOT) $(BIN)/python -m pip install -qq --disable-pip-version-check \
		--require-hashes -r requirements.lock
	@$(IN_ROOT) $(BIN)/python -m pip install -qq --disable-pip-version-check \
		--no-deps --no-build-isolation --editable .
	@touch '$@'
