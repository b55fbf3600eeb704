"""A lab on each kernel: it comes up, trace, drops and dns see its packets, and an incident is named."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.vm.guest_lab import RESULT
from tests.vm.machine import MACHINES, run_in_vm

pytestmark = pytest.mark.vm
MODULES = ("veth", "bridge", "nf_conntrack", "nft_compat", "nft_chain_nat", "nft_counter", "nft_ct", "nft_reject_inet")


@pytest.fixture(scope="module", params=MACHINES, ids=str)
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to read all of / over 9p")
    text = run_in_vm(
        "python tests/vm/guest_lab.py", MODULES, machine=request.param, memory=3072, timeout=2400, probes=True
    )
    _, _, result = text.partition(RESULT)  # the console's first line begins with what the firmware sent
    assert result, text[-6000:]
    report: dict[str, Any]
    report, _ = json.JSONDecoder().raw_decode(result)
    return report


@pytest.mark.timeout(2500)
def test_the_lab_comes_up_and_goes_down(report: dict[str, Any]) -> None:
    assert (report["up"]["status"], report["down"]["status"]) == (0, 0), report["up"]["error"] + report["down"]["error"]


def test_trace_follows_packets_to_their_backends(report: dict[str, Any]) -> None:
    trace = report["trace"]
    paths = [row for row in trace["rows"] if row["kind"] == "path"]
    assert paths, trace["error"]
    assert {path["verdict"] for path in paths} == {"forwarded"}, trace["error"]
    assert any(path["nat"] and path["nat"]["service_chain"] for path in paths)


def test_drops_finds_nothing_and_dns_sees_answers(report: dict[str, Any]) -> None:
    assert report["drops"]["status"] in (0, 124), report["drops"]["error"]
    outcomes = {row["outcome"] for row in report["dns"]["rows"] if row["kind"] == "dns_exchange"}
    assert "answered" in outcomes, report["dns"]["error"]


def test_the_incident_is_named_by_drops_and_trace(report: dict[str, Any]) -> None:
    assert report["incident"]["status"] == 0, report["incident"]["error"]
    assert (report["broken drops"]["status"], report["broken trace"]["status"]) == (1, 1), report["broken drops"][
        "error"
    ]
    dropped = [row for row in report["broken drops"]["rows"] if row["kind"] == "drop" and row["severity"] == "error"]
    # Before 5.17 the kernel gives no reason: it is taken from the function that freed the packet.
    assert {row["drop"]["reason"] for row in dropped} == {"NETFILTER_DROP"}, dropped
    assert any((row["policy"] or {}).get("isolating") or "policy" in row["check"] for row in dropped), dropped
