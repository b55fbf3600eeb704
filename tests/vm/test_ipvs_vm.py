"""IPVS in a kernel that has it: our reading against ipvsadm's, and real packets against the evaluation."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.model.packet import address_text
from tests.vm.machine import kernel, run_in_vm

pytestmark = pytest.mark.vm
MODULES = ("veth", "ip_vs", "ip_vs_rr", "ip_vs_wrr", "ip_vs_sh")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to read all of / over 9p")
    text = run_in_vm("python tests/vm/guest_ipvs.py", MODULES, timeout=280)
    line = next((line for line in text.splitlines() if line.startswith("RESULT ")), None)
    assert line is not None, text[-3000:]
    found: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    if folder := os.environ.get("GENAINET_WRITE_DUMPS"):
        kept = {"kernel": kernel().release, "messages": found["messages"], "ipvsadm": found["ipvsadm"]}
        (Path(folder) / "ipvs.json").write_text(json.dumps(kept, indent=1) + "\n")
    return found


def test_netlink_reads_what_ipvsadm_prints(report: dict[str, Any]) -> None:
    assert report["error"] == ""
    assert report["ours"].splitlines() == report["ipvsadm"].splitlines()


def test_a_node_without_virtual_servers_has_no_dump(report: dict[str, Any]) -> None:
    assert report["empty"] == ["", ""]


def scheduled(stats: str) -> dict[tuple[str, str], Counter[str]]:
    """The connections that IPVS counted, by (protocol, address) of the service and by backend."""
    found: dict[tuple[str, str], Counter[str]] = {}
    service = ("", "")
    for words in (line.split() for line in stats.splitlines()):
        if words and words[0] in ("TCP", "UDP", "SCTP"):
            service = (words[0], words[1])
        elif words and words[0] == "->" and words[1] != "RemoteAddress:Port":
            found.setdefault(service, Counter())[words[1]] = int(words[2])
    return found


def test_packets_go_where_the_evaluation_says(report: dict[str, Any]) -> None:
    counted = scheduled(report["stats"])
    for case in report["flows"]:
        src, dst, port, protocol = case["flow"]
        ends = Counter(c["end"] for c in case["came"])
        if case["verdict"] == "REJECT":
            assert set(ends) == {"refused"}, case
            continue
        # The machine is slow, so a client may give up; what IPVS scheduled is counted by IPVS.
        assert ends["answer"] > len(case["came"]) / 2, case
        assert set(ends) <= {"answer", "timeout"}, case
        answers = [c for c in case["came"] if c["end"] == "answer"]
        assert {c["backend"] for c in answers} <= set(case["backends"]), case
        assert {c["seen_as"] for c in answers} == {src}  # nothing masquerades
        assert case["masquerade"] is False
        conns = counted[protocol, address_text(dst, port)]
        total = sum(conns.values())
        assert {b: count / total for b, count in conns.items() if count} == case["backends"], (case, conns)
