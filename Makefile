# Needs Python and make; everything else goes into $(VENV). Stamps re-install when setup.py or constraints.txt change.
PYTHON ?= $(shell for p in python3.11 python3 python3.12; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip -qq --disable-pip-version-check install -c constraints.txt
SETUP := setup.py setup.cfg pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint bench docs clean

help:
	@echo "make demo   the shipped policy on two emulated arms, through all of ROS, and on 20 scenes in simulation:"
	@echo "            tables, videos, report (no torch)"
	@echo "            DEMO=push: six mobile robots push soft objects; through ROS: table, picture, video (no torch)"
	@echo "make test   every test"
	@echo "make lint   ruff, mypy and the direction of imports"
	@echo "make bench  speed of the simulation"
	@echo "make docs   build docs/ into build/docs; broken links fail"
	@echo "make clean  remove what building and testing leave behind (keeps $(VENV))"

demo: $(VENV)/.stamp-demo$(if $(DEMO),-$(DEMO))
	@$(BIN)/horseshoe demo $(if $(DEMO),--$(DEMO) --out out/demo-$(DEMO))
	@$(if $(DEMO),,echo; echo "and 20 scenes it never saw, in simulation:"; $(BIN)/horseshoe demo --sim --out out/demo-sim)

test: $(VENV)/.stamp-all
	@$(BIN)/python -m pytest

lint: $(VENV)/.stamp-all
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/horseshoe/test_imports.py

bench: $(VENV)/.stamp-all
	@$(BIN)/horseshoe bench sim

docs: $(VENV)/.stamp-all
	$(BIN)/mkdocs build --strict --quiet --site-dir build/docs

clean:
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache MUJOCO_LOG.TXT
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.stamp-venv:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 to 3.13 found; name one: make PYTHON=/path/to/python3.11" >&2; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	@touch $@

$(VENV)/.stamp-demo: $(VENV)/.stamp-venv $(SETUP)
	@echo "Installing what the demo needs (no torch) ..."
	@$(PIP) --editable '.[sim,twin,robot,ros]'
	@touch $@

$(VENV)/.stamp-demo-push: $(VENV)/.stamp-venv $(SETUP)
	@echo "Installing what the demo of pushing needs (no torch) ..."
	@$(PIP) --editable '.[sim,push,ros]'
	@touch $@

$(VENV)/.stamp-all: $(VENV)/.stamp-demo
	@echo "Installing everything: ROS 2, Warp, torch, test tools ..."
	@$(PIP) --editable '.[sim,twin,push,robot,ros,train,dev]'
	@$(BIN)/python -m venv $(VENV)/colcon  # which needs an older setuptools
	@$(VENV)/colcon/bin/python -m pip -qq --disable-pip-version-check install colcon-common-extensions==0.3.0 'setuptools<80'
	@touch $@
