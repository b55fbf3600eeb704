"""kube-router, where its firewall runs, and K3s, which has its network policy controller built in.

Sources: kube-router documentation, user guide (--run-firewall, on by default); K3s, "Network Policy Controller" (on unless a
server has --disable-network-policy) and its annotation of nodes with their arguments.
tests/cluster/test_kube_router.py compares with what kube-router does to real packets.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    arguments_of,
    running,
)
from kubectl_genainet.policy.matching.party import PartyKind

_FIREWALL_OFF, _NO_POLICIES = "--run-firewall=false", "--disable-network-policy"
_NODE_ARGUMENTS = "k3s.io/node-args"


def _find(snapshot: ClusterSnapshot) -> str:
    for obj, container in running(snapshot, "kube-router"):
        if _FIREWALL_OFF not in arguments_of(container):
            return str(obj.ref)
    return next((name for name, arguments in _k3s_servers(snapshot) if not _switched_off(arguments)), "")


def without_policies(snapshot: ClusterSnapshot) -> str:
    """What shows that kube-router or K3s is there and told to leave policies alone."""
    for obj, container in running(snapshot, "kube-router"):
        if _FIREWALL_OFF in arguments_of(container):
            return str(obj.ref)
    return next((name for name, arguments in _k3s_servers(snapshot) if _switched_off(arguments)), "")


def _k3s_servers(snapshot: ClusterSnapshot) -> Iterator[tuple[str, list[str]]]:
    for node in snapshot.of("Node", ""):
        try:
            arguments = msgspec.json.decode(str(node.annotations.get(_NODE_ARGUMENTS, "[]")), type=list[str])
        except DECODE_ERRORS:
            continue
        if arguments[:1] == ["server"]:
            yield str(node.ref), arguments


def _switched_off(arguments: list[str]) -> bool:
    following = dict(zip(arguments, [*arguments[1:], ""], strict=True))
    return f"{_NO_POLICIES}=true" in arguments or following.get(_NO_POLICIES, "false").lower() != "false"


_ONE_CHAIN = Deviation(
    "the rules of both directions of a policy stand in one chain (KUBE-NWPLCY-…): between two pods that the policy selects, "
    "a rule for egress admits ingress too, and the reverse",
    "kube-router 2.1, pkg/controllers/netpol/policy.go; seen with packets",
    Trait.ONE_CHAIN,
    peers=(PartyKind.POD,),
)

KUBE_ROUTER = Known(Enforcer(EnforcerName.KUBE_ROUTER, "kube-router", deviations=(_ONE_CHAIN,)), _find)
