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


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("machine", MACHINES, ids=str)
def test_the_probes_see_there_what_they_see_here(machine: Machine, file: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to read all of / over 9p")
    command = f"python -m pytest tests/kernel/{file} -p no:cacheprovider -o timeout=900 --color=no -q"
    text = run_in_vm(command, machine=machine, memory=3072, timeout=2900)
    ends = [line for line in text.splitlines() if line.startswith("SKIPPED") or re.match(r"\d+ passed", line)]
    print(machine, file, *ends, sep="\n")
    assert "\nexit status 0\n" in text and ends, text[-6000:]
