# On a machine with Python >= 3.11 and make, these do everything: `make demo`, `make test`.

WORKERS ?= 2
# What the tests need beside the library and the development tools.
EXTRAS ?= digits,onnx,stablehlo,language
# Which Python to build .venv with; the first one that is new enough if not given.
PYTHON ?=
CANDIDATES = $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3 python)

BIN = .venv/bin
NEW_ENOUGH = import sys; sys.exit(sys.version_info < (3, 11))
COMPLETE = import ensurepip, venv

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo docs test passed evidence check format .venv

help:  ## Show this list.
	@awk -F ':.*## ' '/^[a-z.]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: .venv/library-installed  ## Learn from a log, adapt online, and say how many samples it saved.
	@$(BIN)/headwater demo

docs: .venv/docs-installed  ## Build the documentation as a site in site/ (open site/index.html).
	$(BIN)/python docs/site/build.py

test: check  ## Lint, check types and run the tests (WORKERS=2 processes).
	$(BIN)/pytest -n $(WORKERS) --dist loadscope --max-worker-restart 0

passed: check  ## Repeat all tests and record in tests/passed.json which need not be repeated.
	$(BIN)/pytest -n $(WORKERS) --dist loadscope --max-worker-restart 0 --repeat-all --record-passed

evidence: .venv/tests-installed  ## Run the long tests that `make test` leaves out.
	$(BIN)/pytest -n $(WORKERS) --dist loadscope --max-worker-restart 0 -m evidence

check: .venv/tests-installed  ## Lint and check types only.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: .venv/tests-installed  ## Rewrite the code in the house's format.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.venv: .venv/tests-installed  ## Install the library, the extras of the tests and the tools.

# Each stamp says that an installation went through; changed requirements repeat it. The demo needs
# less than the site, and the site (which a test builds) less than the tests: a newcomer waits less.
.venv/library-installed: pyproject.toml constraints.txt
	@$(make_venv)
	@echo "Installing Headwater into .venv (once; a few minutes on a slow line)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/docs-installed: .venv/library-installed
	@echo "Installing what builds the documentation into .venv (once)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --group docs
	@touch $@

.venv/tests-installed: .venv/docs-installed
	@echo "Installing what the tests need into .venv (once)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt \
		--editable ".[$(EXTRAS)]" --group dev
	@touch $@

# An interrupted or outdated .venv is made anew. The pip that comes with Python may be too old to
# know dependency groups (25.1).
define make_venv
if ! $(BIN)/python -c '$(NEW_ENOUGH)' 2>/dev/null || ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	chosen=""; bare=""; \
	for candidate in $(CANDIDATES); do \
		if $$candidate -c '$(NEW_ENOUGH)' 2>/dev/null; then \
			if $$candidate -c '$(COMPLETE)' 2>/dev/null; then chosen=$$candidate; break; fi; \
			bare=$${bare:-$$candidate}; \
		fi; \
	done; \
	if [ -z "$$chosen" ] && [ -n "$$bare" ]; then \
		echo "Python ($$bare) lacks the venv module that Headwater is installed with: install it" \
			"(python3-venv on Debian and Ubuntu), or name another Python: make PYTHON=..." >&2; \
		exit 1; \
	elif [ -z "$$chosen" ]; then \
		found=$$(for c in $(CANDIDATES); do $$c --version 2>/dev/null; done | sort -u | paste -s -d, -); \
		echo "Headwater needs Python 3.11 or newer, but found $${found:-no Python at all}:" \
			"install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
		exit 1; \
	fi; \
	$$chosen -m venv --clear .venv; \
fi && $(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"
endef
