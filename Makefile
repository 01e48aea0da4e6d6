# make setup | demo | test | test-fast | test-debug | test-313 | coverage | random | fuzz | mutants | faults | disks |
#   soak | big-image | power-cuts | bench | check | map | clean
.PHONY: setup demo test test-fast test-debug test-313 coverage disks random fuzz mutants faults soak big-image power-cuts bench check map clean help
PY := .venv/bin/python

help:
	@grep -E '^# ' Makefile | cut -c3-

setup:
	@sh tools/setup.sh

test: setup
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy
	@sh tools/test.sh

test-fast: setup
	@sh tools/test.sh fast

# make random: the property tests with examples that nobody has tried yet
random: setup
	@$(PY) -m pytest --hypothesis-profile=random tests/property

# make fuzz TARGET=dhcp SECONDS=3600: inputs guided by coverage (60 s each of tests/fuzz); finds stay in .cache/fuzz/TARGET
fuzz: setup
	@$(PY) -c 'import atheris' 2>/dev/null || $(PY) -m pip install -q atheris
	@for target in $(or $(TARGET),$(basename $(notdir $(wildcard tests/fuzz/*.py)))); do \
	    PYTHONPATH=tests $(PY) -m support.fuzzing $$target $(or $(SECONDS),60) || exit 1; done

# make mutants MUTANTS=300 SEED=1: one-line changes that no test notices, of durability, guard, scheduler, HTTP and DHCP
mutants: setup
	@$(PY) tools/mutants.py $(or $(MUTANTS),300) --seed $(or $(SEED),1)

# make faults: a disk that fails, and kill -9, at every call of every writer (MOST=20 of each, WRITERS='"node add"')
faults: setup
	@PYTHONPATH=tests $(PY) -m support.faults $(if $(MOST),--most $(MOST)) $(WRITERS)

# make test-debug TESTS="tests/unit": with extensions that check bounds and count their objects, a leak fails its test
test-debug: setup
	@mkdir -p .cache/debug && cp -ru setup.py pyproject.toml src .cache/debug/
	@cd .cache/debug && WWFAST_BUILD=debug $(CURDIR)/$(PY) setup.py -q build_ext --inplace
	@PYTHONPATH=.cache/debug/src $(PY) -m pytest -m "not soak and not vm" $(or $(TESTS),tests/unit tests/property)

# make coverage TESTS="tests/unit": lines of src that the tests run, in child processes too, by folder
coverage: setup
	@$(PY) -c 'import coverage' 2>/dev/null || $(PY) -m pip install -q 'coverage>=7.10'
	@$(PY) -m coverage erase
	@-$(PY) -m coverage run -m pytest -q -m "not soak and not vm" $(TESTS)
	@$(PY) -m coverage combine -q && $(PY) tools/covered.py

# make test-313 TESTS="tests/unit": unit and property tests on Python 3.13, in a Debian 13 (root; made once)
test-313: setup
	@TESTS="$(TESTS)" sh tools/test-313.sh

# make disks: every command on a disk that is full, read-only, absent or not ours: what each of them says
disks: setup
	@$(PY) -m pytest -q -s tests/adversity/test_every_command.py

# make soak MINUTES=600: nodes poll for so long (10) while nodes.conf, overlays and images change
soak: setup
	@WWFAST_SOAK_MINUTES=$(or $(MINUTES),10) $(PY) -m pytest tests/adversity/test_soak.py

# make big-image: a machine of 6 GiB boots an image of more than 4 GiB, packed (root, 30 GiB of disk, a quarter of an hour)
big-image: setup
	@$(PY) -m pytest -s tests/e2e/test_big_image.py

# make power-cuts: machines whose power goes at ten moments of their boots or amid an update of their root, or whose disks are
#   wrong, and one by dracut_static (root, three quarters of an hour)
power-cuts: setup
	@$(PY) -m pytest -s -m soak tests/e2e/test_disk_boot.py tests/e2e/test_update_boot.py tests/e2e/test_dracut_vm.py

check: setup
	@$(PY) -m ruff check . && $(PY) -m ruff format --check . && $(PY) -m mypy

# make map: docs/modules.md, written from the docstrings
map:
	@$(PY) tools/modules.py

demo: setup
	@$(PY) -m wwfast.demo

bench: setup
	@$(PY) -m benchmarks list

clean:
	rm -rf build dist .venv .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find . -name '*.so' -path './src/*' -delete
