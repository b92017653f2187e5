# make demo       real video -> irregular masks -> a 6x2 test set -> a table of scores with pictures, all in ./demo
# make test       every test
# make check      lint, format and types
# make docs       the documentation site, in ./site
# make reference  the tables of docs/reference.md: about an hour
# make bench      the tables of speed and accuracy at small sizes: about 9 minutes on two cores
# make faults     kills, full disks, damaged files and a long run: about 25 minutes
PYTHON ?= python3
BIN := .venv/bin
FAULTS := benchmarks/faults.py benchmarks/fuzz.py benchmarks/soak.py
HELPERS := benchmarks/running.py
# Sizes of make bench. The figures in docs/ are of the sizes that stand beside them, by default those of the programs.
BENCH_blur := --per-class 3
BENCH_cluster := --masks 100 --part speed --part traffic
BENCH_extract := --masks 100 --frames 2000
BENCH_growth := --masks 10000 --masks 30000
BENCH_occlusion := --flow dis --flow dis-fast --flow farneback
BENCH_overfit := --steps 1000
BENCH_overhead := --pairs 60
BENCH_pconv := --rounds 3
BENCH_sampler := --count 500
BENCH_scale := --masks 3
BENCH_sequences := --count 30
BENCH_study_load := --seconds 30

.PHONY: demo test check docs reference bench faults clean

demo: .venv/ready
	PATH="$(CURDIR)/$(BIN):$$PATH" scripts/demo demo

test: .venv/ready
	$(BIN)/python -m pytest -n logical --dist loadfile

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m mypy

docs: .venv/docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

reference: .venv/patchmatch
	$(BIN)/python scripts/reference

bench: demo/masks/raw/recipe.json
	set -e; $(foreach table,$(filter-out $(FAULTS) $(HELPERS),$(wildcard benchmarks/*.py)),echo "== $(table)"; \
	  $(BIN)/python $(table) $(BENCH_$(basename $(notdir $(table))));)

faults: .venv/ready
	set -e; for table in $(FAULTS); do echo "== $$table"; $(BIN)/python $$table; done

demo/masks/raw/recipe.json:
	$(MAKE) demo

.venv/ready: setup.cfg pyproject.toml constraints.txt scripts/setup
	scripts/setup .venv $(PYTHON)
	touch $@

.venv/docs: .venv/ready
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[docs]'
	touch $@

.venv/patchmatch: .venv/ready
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[patchmatch]'
	touch $@

clean:
	rm -rf .venv demo site
