# Everything a developer does with this project. Each target sets up what it needs in .venv by
# itself, and again whenever pyproject.toml changed; nothing has to be installed but Python and make.
.DEFAULT_GOAL := help
.PHONY: help demo test lint format types unit processes others policies covered lowest test-ray smoke-ray bench simulate soak docs clean
.DELETE_ON_ERROR:

# The first of these that is Python 3.11 or newer and can make virtual environments, or else the
# first that is new enough; `make PYTHON=/path/to/python` decides otherwise.
CANDIDATES := python3 python3.13 python3.12 python3.11 python
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
HAS_VENV := import venv, ensurepip
which = $(firstword $(foreach p,$(CANDIDATES),$(shell $(p) -c '$(1)' >/dev/null 2>&1 && echo $(p))))
PYTHON ?= $(or $(call which,$(HAS_VENV); $(NEW_ENOUGH)),$(call which,$(NEW_ENOUGH)))
VENV ?= .venv
BIN := $(VENV)/bin
RAY := tests/ray
PROCESSES := tests/pool tests/serve
POLICIES := tests/policy tests/simulation
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(VENV)/.demo  ## Watch a real server stay up under ten times its load (under a minute)
	$(BIN)/loadshed demo

test: lint types docs  ## Everything that CI runs: style, types, documents, tests, coverage, oldest dependencies
	$(BIN)/coverage erase
	$(MAKE) --jobs=4 --output-sync=target processes others policies lowest
	$(MAKE) covered

lint: $(VENV)/.test  ## Style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.test  ## Bring the code into the project's style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.test  ## Types, strictly
	$(BIN)/mypy

unit: $(VENV)/.test  ## The test suite, the examples, the documents' code; all of src/ covered
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(MAKE) covered

# The same in parts, which `test` runs side by side: two of them wait a lot, and what only computes lets
# them go first.
processes: $(VENV)/.test
	$(BIN)/coverage run -m pytest -q $(PROCESSES) $(ARGS)

others: $(VENV)/.test
	$(BIN)/coverage run -m pytest -q $(PROCESSES:%=--ignore=%) $(POLICIES:%=--ignore=%) $(ARGS)

policies: $(VENV)/.test
	nice $(BIN)/coverage run -m pytest -q $(POLICIES) $(ARGS)

covered: $(VENV)/.test
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

lowest: $(VENV)-lowest/.test  ## What hangs on dependencies, on the oldest that pyproject.toml allows
	$(VENV)-lowest/bin/python -m pytest -q -m "not long" --ignore=tests/policy --ignore=tests/benchmarks $(ARGS)

test-ray: $(VENV)-ray/.test  ## The tests of the engine for Ray, on a real Ray (a few minutes)
	$(VENV)-ray/bin/coverage erase --rcfile=$(RAY)/coverage.ini
	$(VENV)-ray/bin/coverage run --rcfile=$(RAY)/coverage.ini -m pytest -q -W ignore \
	  -o python_files='check_*.py test_ray_serve.py' $(RAY) tests/serve/test_ray_serve.py $(ARGS)
	$(VENV)-ray/bin/coverage combine --quiet --rcfile=$(RAY)/coverage.ini
	$(VENV)-ray/bin/coverage report --rcfile=$(RAY)/coverage.ini

# What of it has to work at the least, in under a minute.
smoke-ray: $(VENV)-ray/.test
	$(VENV)-ray/bin/python -m pytest -q -W ignore -o python_files='check_*.py' $(RAY)/check_to_ray.py \
	  -k "example_of_the_doc or call_one_another or when_to_come_back or methods_of_a_class" $(ARGS)

bench: $(VENV)/.bench  ## Speed: ratios against peers, measured in the same run
	$(BIN)/python -m tests.benchmarks $(ARGS)

simulate: $(VENV)/.test  ## Limits in virtual time: goodput in every scenario (minutes; ARGS="1 8 --seeds 8" for some)
	$(BIN)/python -m tests.simulation $(ARGS)

soak: $(VENV)/.test  ## The state machines and the simulation at length (a few minutes)
	HYPOTHESIS_PROFILE=soak $(BIN)/python -m pytest -q -s tests/policy tests/simulation $(ARGS)
	LOADSHED_KILLS=500 $(BIN)/python -m pytest -q -s tests/pool -k chaos

docs: $(VENV)/.docs  ## Build the documentation into site/, warnings as errors
	$(BIN)/mkdocs build --strict

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(VENV)-lowest $(VENV)-ray site dist .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .hypothesis

$(VENV)/.demo: extras = .[serve]
$(VENV)/.test: extras = .[serve] --group test --group newest
$(VENV)/.bench: extras = .[serve] --group bench --group test --group newest
$(VENV)/.docs: extras = . --group docs
$(VENV)/.demo $(VENV)/.test $(VENV)/.bench $(VENV)/.docs: $(VENV)/.made pyproject.toml
	$(PIP) install --editable $(extras)
	@touch $@

# The same suite where every dependency that pyproject.toml names is as old as it allows.
$(VENV)-lowest/.test: pyproject.toml tests/lowest.py | $(VENV)/.made
	$(BIN)/python -m venv --clear $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip --quiet install --upgrade pip
	$(BIN)/python tests/lowest.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip --quiet install --editable .[serve] --group test --constraint $(VENV)-lowest/constraints.txt
	@touch $@

# Ray has an environment of its own: it is large, and asks for other versions of what we test with.
$(VENV)-ray/.test: pyproject.toml | $(VENV)/.made
	$(BIN)/python -m venv --clear $(VENV)-ray
	$(VENV)-ray/bin/python -m pip --quiet install --upgrade pip
	$(VENV)-ray/bin/python -m pip --quiet install --editable .[ray] --group test
	@touch $@

# pip itself is renewed because the one that comes with Python 3.11 does not know `--group`.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "loadshed needs Python 3.11 or newer, and none of these is: $(CANDIDATES)." \
	  "Install one, or name it: make PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c '$(NEW_ENOUGH)' || { echo "loadshed needs Python 3.11 or newer, and PYTHON=$(PYTHON) is not." >&2; exit 1; }
	@$(PYTHON) -c '$(HAS_VENV)' 2>/dev/null || { echo "$(PYTHON) can't make virtual environments: its venv" \
	  "module is missing. On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@
