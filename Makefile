# make demo   real video -> irregular masks -> a 6x2 test set -> a scored table with pictures, all in ./demo
# make test   every test;  make check   lint and format;  make bench   the tables of speed and truth
# make faults   kills, full disks, bad bytes and a soak, tried for real: about 25 minutes
PYTHON ?= python3
BIN := .venv/bin
FAULTS := benchmarks/faults.py benchmarks/fuzz.py benchmarks/soak.py

.PHONY: demo test check bench faults clean

demo: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo demo

test: .venv/ready
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: demo/masks/raw/recipe.json
	set -e; for table in $(filter-out $(FAULTS) benchmarks/running.py,$(wildcard benchmarks/*.py)); do echo "== $$table"; $(BIN)/python $$table; done

faults: .venv/ready
	set -e; for table in $(FAULTS); do echo "== $$table"; $(BIN)/python $$table; done

demo/masks/raw/recipe.json:
	$(MAKE) demo

.venv/ready: setup.cfg pyproject.toml constraints.txt scripts/setup
	scripts/setup .venv $(PYTHON)
	touch $@

clean:
	rm -rf .venv demo
