# Everything a newcomer needs: `make demo`, `make test`, `make serve`. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export RAY_USAGE_STATS_ENABLED = 0
# threads of torch that wait for each other sleep: where other processes are busy, spinning ones slow the demo down much more
export OMP_WAIT_POLICY ?= PASSIVE
export GLORA_HOME ?= .glora

.PHONY: help demo serve test quick chaos soak lint format types clean
help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

$(VENV)/.installed: pyproject.toml constraints.txt tools/mend_torchvision.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name one with make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[service]"
	$(BIN)/python tools/mend_torchvision.py
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[service,text,onnx,peft,dev]"
	@touch $@

demo: $(VENV)/.installed  ## install, then run a whole job on real images and check its checkpoint
	$(BIN)/python -m examples.demo

serve: $(VENV)/.installed  ## install, then keep a service up at http://127.0.0.1:8000
	$(BIN)/glora serve

test: $(VENV)/.installed-dev  ## install what testing needs, then run every test that this machine can run
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --no-loadscope-reorder

quick: $(VENV)/.installed-dev  ## the quick tests only
	$(BIN)/python -m pytest -m "not slow and not postgres and not browser and not chaos"

chaos: $(VENV)/.installed-dev  ## the whole kill matrix, recorded in docs/reliability.md; an hour on two idle cores
	GLORA_CHAOS=all GLORA_CHAOS_RECORD=1 $(BIN)/python -m pytest tests/chaos -m chaos
	$(BIN)/python -m tests.chaos.report

soak: $(VENV)/.installed-dev  ## 200 small jobs while things are killed at random; fewer with SOAK="--jobs 20 --seconds 60"
	GLORA_CHAOS_RECORD=1 $(BIN)/python -m tests.chaos.soak $(SOAK)
	$(BIN)/python -m tests.chaos.report

lint: $(VENV)/.installed-dev  ## format check, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev  ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove caches; jobs, checkpoints and the environment stay
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
