# `make book` and `make test` are each enough on a fresh machine; `make help` lists the rest.
SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

BIN := .venv/bin
export PYTHONHASHSEED := 0
# A Python by name or path, and an index for PyTorch, see tools/environment.py.
export PYTHON TORCH_INDEX
# Other Pythons' packages, which some systems put on every path, are none of this one's.
unexport PYTHONPATH PYTHONHOME
# Pages and tests must not depend on a display.
export MPLBACKEND := Agg
# pytest on all processors, a file of tests on one of them, with as many threads as that leaves: one.
SPREAD := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n logical --maxprocesses 8 --dist loadfile

.PHONY: help environment book test quick unit nbval check-book lint format notebooks benchmarks clean distclean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

environment: ## make .venv, or complete it; PYTHON and TORCH_INDEX choose, see README.md
	@sh tools/venv.sh

book: environment ## execute the notebooks and render the book to _build/html
	@$(BIN)/python -m tools.book

test: lint unit nbval check-book ## everything: lint, unit tests, notebook regression, the rendered book

quick: lint ## the tests for daily work: no slow ones, no notebooks, no book
	@$(SPREAD) -m "not slow and not book and not browser" tests

lint: environment ## ruff, on the package, the tests and the notebooks
	@$(BIN)/ruff check --quiet . && $(BIN)/ruff format --check --quiet . && echo "ruff: clean"

format: environment ## let ruff rewrite what it can
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

unit: environment ## unit tests and doctests
	@$(SPREAD) -m "not book and not browser" --durations=10 tests
	@$(SPREAD) --doctest-modules memcomp

nbval: environment ## run every notebook and compare each output with the stored one
	@env -u MPLBACKEND $(SPREAD) --nbval --nbval-current-env --nbval-sanitize-with tests/sanitize.cfg notebooks

check-book: book ## look at the built pages: links, alt texts, no outside request, phone width
	@$(BIN)/python -m pytest -q -m "book or browser" tests

notebooks: environment ## run every notebook and store its new outputs
	@$(BIN)/python -m tools.notebooks --write notebooks/*.ipynb && $(BIN)/python -m tools.finding

benchmarks: environment ## the ratios that the README and the book quote
	@for file in benchmarks/[a-z]*.py; do \
	    echo "== $$file"; $(BIN)/python -m "benchmarks.$$(basename "$$file" .py)" || exit 1; \
	done

clean: ## remove what was built
	@rm -rf _build .pytest_cache .ruff_cache .hypothesis
	@find memcomp tests tools benchmarks notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf

distclean: clean ## remove the virtual environment as well
	@rm -rf .venv
