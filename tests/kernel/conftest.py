"""The kernel tests need root, BTF and BCC."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.agent.bpf.btf import VMLINUX
from tests.kernel.kerneltest import Row, three_namespaces


def _why_not() -> str:
    if os.geteuid() != 0:
        return "loading BPF programs needs root"
    if not VMLINUX.exists():
        return f"this kernel has no {VMLINUX}"
    if importlib.util.find_spec("bcc") is None:
        return "python3-bpfcc is not installed"
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here, why = Path(__file__).parent, _why_not()
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.kernel)
            if why:
                item.add_marker(pytest.mark.skip(reason=why))


@pytest.fixture(scope="module")
def row() -> Iterator[Row]:
    with three_namespaces("row") as found:
        yield found
