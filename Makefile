# make demo and make test set themselves up; everything they need comes from pip.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready
CONFIG := experiments/configs/cnn7_fashion.py
RUN := runs/demo

.PHONY: setup demo test test-slow lint docs clean

setup: $(READY)

$(READY): setup.cfg constraints.txt pyproject.toml
	@echo "setting up $(VENV) (a few minutes the first time)"
	@rm -rf $(VENV) && mkdir -p $(VENV)
	@date +%s > $(VENV)/started
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --no-color --progress-bar off \
	  --constraint constraints.txt --editable '.[report,serve,test]' > $(VENV)/setup.log 2>&1 \
	  || { tail -n 20 $(VENV)/setup.log; exit 1; }
	@echo "set-up: $$(( $$(date +%s) - $$(cat $(VENV)/started) )) s, $$($(BIN)/python experiments/lib/downloads.py $(VENV)/setup.log)" > $@
	@cat $@

demo: setup
	@for phase in pretrain search infer report; do \
	  $(BIN)/python -m experiments.$$phase --config=$(CONFIG) --workdir=$(RUN) || exit $$?; \
	done
	@cat $(READY)

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m 'not slow'

test-slow: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: setup
	$(BIN)/python -W error docs/api.py build/docs
	$(BIN)/python docs/dependencies.py docs/dependencies.svg
	$(BIN)/python docs/troubleshooting.py docs/troubleshooting.md

clean:
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
