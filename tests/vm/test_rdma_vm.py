"""RDMA in a kernel that has soft-RoCE: what the agent reads of it, against rdma(8) and real RDMA between two processes."""

from __future__ import annotations

import json
import os
import shutil
from typing import Any

import pytest

from tests.vm.machine import run_in_vm

pytestmark = pytest.mark.vm
MODULES = ("veth", "rdma_rxe", "ib_uverbs")


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    if os.geteuid() != 0:
        pytest.skip("needs root, to read all of / over 9p")
    if shutil.which("ibv_rc_pingpong") is None or shutil.which("rdma") is None:
        pytest.skip("not installed: ibverbs-utils, ibverbs-providers, iproute2")
    text = run_in_vm("python tests/vm/guest_rdma.py", MODULES, timeout=280)
    line = next((line for line in text.splitlines() if line.startswith("RESULT ")), None)
    assert line is not None, text[-3000:]
    values: dict[str, Any] = json.loads(line.removeprefix("RESULT "))
    return values


def port(fabric: dict[str, Any], device: str = "rxe0") -> dict[str, Any]:
    (described,) = (d for d in fabric["devices"] if d["name"] == device)
    values: dict[str, Any] = described["ports"][0]
    return values


def test_a_node_without_devices_has_none_and_says_nothing_more(report: dict[str, Any]) -> None:
    assert report["none"] == {"devices": [], "netns_mode": "", "unreadable": []}


def test_the_device_is_as_rdma_lists_it(report: dict[str, Any]) -> None:
    (link,) = report["links"]
    assert [d["name"] for d in report["idle"]["devices"]] == [link["ifname"]]
    assert (port(report["idle"])["number"], port(report["idle"])["state"]) == (link["port"], link["state"])
    assert port(report["idle"])["link_layer"] == "Ethernet"
    assert port(report["idle"])["gids"][0].startswith("fe80:")
    assert report["idle"]["devices"][0]["users"] == []


def test_queue_pairs_are_those_of_processes_by_their_network_namespace(report: dict[str, Any]) -> None:
    held = [pair for pair in report["queue pairs"] if "pid" in pair]
    assert report["used"]["devices"][0]["users"] == [[report["own"], len(held)]]
    assert len(report["queue pairs"]) > len(held)  # the kernel's own pair is left out
    assert report["after"]["devices"][0]["users"] == []


def test_counters_grow_by_what_was_sent(report: dict[str, Any]) -> None:
    assert "bytes in" in report["client"] and "bytes in" in report["server"]
    before, after = port(report["idle"])["counters"], port(report["after"])["counters"]
    assert after["rdma_sends"] - before["rdma_sends"] == 40  # 20 messages each way
    assert after["rdma_recvs"] - before["rdma_recvs"] == 40
    assert after["sent_pkts"] - before["sent_pkts"] >= 40


def test_the_exclusive_mode_says_that_devices_may_be_out_of_sight(report: dict[str, Any]) -> None:
    assert report["idle"]["netns_mode"] == "shared"
    assert report["exclusive"]["netns_mode"] == "exclusive"
    assert any("given to other network namespaces" in reason for reason in report["exclusive"]["unreadable"])
