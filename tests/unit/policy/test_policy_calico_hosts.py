"""Calico's host endpoints may stop the traffic of nodes, and of pods that crosses a node's interface."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.policy.policy_cluster import Raw, ask, engine, namespace, node, pod, verdict

PODS = (
    namespace("ai"),
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2"),
    pod("ai/rag", "10.1.0.2", node="n1"),
    pod("ai/llama", "10.1.0.3", node="n1"),
    pod("ai/far", "10.1.0.4", node="n2", labels={"app": "llama"}),
)


def endpoint(**spec: Any) -> Raw:
    spec = {"node": "n1", "interfaceName": "eth0", "expectedIPs": ["192.168.0.1"], **spec}
    metadata = {"name": "n1-eth0", "labels": {"host": "yes"}}
    return {"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint", "metadata": metadata, "spec": spec}


def policy(**spec: Any) -> Raw:
    spec = {"selector": "has(host)", "types": ["Ingress"], "ingress": [{"action": "Deny"}], **spec}
    return {
        "apiVersion": "projectcalico.org/v3",
        "kind": "GlobalNetworkPolicy",
        "metadata": {"name": "hosts"},
        "spec": spec,
    }


OPEN = {"interfaceName": "*", "profiles": ["projectcalico-default-allow"]}


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ((endpoint(),), "unknown"),  # it closes what no policy admits
        ((endpoint(**OPEN),), "allow"),
        ((endpoint(**OPEN), policy()), "unknown"),
        ((endpoint(**OPEN), policy(selector="host == 'no'")), "allow"),
        ((endpoint(**OPEN), policy(namespaceSelector="all()")), "allow"),  # pods of namespaces
        ((endpoint(node="n2", expectedIPs=["192.168.0.2"]),), "allow"),
    ],
)
def test_what_reaches_a_node_hangs_on_its_host_endpoint(objects: tuple[Raw, ...], expected: str) -> None:
    answer = ask(engine(*PODS, *objects), "203.0.113.9", "192.168.0.1", 9100)
    assert answer.verdict.value == expected
    if expected == "unknown":
        assert any(note.policy.endswith(("n1-eth0", "hosts")) for note in answer.not_evaluated)


def test_an_interface_of_the_node_is_not_between_it_and_its_own_pods() -> None:
    assert verdict(engine(*PODS, endpoint()), "192.168.0.1", "ai/rag") == "allow"
    assert verdict(engine(*PODS, endpoint(interfaceName="*")), "192.168.0.1", "ai/rag") == "unknown"


@pytest.mark.parametrize(
    ("source", "target", "spec", "expected"),
    [
        ("203.0.113.9", "ai/rag", {"applyOnForward": True}, "unknown"),
        ("203.0.113.9", "ai/rag", {"applyOnForward": True, "preDNAT": True}, "unknown"),
        ("203.0.113.9", "ai/rag", {}, "allow"),  # what is forwarded passes
        ("203.0.113.9", "ai/far", {"applyOnForward": True}, "allow"),  # by way of another node
        ("ai/far", "ai/llama", {"applyOnForward": True}, "unknown"),
        ("ai/llama", "ai/rag", {"applyOnForward": True}, "allow"),  # on one node
        ("ai/rag", "203.0.113.9", {"applyOnForward": True}, "allow"),  # it is about ingress
        ("ai/rag", "203.0.113.9", {"applyOnForward": True, "types": ["Egress"]}, "unknown"),
    ],
)
def test_what_a_node_forwards_to_and_from_its_pods_hangs_on_policies_that_say_so(
    source: str, target: str, spec: dict[str, Any], expected: str
) -> None:
    assert verdict(engine(*PODS, endpoint(), policy(**spec)), source, target) == expected
