# The commands of the README. Each makes its own environment in .venv: nothing but Python 3.11+ is needed.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
JOBS   ?= 2

.PHONY: run test lint bench docs guests compiled test-compiled clean

# One stamp a set of dependencies, so that `make run` does not download what only tests and benchmarks need.
$(VENV)/.run: pyproject.toml setup.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[llvm]'
	@touch $@

$(VENV)/.test: pyproject.toml setup.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[llvm,test,lint,bench]'
	@touch $@ $(VENV)/.run

$(VENV)/.docs: pyproject.toml setup.py
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[docs]'
	@touch $@

## run: compile a real program (a Mandelbrot set in WebAssembly text) and run it
run: $(VENV)/.run
	@$(BIN)/wasmforge run examples/mandelbrot.wat

## test: linters, then every suite
test: lint
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests

# The compiled front end is installed beside the checkout, never into it: extension modules there would hide edits.
COMPILED := .cache/compiled
$(COMPILED)/.stamp: pyproject.toml setup.py $(shell find src/wasmforge -name '*.py') | $(VENV)/.test
	@rm -rf $(COMPILED)
	WASMFORGE_COMPILE=1 $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--target $(COMPILED) .
	@touch $@

## compiled: build the front end with mypyc, for the tests that compare it with its sources (a minute or two)
compiled: $(COMPILED)/.stamp

## test-compiled: the suites of what mypyc compiles, on the compiled modules
test-compiled: compiled
	PYTHONPATH=$(CURDIR)/$(COMPILED) $(BIN)/python -m pytest -n $(JOBS) --dist worksteal \
		tests/binary tests/validation tests/text tests/compiler tests/wast tests/packaging

## lint: style, types, and the order of the house
lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy examples
	$(BIN)/lint-imports

## bench: against the wasmtime package and native code; writes bench/results and docs/performance.md
bench: $(VENV)/.test
	$(BIN)/python -m bench

## docs: the site, from docs/ and the docstrings, in .cache/site; a broken link or docstring is an error
docs: $(VENV)/.docs
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m mkdocs build --quiet
	@echo .cache/site/index.html

## guests: build the C programs that tests and benchmarks run, and fetch CPython and QuickJS for WASI
guests: $(VENV)/.test
	$(BIN)/python bench/build_guests.py
	$(BIN)/python bench/fetch_guests.py

clean:
	rm -rf $(VENV) build dist .cache bench/build bench/results
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
