"""The probes on the kernels that the project supports: tests/kernel as it is, on each of them, in a virtual machine."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from tests.vm.machine import VERSION_IDS, VERSIONS, run_in_vm

pytestmark = pytest.mark.vm
ROOT = Path(__file__).parents[2]
FILES = (
    "test_loader.py",
    "test_drops_probe.py",
    "test_resets.py",
    "test_packet_probe.py",
    "test_packet_drops.py",
    "test_dns_probe.py",
    "test_agent_server.py",
    "test_agent_lifecycle.py",
)
_SUMMARY = re.compile(r"(?:(\d+) failed)?(?:, )?(?:(\d+) passed)(?:, (\d+) skipped)?.* in [\d.:]+")


@pytest.mark.timeout(3000)
@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("version", VERSIONS, ids=VERSION_IDS)
def test_the_probes_see_there_what_they_see_here(version: str, file: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to read all of / over 9p")
    command = (
        f"cd {ROOT}; {sys.executable} -m pytest tests/kernel/{file} -p no:cacheprovider -o timeout=900 --color=no -q"
    )
    text = run_in_vm(command, version=version, memory=3072, timeout=2900)
    found = _SUMMARY.search(text)
    assert found is not None, text[-6000:]
    assert int(found[2]) > 0 and not found[1], text[-6000:]
