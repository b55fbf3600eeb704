"""The probes on the kernels that the project supports: tests/kernel as it is, on each of them, in a virtual machine."""

from __future__ import annotations

import os
import re

import pytest

from tests.vm.machine import MACHINES, Machine, run_in_vm

pytestmark = pytest.mark.vm
FILES = (
    "test_loader.py",
    "test_joined.py",
    "test_drops_probe.py",
    "test_resets.py",
    "test_packet_probe.py",
    "test_packet_drops.py",
    "test_dns_probe.py",
    "test_agent_server.py",
    "test_agent_lifecycle.py",
)
IMAGES = "$(ls /tmp/kubectl-genainet/*.image | wc -l) images"


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_the_probes_see_there_what_they_see_here(machine: Machine, file: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to read all of / over 9p")
    tests = f"python -m pytest tests/kernel/{file} -p no:cacheprovider -o timeout=900 -o console_output_style=count --color=no -v"
    text = run_in_vm(f"{tests} && echo at the end: {IMAGES}", machine=machine, memory=3072, timeout=2900, probes=True)
    assert "\nexit status 0\n" in text and re.search(r"^=+ \d+ passed", text, re.MULTILINE), text[-6000:]
    before, after = re.findall(r"(?:the probes are compiled|at the end): (\d+) images", text)
    assert before == after  # no test has waited for the compiler
