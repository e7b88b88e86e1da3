# local-imager: every target does its own set-up; `make help` lists them.
# Variables: SCHEMATIC VERSION ASSETS OUT UPSTREAM (image), LAB_VERSIONS (lab), PYTHON, TESTS (test).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LAB_DIR := $(or $(LOCAL_IMAGER_LAB),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/local-imager-lab)
LAB := $(PYTHON) -m lab
export LOCAL_IMAGER_LAB := $(LAB_DIR)

VERSION ?= v1.13.0
ASSETS ?=
OUT ?= out
UPSTREAM ?=
TESTS ?= tests
# The tests of a file stay in one process, for what they share; files begin in their order, so that
# the long ones of tests/integration do not come last. An engine bears no more than four at once.
SIDE_BY_SIDE := -n auto --dist loadfile --no-loadscope-reorder

.PHONY: help
help: ## Show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z][a-z-]*:.*## / {printf "  \033[36m%-12s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "  for example: make image SCHEMATIC=schematics/vanilla.yaml VERSION=v1.9.0 UPSTREAM=lab"

.PHONY: demo
demo: $(READY) ## Run the main job for real: build and boot images of two Talos versions [UPSTREAM=official|lab]
	@upstream=$$($(LAB) upstream $(or $(UPSTREAM),auto)); \
	if [ $$upstream = official ]; then \
		$(BIN)/python -m lab.demo --upstream official; \
	else \
		$(LAB) build; $(LAB) run --engine -- $(BIN)/python -m lab.demo; \
	fi

.PHONY: trust-demo
trust-demo: $(READY) lab ## Build from keyless-signed images without a network, and see four others refused
	@$(LAB) run --engine -- $(BIN)/python -m lab.trust_demo

.PHONY: airgap-demo
airgap-demo: $(READY) lab ## Carry two versions over an air gap in bundles, and build them there without a network
	@$(LAB) run --engine --registry -- $(BIN)/python -m lab.airgap_demo

.PHONY: proof
proof: $(READY) lab ## Build twice and see equal bytes; alter three things and see just these named [report: out/proof]
	@$(LAB) run --engine -- $(BIN)/python -m lab.proof

.PHONY: image
image: $(READY) ## Build SCHEMATIC for VERSION [ASSETS="…"] [OUT=out] [UPSTREAM=official|lab]
	@test -n "$(SCHEMATIC)" || { echo "name a schematic: make image SCHEMATIC=schematics/vanilla.yaml VERSION=v1.9.0" >&2; exit 2; }
ifeq ($(UPSTREAM),lab)
	@$(LAB) build
	@$(LAB) run --engine -- $(BIN)/local-imager --config $(LAB_DIR)/lab.toml build $(SCHEMATIC) $(ASSETS) --version $(VERSION) --out $(OUT)
else
	@$(LAB) run --engine -- $(BIN)/local-imager build $(SCHEMATIC) $(ASSETS) --version $(VERSION) --out $(OUT)
endif

.PHONY: lab
lab: ## Build the private upstream of real parts (once; rebuilt in parts) [LAB_VERSIONS="v1.9.0 …"]
	@$(LAB) build

.PHONY: test
test: $(READY) lint type lab ## Run every test: static checks, unit, contract, integration, boot (on the lab) [TESTS=tests/…]
	@$(LAB) run --engine --registry --remote-engine --podman -- $(BIN)/pytest $(SIDE_BY_SIDE) --maxprocesses 4 $(TESTS)

.PHONY: unit
unit: $(READY) ## Run the tests that need neither lab nor engine
	@$(BIN)/pytest -q $(SIDE_BY_SIDE) tests/unit

.PHONY: lint
lint: $(READY) ## Check style, formatting and the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/lint-imports

.PHONY: type
type: $(READY) ## Check all types strictly
	@$(BIN)/mypy

.PHONY: format
format: $(READY) ## Format the code
	@$(BIN)/ruff check --fix . ; $(BIN)/ruff format .

.PHONY: bench
bench: $(READY) lab ## Measure builds against the imager by hand, a matrix, inspection, a large store, bundles
	@$(LAB) run --engine -- bash -c 'set -e; for part in bench "bench --realistic" bench_matrix bench_inspect; do $(BIN)/python -m lab.$$part; done'
	@$(BIN)/python -m lab.bench_store
	@$(BIN)/python -m lab.bench_bundle

.PHONY: lock
lock: $(READY) ## Renew the hash-pinned requirement files
	@$(BIN)/pip-compile -q $(PIP_COMPILE) -o requirements/runtime.txt pyproject.toml
	@$(BIN)/pip-compile -q $(PIP_COMPILE) --extra dev -o requirements/dev.txt pyproject.toml
	@sed -i "s/^atheris==[^ ]*/& ; sys_platform == 'linux' and platform_machine == 'x86_64'/" requirements/dev.txt # pip-compile drops markers of extras
PIP_COMPILE := --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-options --allow-unsafe --strip-extras

.PHONY: clean
clean: ## Remove build products and caches of the checkout (not the store, not the lab)
	@rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
	@find out -mindepth 1 ! -name README.md -delete

.PHONY: clean-lab
clean-lab: ## Remove the lab's images and caches
	@$(LAB) clean --all

# The virtual environment, from hash-pinned requirements; made anew when they change.
$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (PYTHON=…)" >&2; exit 5; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "installing Debian's python3-venv"; apt-get update -q && apt-get install -qy --no-install-recommends python3-venv; }
	@echo "setting up $(VENV) (Python packages pinned in requirements/dev.txt)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
