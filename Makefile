# Everything a contributor runs. Debian packages and the virtual environment are installed by `setup`.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
export DEBIAN_FRONTEND := noninteractive

.PHONY: setup demo oracles test test-vm check bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml scripts/setup.sh scripts/packages.sh
	scripts/setup.sh $(VENV)
	touch $@

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# What verdicts are compared with: minutes of building the first time, cached after that.
oracles: setup
	scripts/build-cilium-oracle.sh

# The lab's tests mostly wait for packets: two files at a time. What counts the node's probes runs alone.
test: setup oracles
	$(PY) -m pytest tests/unit tests/conformance tests/oracles
	$(PY) scripts/fuzz.py 45
	$(PY) -m pytest tests/lab tests/golden -n 2 --dist loadfile
	$(PY) -m pytest tests/kernel tests/cluster

# What the machine's own kernel lacks (IPVS), in a virtual machine with Debian's kernel: minutes, so not part of `test`.
test-vm: setup
	scripts/packages.sh vm
	$(PY) -m pytest -m vm tests/vm

bench: setup
	$(PY) -m benchmarks

demo:
	scripts/packages.sh lab
	scripts/demo.sh

clean:
	rm -rf $(VENV) .venv-demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
