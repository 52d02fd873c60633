# Each target works alone on a fresh machine: it makes .venv and installs what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

.PHONY: demo test check bench bench-gpu bench-training bench-evaluation bench-serving bench-grit bench-grit-gpu clean

demo: $(VENV)/installed
	$(BIN)/kosmos2 caption examples/*.jpg --draw demo-output --page demo-output/index.html

test: $(VENV)/installed-dev
	$(RUN) -m pytest -n auto

check: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(RUN) -m pytest tests/test_house_rules.py

# Nobody else should use the machine meanwhile. `--quick` and `--only NAME` go into BENCH.
bench: $(VENV)/installed-dev
	$(RUN) -m benchmarks $(BENCH)

bench-gpu: $(VENV)/installed-dev
	$(RUN) -m benchmarks.gpu $(BENCH)

bench-training: $(VENV)/installed-dev
	$(RUN) -m benchmarks.training $(BENCH)

bench-evaluation: $(VENV)/installed-dev
	$(RUN) -m benchmarks.evaluation $(BENCH)

bench-serving: $(VENV)/installed-dev
	$(RUN) -m benchmarks.serving --minutes 10 $(BENCH)

bench-grit: $(VENV)/installed-dev
	$(RUN) -m benchmarks.grit $(BENCH)

bench-grit-gpu: $(VENV)/installed-dev
	$(RUN) -m benchmarks.grit_gpu $(BENCH)

clean:
	rm -rf $(VENV) build demo-output *.egg-info

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; run make PYTHON=python3.11"'
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --constraint constraints.txt torch
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
