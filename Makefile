# Every target sets up what it needs in .venv, with the python3 of the caller, and a second run
# finds it there. Nothing is installed outside of .venv, except chromium by root on Debian.

PYTHON ?= python3
ARGS   ?=
BIN    := $(or $(CQ_VENV),.venv)/bin
SET_UP := $(PYTHON) tools/set_up.py

.DEFAULT_GOAL := help
.PHONY: help install check format test test-fast test-all test-faults soak demo cluster bench bench-peers bench-growth clean

help: ## Say what can be made
	@sed -n 's/^\([a-z-]*\): *## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

install: ## Set up .venv with everything a developer needs
	@$(SET_UP) check

check: ## Lint, types, and the import contracts
	@$(SET_UP) check
	$(BIN)/ruff check
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: ## Put the code into the form that check wants
	@$(SET_UP) check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test: ## The tests, with private servers and a real browser (a few minutes)
	@$(SET_UP) test
	@$(BIN)/python tools/chromium.py >/dev/null
	$(BIN)/python tools/run_tests.py full $(ARGS)

test-fast: ## The tests that take seconds: no worker processes, no browser
	@$(SET_UP) test
	$(BIN)/python tools/run_tests.py fast $(ARGS)

test-all: ## Everything, the full-size proofs included (long)
	@$(SET_UP) test
	@$(BIN)/python tools/chromium.py >/dev/null
	$(BIN)/python tools/run_tests.py all $(ARGS)

test-faults: ## Every fault: the sweep of failpoints, the matrix, five minutes of the monkey
	@$(SET_UP) test
	$(BIN)/python tools/run_tests.py faults $(ARGS)

soak: ## The monkey for an hour, or SECONDS=…, and what grows meanwhile
	@$(SET_UP) test
	CQ_SOAK_SECONDS=$(or $(SECONDS),3600) $(BIN)/python tools/run_tests.py soak $(ARGS)

demo: ## The demo in one process, on SQLite and with no other service
	@$(SET_UP) demo
	@$(BIN)/python demo/run.py $(ARGS)

cluster: ## The demo as 1 web process and 3 workers, on private PostgreSQL and Redis
	@$(SET_UP) demo postgres servers
	@$(BIN)/python tools/cluster.py $(ARGS)

bench: ## Measure cq alone on private servers, and fail when a ratio fell (< 3 minutes)
	@$(SET_UP) postgres servers
	@$(BIN)/python -m tests.services --durable $(BIN)/python -m benchmarks quick $(ARGS)

bench-peers: ## Measure cq and its peers side by side into docs/performance.md (1-2 hours)
	@$(SET_UP) postgres servers
	@$(BIN)/python -m tests.services --durable $(BIN)/python -m benchmarks peers $(ARGS)

bench-growth: ## Measure cq against what piles up, into docs/performance.md (30 minutes)
	@$(SET_UP) test
	@$(BIN)/python -m tests.services --durable $(BIN)/python -m benchmarks growth $(ARGS)

clean: ## Remove the virtual environment, caches and built files
	rm -rf .venv .venv-newer build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
