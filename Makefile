# Everything happens in .venv, which these targets make. Needed: python3 (3.11 or newer, with
# venv) and make; for `make test` also g++ or clang++, and npm, which comes with Node.js. `make`
# alone lists the targets. Tools are run as `python -m`: their scripts hold the path at which .venv
# was made, and would fail in a clone that was moved.

PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check
# A process for each processor, a module of tests to one of them. One that crashes is a failure: with
# another in its place, pytest-xdist would wait for its tests for ever.
SHARED := -n auto --dist loadscope --max-worker-restart=0

.DEFAULT_GOAL := help
.PHONY: help demo check test docs faults bench clean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/plots.stamp ## train a small Mixer on real photographs, with a report: a few minutes
	@$(BIN)/python -m mixerkit demo --results results/demo.json

check: .venv/dev.stamp ## lint, types and the fast tests: what to run while working
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m pytest $(SHARED) -m "not slow"

test: .venv/dev.stamp .venv/browser.stamp ## everything that a change must pass, offline
	@$(BIN)/python -m ruff check .
	@$(BIN)/python -m ruff format --check .
	@$(BIN)/python -m mypy
	@$(BIN)/python -m pytest $(SHARED)

docs: .venv/docs.stamp ## build the documentation as a site, build/docs/index.html
	@$(BIN)/python -m sphinx -W --keep-going -n -q -d build/doctrees docs build/docs
	@echo "written: build/docs/index.html"

faults: .venv/dev.stamp ## the whole fault programme, about an hour; TMPDIR=/dev/shm is faster
	@$(BIN)/python -m tests.faults --out results/faults.json
	@$(BIN)/python -m tests.tables

bench: .venv/dev.stamp ## measure speed against timm on this machine, into runs/speed.json
	@$(BIN)/python -m mixerkit bench speed --out runs/speed.json

clean: ## remove what these targets made, .venv included; runs/ and results/ stay
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp stands for a step that was finished; a change of pyproject.toml installs again.
.venv/made.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mixerkit needs Python 3.11 or newer: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -m venv .venv || \
		{ rm -rf .venv; echo "python3 has no venv; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

.venv/plots.stamp: pyproject.toml | .venv/made.stamp
	@echo "Installing PyTorch and friends into .venv (once, 2–4 minutes) …"
	@$(PIP) --editable '.[plots]'
	@touch $@

.venv/docs.stamp: pyproject.toml | .venv/made.stamp
	@echo "Installing PyTorch and Sphinx into .venv (once, 2–4 minutes) …"
	@$(PIP) --editable '.[docs]'
	@touch $@

.venv/dev.stamp: pyproject.toml | .venv/made.stamp
	@echo "Installing PyTorch, timm and the tools for tests into .venv (once, 2–4 minutes) …"
	@$(PIP) --editable '.[dev]'
	@touch $@ .venv/plots.stamp .venv/docs.stamp

.venv/browser.stamp: tests/browser.py mixerkit/inference/web_runtime.py | .venv/dev.stamp
	@echo "Looking for a browser for the tests; where there is none, npm fetches one (once) …"
	@$(BIN)/python -m tests.browser
	@touch $@
