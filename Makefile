# Everything runs from .venv, which `setup` makes: a user needs Python 3.11+ and GNU make, no more.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SUPPORTED := -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'

# Some machines and images forbid Python to keep what it has compiled; Airflow is many processes, and
# each of them would compile for seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run ui up down test contract lint clean test-compose \
  compose-init compose-up compose-run compose-down compose-reset

help: ## Show what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Install everything into .venv and fetch Kafka's jars
	@$(BIN)/emergencias stack jars

run: $(READY) ## Start the stack, run the pipeline once, show its result (ARGS="--alerts 1000")
	@$(BIN)/emergencias run $(ARGS)

ui: $(READY) ## Start the stack and Airflow's web interface
	@$(BIN)/emergencias ui

up: $(READY) ## Start the stack: Kafka and ksqldb_local
	@$(BIN)/emergencias stack up

down: $(READY) ## Stop the stack; data stay
	@$(BIN)/emergencias stack down

test: lint ## Check style, types, imports and run every test (ARGS="-k words" for some)
	$(BIN)/pytest --numprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

contract: $(READY) ## Replay what a real ksqlDB server answered, print the score by group
	$(BIN)/pytest -q tests/contract $(ARGS)

test-compose: $(READY) ## Test docker-compose.yml in real containers (root on Debian; 8 minutes)
	$(BIN)/pytest -m compose -s tests/compose $(ARGS)

compose-init: $(READY) ## Write .env with random secrets for the stack in containers
	@$(BIN)/emergencias compose init

compose-up: $(READY) ## Start the stack in containers, wait for it, show addresses (ARGS=--ui)
	@$(BIN)/emergencias compose up $(ARGS)

compose-run: $(READY) ## Run the pipeline there once, show its result (ARGS="--alerts 1000")
	@$(BIN)/emergencias compose run $(ARGS)

compose-down: $(READY) ## Stop the containers; data stay
	@$(BIN)/emergencias compose down

compose-reset: $(READY) ## Remove the containers and all their data
	@$(BIN)/emergencias compose reset

lint: $(READY) ## Check style, types and imports
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## Stop the stack and remove .venv, caches and the stack's data; exported runs stay
	@if [ -x $(BIN)/emergencias ]; then $(BIN)/emergencias stack down --purge --yes; fi
	rm -rf $(VENV) .emergencias .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find plugins dags tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# Made again when a dependency changes. An interrupted set-up leaves no stamp and goes on next time.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) $(SUPPORTED) || { \
	  echo "Python 3.11, 3.12 or 3.13 is needed, but '$(PYTHON)' gives: $$($(PYTHON) --version 2>&1 | head -n 1)." \
	    "Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(BIN)/python $(SUPPORTED) 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) || { \
	  echo "Python's venv module cannot make $(VENV); Debian and Ubuntu have it in the package" \
	    "python3-venv." >&2; exit 1; }
	@echo "Installing into $(VENV) (once; takes a minute or two)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(grep '^uv==' constraints.txt)"
	@$(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[dev]'
	@touch $@
