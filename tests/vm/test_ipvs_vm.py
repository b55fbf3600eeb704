"""IPVS in a kernel that has it: our reading against ipvsadm's, and real packets against the evaluation."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from machine import run_in_vm

pytestmark = pytest.mark.vm
MODULES = ("veth", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to read all of / over 9p")
    text = run_in_vm(Path(__file__).with_name("guest_ipvs.py"), "", MODULES, python=sys.executable, timeout=280)
    line = next((line for line in text.splitlines() if line.startswith("RESULT ")), None)
    assert line is not None, text[-3000:]
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return found


def test_netlink_reads_what_ipvsadm_prints(report: dict[str, Any]) -> None:
    assert report["error"] == ""
    assert report["ours"].splitlines() == report["ipvsadm"].splitlines()


def test_a_node_without_virtual_servers_has_no_dump(report: dict[str, Any]) -> None:
    assert report["empty"] == ["", ""]


def test_packets_go_where_the_evaluation_says(report: dict[str, Any]) -> None:
    for case in report["flows"]:
        ends = Counter(c["end"] for c in case["came"])
        if case["verdict"] == "REJECT":
            assert set(ends) == {"refused"}, case
            continue
        assert ends == {"answer": len(case["came"])}, case
        reached = Counter(c["backend"] for c in case["came"])
        assert {c["seen_as"] for c in case["came"]} == {case["flow"][0]}  # nothing masquerades
        assert case["masquerade"] is False
        if case["flow"][1] == "10.96.0.9":  # persistent: one client, one server
            assert len(reached) == 1
        shares = {backend: count / len(case["came"]) for backend, count in reached.items()}
        assert shares == case["backends"], case
