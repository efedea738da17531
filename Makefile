# From a fresh clone every target needs Python 3.11 or newer, make and a package index; each
# installs what it needs into .venv. `make` alone lists them.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

MINIMUM := 3, 11
FITS := import sys, venv, ensurepip; sys.exit(sys.version_info < ($(MINIMUM)))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$python" -c '$(FITS)' 2>/dev/null && echo "$$python" && break; done)

BIN := .venv/bin
INSTALLED := .venv/installed
WHEEL := .venv/wheel
CONFIG ?= etc/pipecat-bridge.toml
ARGS ?=
# Tests mostly wait, for sockets and for processes that start: two at a time for each of two cores.
# Each process has a reactor, descriptors and memory of its own. ARGS="-n 0" is one after the other.
BESIDE := -n 4 --dist worksteal

# NumPy works on 20 ms at a time here: threads of its own only get in the way.
export OPENBLAS_NUM_THREADS := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: $(INSTALLED) ## carry a spoken call between a caller and a real bot, offline; recording in demo/
	@$(BIN)/pipecat-bridge demo $(ARGS)

.PHONY: run
run: $(INSTALLED) ## the daemon with its own runner, in the foreground (CONFIG=etc/...)
	@$(BIN)/twistd --nodaemon --pidfile= pipecat-bridge --config $(CONFIG) $(ARGS)

.PHONY: test
test: $(INSTALLED) ## the tests, but not those of the tools (ARGS="-k name")
	@$(BIN)/python -m pytest $(BESIDE) -m "not tools" $(ARGS)

.PHONY: test-tools
test-tools: $(INSTALLED) ## the tests of the soft phone and of the load generator
	@$(BIN)/python -m pytest $(BESIDE) -m tools $(ARGS)

.PHONY: trial
trial: $(INSTALLED) ## the unit tests under Twisted's trial
	@$(BIN)/python -m twisted.trial --temp-directory=.venv/trial tests.unit

.PHONY: test-pythons
test-pythons: $(INSTALLED) ## the unit tests on the oldest and the newest Python (Debian, root)
	@scripts/test_pythons.sh $(BIN)/python $(ARGS)

.PHONY: test-busy
test-busy: $(INSTALLED) ## make test while two stress-ng keep the machine busy (Debian, root)
	@scripts/busy.sh $(MAKE) --no-print-directory test

.PHONY: asterisk
asterisk: ## install a real Asterisk into .asterisk (Debian, root)
	@scripts/asterisk.sh

.PHONY: test-asterisk
test-asterisk: $(INSTALLED) asterisk ## a wheel's daemon against a real Asterisk (Debian, root)
	@echo "building the wheel and installing it alone into $(WHEEL)/env"
	@rm -rf $(WHEEL)
	@$(BIN)/python -m venv $(WHEEL)/env
	@$(BIN)/python -m build --outdir $(WHEEL)/dist . >$(WHEEL)/build.log 2>&1 || \
		{ tail -n 20 $(WHEEL)/build.log >&2; exit 1; }
	@$(WHEEL)/env/bin/python -m pip install -qq $(WHEEL)/dist/*.whl
	@BRIDGE_TWISTD=$(CURDIR)/$(WHEEL)/env/bin/twistd $(BIN)/python -m pytest tests/asterisk $(ARGS)

.PHONY: test-network
test-network: $(INSTALLED) ## a call over links that are too narrow, or cut (Debian, root)
	@scripts/network.sh
	@$(BIN)/python -m pytest tests/network -n 3 $(ARGS)

.PHONY: test-store
test-store: $(INSTALLED) ## the store with real PostgreSQL and object store, a full disk, kill -9 (Debian, root)
	@scripts/postgresql.sh >/dev/null
	@scripts/swift.sh
	@$(BIN)/python -m pytest tests/store $(ARGS)

.PHONY: test-hostile
test-hostile: $(INSTALLED) ## an innocent call beside each hostile peer (ARGS="--short")
	@$(BIN)/python -m pytest tests/hostile --table bench/hostile.md $(ARGS)

.PHONY: test-autobahn
test-autobahn: $(INSTALLED) ## the Autobahn test suite against both roles (ARGS="--short")
	@scripts/autobahn.sh
	@$(BIN)/python -m pytest tests/autobahn -n 2 $(ARGS)

.PHONY: fuzz
fuzz: $(INSTALLED) ## input that is made up, to all that reads input (ARGS="--seconds 600 bot")
	@scripts/fuzz.sh $(BIN)/python
	@.fuzz/bin/python -m tests.fuzz $(ARGS)

.PHONY: pipecat
pipecat: $(INSTALLED) ## install real Pipecat, the oldest and the newest, into .pipecat
	@scripts/pipecat_envs.sh $(BIN)/python

.PHONY: test-pipecat
test-pipecat: $(INSTALLED) pipecat ## the daemon against Pipecat's own runner, oldest and newest
	@$(BIN)/python -m pytest tests/pipecat $(ARGS)

.PHONY: lint
lint: $(INSTALLED) ## style, formatting and layers
	@failed=0; for check in "ruff check" "ruff format --check" lint-imports; do \
		$(BIN)/$$check || failed=1; done; exit $$failed

.PHONY: types
types: $(INSTALLED) ## mypy, strict
	@$(BIN)/mypy

.PHONY: dead-code
dead-code: $(INSTALLED) ## what nothing but a test uses
	@$(BIN)/vulture

# Coverage's tracer allocates and is slow. Tests that count objects, and the longest ones, cover
# nothing that others do not.
UNTRACED := not MemoryTests and not thousand_calls and not ten_minutes

.PHONY: coverage
coverage: $(INSTALLED) ## branch coverage of all tests, which has a floor; pages in htmlcov/
	@$(BIN)/coverage erase
	@# A test that fails here (status 1) may have lacked the time: make test is the judge of tests.
	@# Two processes, not four: the tracer keeps each of them busy.
	@$(BIN)/coverage run -m pytest -n 2 --dist worksteal -q --tb=no -k "$(UNTRACED)" $(ARGS) || [[ $$? == 1 ]]
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage html --quiet --fail-under=0
	@$(BIN)/coverage report

.PHONY: bench
bench: $(INSTALLED) ## the benchmarks (ARGS="--help")
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-smoke
bench-smoke: $(INSTALLED) ## every benchmark in short, to see that it finishes and reports
	@$(BIN)/python -m benchmarks --short --out .venv/bench $(ARGS)

.PHONY: proto
proto: $(INSTALLED) ## generate the protobuf code from proto/frames.proto
	@$(BIN)/python scripts/proto.py

.PHONY: proto-check
proto-check: $(INSTALLED) ## fail when the protobuf code is not what proto/frames.proto gives
	@$(BIN)/python scripts/proto.py --check

.PHONY: wheel-smoke
wheel-smoke: $(INSTALLED) ## build the wheel, install it alone, start it, stop it
	@$(BIN)/python scripts/wheel_smoke.py $(ARGS)

.PHONY: venv
venv: $(INSTALLED) ## set up .venv with all that the other targets need

.PHONY: clean
clean: ## remove what the other targets made, .venv included
	@rm -rf pipecat_bridge/*.so .venv build dist demo htmlcov .coverage* *.egg-info .*_cache .hypothesis _trial_temp*
	@find . -name __pycache__ -prune -exec rm -rf {} + -o -name dropin.cache -exec rm -f {} +

$(INSTALLED): setup.cfg setup.py pyproject.toml pipecat_bridge/_native.c scripts/install.sh
	@scripts/install.sh "$(PYTHON)" .venv "bot,demo,dev"
	@touch $@
