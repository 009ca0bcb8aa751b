# Patchwave: everything a person calls. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv demo awsim test test-moto test-moto-baseline check-seeds check-crashes check-moments bench-awsim bench-calls bench-plan aws-cli lint docs up down test-compose lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-from-requirements

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make demo takes: APPROVE=yes EXIT=yes PORT=8080 AWSIM_PORT=5005 SPEED=240 SEED=1 CAMPAIGN=weekly-linux WORLD=FILE"
	@echo "  make awsim takes: AWSIM_PORT=5005 SPEED=60 SEED=1 WORLD=FILE"

venv: $(STAMP) ## the virtual environment (.venv) with everything that requirements.txt names

$(STAMP): requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "Patchwave needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1); choose another one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' cannot make virtual environments (no venv or ensurepip); on Debian and Ubuntu install the package python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --requirement requirements.txt
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/uv pip install --quiet --no-deps --editable .
	@touch $@

demo: $(STAMP) ## start Airflow and a simulated AWS here, run a campaign, show its result
	@$(BIN)/python -m patchwave demo \
	  $(if $(filter yes,$(APPROVE)),--approve) $(if $(filter yes,$(EXIT)),--exit) \
	  $(if $(PORT),--port "$(PORT)") $(if $(AWSIM_PORT),--awsim-port "$(AWSIM_PORT)") $(if $(SPEED),--speed "$(SPEED)") \
	  $(if $(SEED),--seed "$(SEED)") $(if $(CAMPAIGN),--campaign "$(CAMPAIGN)") $(if $(WORLD),--world "$(WORLD)")

awsim: $(STAMP) ## start the simulated AWS alone, on 127.0.0.1:5005, with the hosts of include/worlds/small.yaml
	@$(BIN)/python -m awsim --world "$(or $(WORLD),include/worlds/small.yaml)" \
	  --port "$(or $(AWSIM_PORT),5005)" --speed "$(or $(SPEED),60)" --seed "$(or $(SEED),1)"

test: $(STAMP) ## every test that needs no docker
	@$(BIN)/python -m pytest -m "not compose"

test-moto: $(STAMP) ## moto's own tests against awsim: nothing that passes on stock moto may fail
	@$(BIN)/python tests/moto/run.py $(SERVICES)

test-moto-baseline: $(STAMP) ## run moto's own tests against stock moto and store the outcomes
	@$(BIN)/python tests/moto/run.py --baseline $(SERVICES)

check-seeds: $(STAMP) ## campaigns with random faults and kills in virtual time (SEEDS=1000); SEED=1234 tells that one's story
	@PYTHONPATH=include $(BIN)/python -m tests.seeds.run $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),1000))

check-crashes: $(STAMP) ## campaigns in a real Airflow whose processes are killed at seeded moments (KILLS=20 SEED=1)
	@PYTHONPATH=include $(BIN)/python -m tests.crashes.run --kills "$(or $(KILLS),20)" --seed "$(or $(SEED),1)"

check-moments: $(STAMP) ## campaigns in a real Airflow that has bad moments of its own (MOMENTS="scheduler triggerer" for some)
	@PYTHONPATH=include $(BIN)/python -m tests.crashes.moments $(MOMENTS)

bench-awsim: $(STAMP) ## measure awsim with 10,000 and 100,000 hosts (HOSTS="10000" for others)
	@$(BIN)/python -m awsim.bench $(HOSTS)

bench-calls: $(STAMP) ## count calls to AWS for 500 and 5,000 hosts, ours beside the stock operator's (HOSTS="500" for others)
	@PYTHONPATH=include $(BIN)/python -m benchmarks.calls $(HOSTS)

bench-plan: $(STAMP) ## measure classify and plan for 100,000 hosts and 1,000,000 findings, beside a plain group-by; then the tasks
	@PYTHONPATH=include $(BIN)/python -m benchmarks.plan
	@PYTHONPATH=include $(BIN)/python -m benchmarks.stations --findings 250000
	@PYTHONPATH=include $(BIN)/python -m benchmarks.stations

aws-cli: $(STAMP) ## the AWS CLI in var/aws-cli, for the test that types its commands (the test makes it, too)
	@test -x var/aws-cli/bin/aws || $(BIN)/uv venv --quiet --python $(BIN)/python var/aws-cli
	@$(BIN)/uv pip install --quiet --python var/aws-cli/bin/python awscli==1.46.3

lint: $(STAMP) ## ruff, mypy (strict on include/), import contracts
	$(BIN)/ruff check .
	$(BIN)/python -m mypy
	PYTHONPATH=include $(BIN)/lint-imports

docs: $(STAMP) ## write the generated pages below docs/ again
	@$(BIN)/python docs/generate.py

up: $(STAMP) ## docker compose: everything in containers, with PostgreSQL, Redis and Celery
	@$(BIN)/python -m patchwave compose up

down: $(STAMP) ## docker compose: stop it (the data stay)
	@$(BIN)/python -m patchwave compose down

test-compose: $(STAMP) ## build and start the containers, run a campaign in them, take them down
	@$(BIN)/python -m pytest tests/compose -m compose

lock: ## compile requirements.in into requirements.txt, for every Python we support
	@test -x $(BIN)/uv || { test -x $(BIN)/python || $(PYTHON) -m venv $(VENV); $(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9; }
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --output-file requirements.txt requirements.in

clean: ## remove what runs and tools left behind (var/, caches), not .venv
	rm -rf var .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache docs/_build
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
