# Everything a newcomer needs: `make demo` and `make test`. Each makes its own virtual environment in .venv.
# PYTHON chooses the interpreter (default: the first of python3, python3.14 … python3.10 that will do).

SHELL := /bin/sh
PY := .venv/bin/python
WORKERS ?= 2
PYTEST_ARGS ?=
BENCH_ARGS ?=
ROUNDS ?= 5

# What steers a Python elsewhere must not steer the ones we start.
unexport PYTHONDONTWRITEBYTECODE PYTHONPATH PYTHONHOME PYTHONSTARTUP PYTHONWARNINGS VIRTUAL_ENV CONDA_PREFIX

.DEFAULT_GOAL := help
.PHONY: help demo test fuzz lint format bench clean debian

help: ## these lines
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

demo: ## a small real environment, replicated, proven and put to work
	@tools/venv.sh
	@$(PY) examples/demo/make_env.py

test: debian ## all tests; what needs root is skipped by name for everyone else
	@tools/venv.sh test
	@$(PY) -m pytest --no-fold-skipped -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

fuzz: ## the property tests with examples that nobody has tried yet (ROUNDS=5 times)
	@tools/venv.sh test
	@for round in $$(seq $(ROUNDS)); do \
	  $(PY) -m pytest -q -n $(WORKERS) --hypothesis-profile=others tests/property $(PYTEST_ARGS) || exit 1; done

lint: ## formatting, ruff, mypy strict, names of test modules, shell syntax
	@tools/venv.sh lint test
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@twice=$$(find tests -name 'test_*.py' -exec basename {} \; | sort | uniq -d); \
	  [ -z "$$twice" ] || { echo "pytest takes test modules of one name for one module: $$twice"; exit 1; }
	@for script in tools/*.sh .ci/run src/likewise/node/*.sh tests/support/*.sh; do sh -n "$$script" || exit 1; done

format: ## let ruff rewrite what it can
	@tools/venv.sh lint test
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

bench: ## time from nothing to the first task, beside the other ways (BENCH_ARGS=--list names them)
	@tools/venv.sh
	@$(PY) bench/first_task.py $(BENCH_ARGS)

debian:
	@tools/debian_packages.sh

clean: ## remove everything that make made
	rm -rf .venv .demo .bench .testbed .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find src tests tools examples bench -name __pycache__ -type d -prune -exec rm -rf {} +
