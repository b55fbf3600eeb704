"""Remedies that are typed on a node, typed in a namespace: the real tools do what they are said to, and nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.finding import Finding
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.proxy.cleanup import cleanup
from tests.proxy_traffic import Namespace, inside
from tests.unit.doctor.faults.case import Case, known
from tests.unit.doctor.faults.cases import CASES, report_on
from tests.unit.doctor.worlds.clusters import kubeadm

TOOLS = ("iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy")
BY_NAME = {case.name: case for case in CASES}
RULES = """*nat
:KUBE-SERVICES - [0:0]
:KUBE-SVC-AAAAAAAAAAAAAAAA - [0:0]
-A PREROUTING -m comment --comment "kubernetes service portals" -j KUBE-SERVICES
-A PREROUTING -p tcp --dport 99 -m comment --comment "a hardening script" -j ACCEPT
-A KUBE-SERVICES -p tcp --dport 80 -j KUBE-SVC-AAAAAAAAAAAAAAAA
COMMIT
*filter
:FORWARD DROP [0:0]
:OWN - [0:0]
:KUBE-FORWARD - [0:0]
-A FORWARD -j KUBE-FORWARD
-A FORWARD -j OWN
-A OWN -p udp --dport 99 -j DROP
COMMIT
"""
NFT = """add table ip kube-proxy
add chain ip kube-proxy services
add table ip6 kube-proxy
add table inet firewall
add chain inet firewall input { type filter hook input priority 0; }
add rule inet firewall input tcp dport 99 drop
"""
HARDENING = """*filter
:HARDENING - [0:0]
-A FORWARD -j HARDENING
-A HARDENING -p udp --dport 53 -j DROP
COMMIT
"""


@pytest.fixture
def node() -> Iterator[str]:
    for tool in TOOLS:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    namespace = Namespace("remedy")
    yield namespace.name
    namespace.delete()


def saved(node: str, tool: str) -> list[str]:
    return [line for line in inside(node, f"{tool}-save").splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("tool", TOOLS)
def test_kube_proxys_rules_are_taken_away_and_no_others(node: str, tool: str) -> None:
    for each in TOOLS:
        inside(node, f"{each}-restore", stdin=RULES)
    before = {each: saved(node, each) for each in TOOLS}
    inside(node, "sh", "-ec", cleanup([tool], "on node n"))
    kept = [line for line in before[tool] if "KUBE-" not in line]
    assert len(kept) < len(before[tool])
    assert {each: saved(node, each) for each in TOOLS} == {**before, tool: kept}


def test_kube_proxys_tables_are_taken_away_and_no_others(node: str) -> None:
    inside(node, "nft", "-f", "-", stdin=NFT)
    inside(node, "sh", "-ec", cleanup(["nft ip", "nft ip6"], "on each node"))
    assert inside(node, "nft", "list", "tables") == "table inet firewall\n"
    assert "tcp dport 99 drop" in inside(node, "nft", "list", "table", "inet", "firewall")


def typed(node: str, finding: Finding) -> str:
    """What the command of a finding's remedy prints in the namespace."""
    assert finding.remedy is not None
    return inside(node, "sh", "-ec", finding.remedy.command)


def found(case: Case, dumps: list[RulesetDump]) -> list[Finding]:
    world = known(kubeadm)()
    world.rulesets += dumps
    return [f for f in world.report().findings if f.check == case.check]


@pytest.mark.parametrize("tool", TOOLS)
def test_the_policy_of_forward_is_set_by_the_tool_that_has_it(node: str, tool: str) -> None:
    def dumps() -> list[RulesetDump]:
        return [d for d in read_rulesets("worker1", f"/run/netns/{node}") if d.source in TOOLS]

    inside(node, f"{tool}-restore", "-c", stdin="*filter\n:FORWARD DROP [31:1860]\nCOMMIT\n")
    case = BY_NAME["forward_policy_drops"]
    (finding,) = found(case, dumps())
    typed(node, finding)
    assert ":FORWARD ACCEPT" in "\n".join(saved(node, tool))
    assert found(case, dumps()) == []


@pytest.mark.parametrize(
    ("name", "key", "wrong", "right"),
    [
        ("forwarding_switched_off", "net.ipv4.ip_forward", "0", "1"),
        ("strict_filter_and_another_way_back", "net.ipv4.conf.all.rp_filter", "1", "2"),
    ],
)
def test_a_setting_of_the_kernel_is_set(node: str, name: str, key: str, wrong: str, right: str) -> None:
    inside(node, "sysctl", "-qw", f"{key}={wrong}")
    case = BY_NAME[name]
    finding = next(f for f in report_on(case).findings if f.check == case.check)
    typed(node, finding)
    assert inside(node, "cat", str(Path("/proc/sys", *key.split(".")))).strip() == right


def test_the_list_of_a_chain_that_drops_is_shown_by_the_tool_that_has_it(node: str) -> None:
    inside(node, "iptables-legacy-restore", stdin=HARDENING)
    case = BY_NAME["rule_of_a_hardening_script"]
    finding = next(f for f in report_on(case).findings if f.check == case.check)
    assert "udp dpt:53" in typed(node, finding)
