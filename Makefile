PYTHON ?= python3
PIP_EXTRA ?=
ARGS ?=

BIN := .venv/bin
# A test file, or a notebook, to a process with one thread: two small models side by side beat one on two threads.
WORKERS := -n auto --dist loadfile --no-loadscope-reorder
UNIT := tests/measure tests/corpus tests/report/test_claims.py tests/report/test_amendments.py tests/report/test_charts.py \
  tests/report/test_findings.py tests/report/test_story.py tests/report/test_tables.py tests/report/test_behind.py tests/test_rooms.py
STAMP := .venv/.installed
# Under nbval whatever the build executed: a short one, so that each run sees nbval itself at work.
ALWAYS := 00_overview

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export TOKENIZERS_PARALLELISM = false
# The package is compiled once, and not in each of the processes of a command.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup notebooks book pdf check test nbval lint clean

help: ## list the targets
	@echo "Targets (each makes .venv on first use):"
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/  make \1\t\2/p' $(firstword $(MAKEFILE_LIST)) | expand -t 18
	@echo "Variables:"
	@echo "  PYTHON=python3  the Python, 3.11 or newer, that .venv is made with"
	@echo "  PIP_EXTRA=...   options for pip install, such as another index with CPU-only builds of torch"
	@echo "  ARGS=...        options for the command behind notebooks, book and pdf, such as --force"

setup: $(STAMP) ## install the pinned packages into .venv

$(STAMP): pyproject.toml requirements/constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found: install Python 3.11 or newer, or name one with PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Mechanism needs Python 3.11 or newer and $(PYTHON) is %d.%d: name another with PYTHON=..." % sys.version_info[:2])'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) has no venv module: install it (on Debian and Ubuntu: python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -c requirements/constraints.txt $(PIP_EXTRA) -e '.[book,test]'
	@touch $@

notebooks: setup ## execute the notebooks whose inputs changed
	$(BIN)/mechanism notebooks $(ARGS)

book: setup ## execute the notebooks and build the site, warnings as errors
	$(BIN)/mechanism book $(ARGS)

pdf: setup ## print the built book to PDF
	$(BIN)/mechanism pdf $(ARGS)

lint: setup ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff check --isolated --select F821 notebooks
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint ## lint, and the tests that need no model
	HF_HUB_OFFLINE=1 $(BIN)/pytest $(WORKERS) -q $(UNIT)

test: export HF_HUB_OFFLINE = 1
test: lint ## lint, the tests, and under nbval the notebooks that changed since they were executed
	$(BIN)/pytest $(WORKERS)
	@changed=$$($(BIN)/mechanism notebooks --stale) && $(MAKE) --no-print-directory nbval NAMES="$$(echo $(ALWAYS) $$changed)"

nbval: setup ## the notebooks under nbval; NAMES=... for some
	@echo "nbval executes $(if $(NAMES),$(NAMES); the others stand as the build executed them from what is here,every notebook)"
	HF_HUB_OFFLINE=1 MECHANISM_RESULTS=build/nbval OMP_NUM_THREADS=1 $(BIN)/pytest $(WORKERS) --nbval-lax --nbval-current-env \
	  --nbval-cell-timeout=600 --nbval-sanitize-with tests/nbval_sanitize.cfg $(if $(NAMES),$(sort $(NAMES:%=notebooks/%.ipynb)),notebooks)

clean: ## remove what the builds made, keep .venv
	rm -rf book/_build book/notebooks book/_static/generated build *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find mechanism tests requirements notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
