# Everything a contributor runs. Debian packages and the virtual environment are installed by `setup`.
SHELL := /bin/bash
VENV := .venv
PY := $(VENV)/bin/python
export DEBIAN_FRONTEND := noninteractive

.PHONY: setup demo docs generated kubernetes test test-vm check bench clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml scripts/setup.sh scripts/packages.sh
	scripts/setup.sh $(VENV)
	touch $@

check: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Kubernetes, CoreDNS, custom kinds' definitions, Debian's kernels and its firewalls, and the agent's image for the tests, built
# and unpacked into ~/.cache/kubectl-genainet; nothing, but for the image's last layer, where they are there.
kubernetes: setup
	scripts/kubernetes.sh
	scripts/crds.sh >/dev/null
	scripts/kernels.sh >/dev/null
	scripts/firewalls.sh >/dev/null
	$(PY) -m tests.cluster.harness.image

# Three files at a time, since many tests wait; but what counts the node's probes runs alone. Of the cluster's tests, which run in both
# of kube-proxy's modes, two files run at a time, each on a cluster of its own that takes half a processor; beside them another process
# fuzzes and builds the archive; what it said comes after them. The inputs of the short fuzzing are the same each time;
# `scripts/fuzz.py` without a seed makes others.
test: setup kubernetes
	$(PY) -m pytest tests/unit tests/conformance -n 3 --dist loadfile
	$(PY) -m pytest tests/lab tests/golden tests/cluster/plane -n 3 --dist loadfile
	$(PY) -m pytest tests/kernel
	{ $(PY) scripts/fuzz.py 45 --seed 1 && $(PY) -m pytest tests/release; } >$(VENV)/beside.out 2>&1 & beside=$$!; \
	  $(PY) -m pytest tests/cluster --ignore tests/cluster/plane -n 2 --dist loadfile; status=$$?; \
	  wait $$beside || status=$$?; cat $(VENV)/beside.out; exit $$status

# Other kernels (5.10, 6.1, 6.12), arm64 and IPVS, in virtual machines: hours without KVM, so not part of `test`. First each machine
# compiles the probes, which is kept; then each test is a run of a machine, whose console is shown as it comes. Runs that ended well
# are kept (tests/vm/kept.py): stopped, it goes on where it was.
test-vm: setup kubernetes
	scripts/packages.sh vm
	$(PY) -m tests.vm.machine
	$(PY) -m pytest -s -m vm tests/vm tests/lab

# Programs that verdicts are compared with, and the comparison: minutes of building the first time, cached after that.
test: oracles
oracles: setup
	scripts/build-cilium-oracle.sh
	$(PY) -m pytest tests/oracles

# What is made from the code: pages and schemas of docs, the reader's role, the chart's templates. Tests compare them.
generated: setup
	$(PY) -m kubectl_genainet.render.doctor.docs > docs/checks.md
	$(PY) -m kubectl_genainet.render.diagnoses > docs/diagnoses.md
	$(PY) -m kubectl_genainet.records > docs/schema.json
	$(PY) -m scripts.symptoms > docs/symptoms.md
	$(PY) -m scripts.incident_index > docs/incidents/README.md
	$(PY) -m kubectl_genainet.kube.agents.roles
	$(PY) -m scripts.chart

# The site, in build/site; a link that leads nowhere fails it. In an environment of its own: nothing else needs MkDocs.
docs: generated
	[ -x build/docs-venv/bin/mkdocs ] || { python3 -m venv build/docs-venv && build/docs-venv/bin/pip install -q 'mkdocs-material>=9.5,<10'; }
	build/docs-venv/bin/mkdocs build --strict

bench: setup
	$(PY) -m benchmarks

demo:
	scripts/packages.sh lab
	scripts/demo.sh

clean:
	rm -rf $(VENV) .venv-demo dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: oracles
