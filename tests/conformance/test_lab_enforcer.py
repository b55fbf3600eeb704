"""The lab's enforcer against the policy cases: its chains are walked for every probe."""

from __future__ import annotations

import ipaddress
import itertools
import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.lab.datapath.enforcer import write_policies
from kubectl_genainet.lab.datapath.iptables import Tables
from kubectl_genainet.lab.spec import AddressFamily
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, without_nulls

CONFORMANCE = Path(os.environ.get("GENAINET_CONFORMANCE", Path(__file__).parents[2] / "../shared/conformance"))
FILE = CONFORMANCE / "netpol_cases.json"
NODE = "the-node"
CASES = json.loads(FILE.read_text()) if FILE.exists() else []
pytestmark = pytest.mark.skipif(not CASES, reason=f"{FILE} is missing")


def snapshot_of(case: dict[str, Any]) -> ClusterSnapshot:
    objects = []
    for raw in map(without_nulls, case["manifests"]):
        if raw["kind"] == "Pod":
            raw = {**raw, "spec": {**raw.get("spec", {}), "nodeName": NODE}}
        if raw["kind"] in ("Pod", "NetworkPolicy"):
            raw["metadata"].setdefault("namespace", "default")
        objects.append(KubeObject(raw=raw))
    return ClusterSnapshot(tuple(objects))


def admits(rules: dict[str, list[list[str]]], source: str, destination: str, protocol: str, port: int) -> bool:
    """Whether a new connection's first packet gets through LAB-FORWARD."""
    marked = False

    def walk(chain: str) -> bool:
        nonlocal marked
        for rule in rules.get(chain, []):
            if "--ctstate" in rule or not matches(rule):
                continue
            target = rule[rule.index("-j") + 1]
            if target == "DROP":
                return False
            if target == "MARK":
                marked = not rule[rule.index("--set-xmark") + 1].startswith("0x0/")
            elif target == "RETURN":
                return True
            elif not walk(target):
                return False
        return True

    def matches(rule: list[str]) -> bool:
        words = {a: b for a, b in itertools.pairwise(rule) if a in ("-s", "-d", "-p", "--dport", "--mark")}
        first, _, last = words.get("--dport", "0:65535").partition(":")
        return (
            inside(source, words.get("-s"))
            and inside(destination, words.get("-d"))
            and words.get("-p", protocol) == protocol
            and int(first) <= port <= int(last or first)
            and ("--mark" not in words or marked)
        )

    return walk("LAB-FORWARD")


def inside(ip: str, network: str | None) -> bool:
    return network is None or ipaddress.ip_address(ip) in ipaddress.ip_network(network)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c["id"])
def test_enforcer_gives_the_expected_verdicts(case: dict[str, Any]) -> None:
    snapshot = snapshot_of(case)
    chains: dict[AddressFamily, dict[str, list[list[str]]]] = {}
    for family in AddressFamily:
        tables = Tables()
        write_policies(tables, snapshot, NODE, family)
        found: dict[str, list[list[str]]] = {}
        for line in tables.restore_text().splitlines():
            if line.startswith("-A "):
                words = shlex.split(line)
                found.setdefault(words[1], []).append(words[2:])
        chains[family] = found
    wrong = []
    for probe in case["probes"]:
        source, target = address(snapshot, probe["from"]), address(snapshot, probe["to"])
        family = AddressFamily.IPV6 if ":" in target else AddressFamily.IPV4
        got = admits(chains[family], source, target, probe["protocol"].lower(), probe["port"])
        if got != (probe["expected"] == "allow"):
            wrong.append(probe)
    assert wrong == []


def address(snapshot: ClusterSnapshot, end: str) -> str:
    namespace, slash, name = end.partition("/")
    pod = snapshot.pod(namespace, name) if slash else None
    return pod.ips[0] if pod else end
