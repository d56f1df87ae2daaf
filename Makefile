# One entry point for people and for CI. `make help` lists the targets.
# Nothing here needs the network once `make setup` has run.

# Test modules are rewritten for their assertions: half of the time that collecting takes, unless what came out is kept.
unexport PYTHONDONTWRITEBYTECODE

# The first interpreter here that has wheels for every dependency; `make PYTHON=... setup` picks another.
SUITS  := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c '$(SUITS)' 2>/dev/null && echo $$p && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --no-input
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile
STAMPS := $(VENV)/.stamps
MODEL  ?= smollm2-135m
BENCH  ?= all

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow test-long browser pictures docs vendor lint types imports bench ci lock changelog clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMPS)/project  ## virtual environment, pinned dependencies, the model (digest-checked, cached outside this tree)
	@$(BIN)/assay models pull $(MODEL)

demo: setup  ## a small network on loopback answers questions; two providers cheat and are caught
	@$(BIN)/assay demo

test: setup $(STAMPS)/dev browser  ## the tests, without the slow ones
	@$(PYTEST)

test-slow: setup $(STAMPS)/dev browser  ## only the slow tests
	@$(PYTEST) -m slow

test-long: setup $(STAMPS)/dev  ## the tests that take hours: 1,000 disputes, 100 kills, half an hour of attacks
	@$(PYTEST) -m long

browser: $(STAMPS)/dev  ## a Chromium for the tests of pages, if there is none
	@-$(BIN)/python -m tests.apps.window.fetch

pictures: setup browser  ## those of the README, anew, from the real pages
	@$(BIN)/python -m tests.e2e.pictures

docs: $(STAMPS)/dev  ## these pages as a site: build/docs/index.html
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going docs build/docs

vendor:  ## bundle anew what the window's pages use of others (needs Node.js and the network)
	@cd src/assay/apps/window/vendor && npm ci --no-audit --no-fund --silent && npm run --silent build

lint: $(STAMPS)/dev  ## format and lint
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: $(STAMPS)/dev  ## strict types
	@$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

imports: $(STAMPS)/dev  ## the direction of imports
	@$(BIN)/lint-imports --no-cache

bench: setup  ## measurements as JSON (BENCH=name, default all)
	@$(BIN)/assay bench $(BENCH) --json

ci: ## what CI runs
	@.ci/run

lock: $(STAMPS)/venv  ## write both lock files for pyproject.toml (UPGRADE=--upgrade takes newer versions; needs the network)
	@$(PIP) install --quiet --require-virtualenv uv
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 $(UPGRADE) --group build --group dev pyproject.toml -o requirements-dev.lock
	@$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-annotate --no-header \
	  --python-version 3.11 --group build pyproject.toml -c requirements-dev.lock -o requirements.lock

changelog: $(STAMPS)/dev  ## fold changelog.d/ into CHANGELOG.md
	@$(BIN)/towncrier build --yes

clean:  ## remove what was built here (the model cache stays)
	@rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMPS)/venv:
	@$(or $(PYTHON),false) -c '$(SUITS)' || { echo "setup: Assay needs Python 3.11, 3.12 or 3.13:" \
	  "install one and run \`make PYTHON=/path/to/it setup\`"; exit 1; }
	@echo "setup: virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/runtime: requirements.lock | $(STAMPS)/venv
	@echo "setup: dependencies of requirements.lock (about 60 MB on a first run)"
	@$(PIP) install -qq --require-hashes --only-binary=:all: -r requirements.lock
	@touch $@

$(STAMPS)/project: pyproject.toml $(STAMPS)/runtime
	@echo "setup: assay itself"
	@$(PIP) install -qq --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMPS)/dev: requirements-dev.lock $(STAMPS)/project
	@echo "setup: development tools of requirements-dev.lock"
	@$(PIP) install -qq --require-hashes --only-binary=:all: -r requirements-dev.lock
	@touch $@
