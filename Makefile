# The commands of this workspace. `make` alone lists them.
#
# PYTHON is what the environment is made with (3.11 to 3.13); ARGS goes to pytest, as in
#     make test ARGS="-k partition -x"

PYTHON ?= python3.11
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.stamp
DISTRIBUTIONS := shared $(wildcard taps/*) $(wildcard targets/*)
EDITABLE := $(DISTRIBUTIONS:%=-e ./%)
PACKAGES := melisma $(notdir $(wildcard taps/*/src/melisma_* targets/*/src/melisma_*))

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help setup native demo services services-stop test test-slow test-spark lint types docs bench bench-quick faults constraints clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Make .venv with every connector (editable) and the development tools; quick when up to date

$(STAMP): pyproject.toml constraints.txt $(DISTRIBUTIONS:%=%/pyproject.toml)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --group dev $(EDITABLE)
	touch $(STAMP)

native: $(STAMP) ## Build the optional native decoder and encoder (needs Rust)
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps ./native

demo: $(STAMP) ## Move 336,776 real flights into a partitioned Parquet lake, in three runs
	$(BIN)/python demo/run.py

services: $(STAMP) ## Install and start the tests' servers (S3, Azure, GCS, SFTP, HTTP, PostgreSQL, MariaDB); quick when up
	$(BIN)/python tests/services start
	$(BIN)/python tests/services/postgres.py start
	$(BIN)/python tests/services/mariadb.py start

services-stop: $(STAMP) ## Stop them
	$(BIN)/python tests/services stop
	$(BIN)/python tests/services/postgres.py stop
	$(BIN)/python tests/services/mariadb.py stop

test: $(STAMP) ## Run the tests (at most ten minutes on two cores)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m "not slow and not spark" $(ARGS)

test-slow: $(STAMP) ## Run the tests that start many processes, servers and environments (CI does)
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup -m slow $(ARGS)

test-spark: $(STAMP) ## Read and write files with Spark (as root installs Java; pyspark in an environment of its own)
	$(BIN)/python tests/services/spark.py install
	$(BIN)/python -m pytest -m spark $(ARGS)

lint: $(STAMP) types ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types only (mypy, strict)
	$(BIN)/mypy $(PACKAGES:%=-p %)

docs: $(STAMP) ## Rewrite what is generated: settings tables, Meltano Hub definitions, docs/types.md
	$(BIN)/python tools/reference.py

bench: $(STAMP) ## Measure everything against others, and write docs/performance.md
	command -v cargo >/dev/null && $(MAKE) native || true
	$(BIN)/python -m benchmarks --write
	$(BIN)/python -m benchmarks --only events --same-rows --rounds 1 --write --contestant melisma --contestant plain --contestant limit

bench-quick: $(STAMP) ## The same with a fifth of the rows, in some minutes
	command -v cargo >/dev/null && $(MAKE) native || true
	$(BIN)/python -m benchmarks --quick

faults: $(STAMP) ## Kill runs a thousand times and count the rows
	$(BIN)/python tests/faults $(ARGS)

constraints: ## Resolve all dependencies anew and write constraints.txt
	$(PYTHON) tools/constraints.py

clean: ## Remove the environment, caches, and the demo's data and lake
	test ! -x $(BIN)/python || $(MAKE) services-stop
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis demo-data demo-lake
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
