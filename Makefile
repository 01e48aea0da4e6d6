# make setup | demo | test | test-fast | faults | soak | bench | check | clean
.PHONY: setup demo test test-fast faults soak bench check clean help
PY := .venv/bin/python

help:
	@grep -E '^# ' Makefile | cut -c3-

setup:
	@sh tools/setup.sh

test: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@$(PY) -m pytest -m "not soak"

test-fast: setup
	@$(PY) -m pytest -m "not soak and not vm"

# make faults: a disk that fails, and kill -9, at every call of every writer (MOST=20 of each, WRITERS='"node add"')
faults: setup
	@PYTHONPATH=tests $(PY) -m support.faults $(if $(MOST),--most $(MOST)) $(WRITERS)

# make soak MINUTES=600: nodes poll for so long (10) while nodes.conf, overlays and images change
soak: setup
	@WWFAST_SOAK_MINUTES=$(or $(MINUTES),10) $(PY) -m pytest tests/adversity/test_soak.py

check: setup
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

demo: setup
	@$(PY) -m wwfast.demo

bench: setup
	@$(PY) -m benchmarks list

clean:
	rm -rf build dist .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name '*.so' -path './src/*' -delete
