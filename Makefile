# `make help` prints the targets. Everything is installed into .venv from hash-locked lists (requirements/*.txt).

.DEFAULT_GOAL := help
SHELL := /bin/sh
.SHELLFLAGS := -ec

# The first interpreter that runs and is new enough; PYTHON=... chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
# What `import perdure` needs, lowest first; and the processes of a cluster, which need servers.
SDK := schemas services/core services/runtime sdk
SERVICES := services/api services/projector services/task-engine services/timer services/workflow-engine operator
PACKAGES := $(SDK) $(SERVICES)
# Downloaded wheels are kept between checkouts, so that a second set-up needs no network.
WHEELS := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/perdure/wheels
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
WORKERS ?= 2

RUN := -r requirements/run.txt -r requirements/build.txt
DEV := $(RUN) -r requirements/operator.txt -r requirements/dev.txt

# $(call install,<requirements>): from the kept wheels alone, else fetch what is missing and try again.
define install
	@install="$(PIP) install --no-index --find-links $(WHEELS) --no-compile --require-hashes $(1)"; \
	mkdir -p $(WHEELS); \
	$$install 2>/dev/null || { \
		$(PIP) download --only-binary :all: --require-hashes --dest $(WHEELS) $(1); \
		$$install; \
	}
	@$(PIP) install --no-deps --no-build-isolation --no-compile $(foreach package,$(PACKAGES),--editable $(package))
endef

##@ Use

.PHONY: help
help:  ## Print this list
	@awk 'BEGIN { FS = ":.*## " } \
		/^##@ / { printf "\n%s\n", substr($$0, 5) } \
		/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/run.stamp  ## Crop images in a workflow whose worker is killed half-way, and see it complete
	@PYTHONHASHSEED=0 $(BIN)/python examples/image_crop/demo.py

.PHONY: up
up: setup  ## Start every service as a local process on a real Pulsar and a real Cassandra (needs a JDK 17 and Maven)
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.servers.local up

.PHONY: down
down: setup  ## End what `make up` started; data and logs stay
	@$(BIN)/python -m tests.servers.local down

.PHONY: images
images:  ## Build the images of services, operator and worker base with docker or buildah, tagged TAG=<version>
	@services/images.sh

##@ Develop

.PHONY: setup
setup: .venv/dev.stamp  ## Install the packages (editable) and every tool into .venv

.PHONY: test
test: setup  ## Run lint, type checks and all tests: what .ci/run runs
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: lint
lint: setup  ## Check style, layers and the rules of the repository
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports --no-cache

.PHONY: types
types: setup  ## Check types with mypy --strict and pyright
	@$(BIN)/mypy
	@$(BIN)/basedpyright

.PHONY: format
format: setup  ## Format the code and sort imports
	@$(BIN)/ruff check --fix-only --select I .
	@$(BIN)/ruff format .

SEEDS ?= 2000
FIRST ?= 0

.PHONY: simulate
simulate: setup  ## Simulate SEEDS=2000 schedules from seed FIRST=0 on: crashes, duplicates, zombies, unknown outcomes
	@PYTHONHASHSEED=0 $(BIN)/python -m tests.simulation --seeds $(SEEDS) --first $(FIRST)

SECONDS ?= 60
SEED ?= 1

.PHONY: chaos
chaos: setup  ## Break a cluster on real servers for SECONDS=60 by faults of SEED=1, and audit what it promised
	@$(BIN)/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED)

.PHONY: e2e
e2e: setup  ## Check the charts, install them on a real Kubernetes cluster, and use it as users do; prints times
	@$(BIN)/python -m pytest -q -s tests/charts tests/e2e

.PHONY: e2e-long
e2e-long: setup  ## The same in the sizes and times that are promised: an hour, and a quiet machine
	@PERDURE_TEST_LONG=1 $(BIN)/python -m pytest -q -s tests/e2e

.PHONY: test-helm4
test-helm4: setup  ## `make e2e` with Helm 4 instead of 3
	@HELM=4 $(BIN)/python -m pytest -q -s tests/charts tests/e2e

.PHONY: bench
bench: setup  ## Measure the embedded engine; writes build/bench/embedded.json
	@PYTHONHASHSEED=0 $(BIN)/python bench/embedded.py

.PHONY: bench-services
bench-services: setup  ## Measure separate services on a real Pulsar and Cassandra; writes build/bench/services.json
	@PYTHONPATH=. PYTHONHASHSEED=0 $(BIN)/python bench/services.py

.PHONY: bench-commits
bench-commits: setup  ## Measure ways to commit a turn on a real Cassandra; writes build/bench/commits.json
	@PYTHONPATH=. PYTHONHASHSEED=0 $(BIN)/python bench/commits.py

.PHONY: scale
scale: setup  ## Check what must not grow: long loops, long histories, wide fan-outs, signals, sleepers
	@PYTHONHASHSEED=0 $(BIN)/python bench/scale.py

.PHONY: figures
figures: setup  ## Long forms of the tests of figures on real servers: minutes, and a quiet machine
	@PERDURE_TEST_LONG=1 $(BIN)/python -m pytest -q tests/servers/test_figures_*.py tests/servers/test_sdk_on_servers.py

.PHONY: codec
codec: setup  ## Measure the codec against others; writes build/bench/codec.json
	@PYTHONHASHSEED=0 $(BIN)/python bench/codec.py

.PHONY: replay
replay: setup  ## Measure the replay loop alone; writes build/bench/replay.json
	@PYTHONHASHSEED=0 $(BIN)/python bench/replay.py

##@ Release

.PHONY: dist
dist: .venv/run.stamp  ## Build wheels and source archives: of the SDK into dist/, of the services and the operator into dist/services/
	@rm -rf dist
	@for package in $(SDK); do (cd $$package && $(CURDIR)/$(BIN)/python -m hatchling build -d $(CURDIR)/dist); done
	@for package in $(SERVICES); do \
		(cd $$package && $(CURDIR)/$(BIN)/python -m hatchling build -d $(CURDIR)/dist/services); \
	done

.PHONY: lock
lock: setup  ## Compile requirements/*.in into the hash-locked lists
	@cd requirements && for name in run operator build dev; do \
		../$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
			--no-annotate --no-emit-index-url --no-emit-find-links $$name.in -o $$name.txt; \
	done

.PHONY: clean
clean:  ## Remove .venv and everything that was built
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Perdure needs Python 3.11 or newer: none found. Say where: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -m venv .venv

PROJECTS := $(foreach package,$(PACKAGES),$(package)/pyproject.toml)

.venv/run.stamp: .venv/bin/python requirements/run.txt requirements/build.txt $(PROJECTS)
	$(call install,$(RUN))
	@touch $@

.venv/dev.stamp: .venv/bin/python requirements/run.txt requirements/operator.txt requirements/build.txt requirements/dev.txt $(PROJECTS)
	$(call install,$(DEV))
	@touch .venv/run.stamp $@
