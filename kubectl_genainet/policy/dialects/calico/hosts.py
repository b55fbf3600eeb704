"""Calico's host endpoints: what they may do to the traffic of nodes, and to that of pods which crosses a node's interface.

None of it is evaluated, so that what hangs on it is unknown. Source: Calico documentation, "Host endpoints" (default behavior of
external traffic to and from a host), "Apply policy to forwarded traffic".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.matching.expressions import parse_selector
from kubectl_genainet.policy.matching.node_peers import ElsewherePeer, OnNodesPeer
from kubectl_genainet.policy.matching.peers import AnyPeer
from kubectl_genainet.policy.model import PolicyFamily, RuleAction
from kubectl_genainet.policy.rules import OTHER_TIER, HostPolicy, Policy, PolicyRule
from kubectl_genainet.policy.where import Where

_GROUPS = ("projectcalico.org", "crd.projectcalico.org")
_OPEN_PROFILE = "projectcalico-default-allow"
_WHY_CLOSED = "it closes what no policy for host endpoints admits, and these are not evaluated"
_WHY_POLICY = "it is about host endpoints, and policies of host endpoints are not evaluated"
_WHY_FORWARDED = "it applies to what host endpoints forward (applyOnForward), which is not evaluated"


class HostEndpoint(msgspec.Struct, frozen=True):
    """One object. `everywhere`: on every interface of the node, those of its pods too."""

    obj: KubeObject
    node: str
    addresses: frozenset[str]
    everywhere: bool
    opened: bool  # by its profile


def host_policies(snapshot: ClusterSnapshot) -> Iterator[HostPolicy]:
    """What may stop traffic of nodes themselves."""
    for endpoint in _endpoints(snapshot):
        selecting = [policy for policy in _global_policies(snapshot) if _selects(policy, endpoint)]
        if not selecting and not endpoint.opened:
            yield _host_policy(endpoint, endpoint.obj, _WHY_CLOSED)
        for policy in selecting:
            yield _host_policy(endpoint, policy, f"{_WHY_POLICY} (it selects {endpoint.obj.ref})")


def forward_policies(snapshot: ClusterSnapshot) -> Iterator[Policy]:
    """What may stop traffic of pods on its way through their nodes: for each policy one in its place."""
    endpoints = tuple(_endpoints(snapshot))
    for policy in _global_policies(snapshot) if endpoints else ():
        spec = _spec(policy)
        if not any(spec.get(field) is True for field in ("applyOnForward", "preDNAT", "doNotTrack")):
            continue
        nodes = frozenset(endpoint.node for endpoint in endpoints if _selects(policy, endpoint))
        if not nodes:
            continue
        own = OnNodesPeer(nodes, "spec.selector")
        rule = PolicyRule(1, RuleAction.DENY, "spec", peers=(ElsewherePeer("spec"),), own=own)
        types = spec.get("types") or [side.capitalize() for side in ("ingress", "egress") if spec.get(side)]
        yield Policy(
            ref=policy.ref,
            family=PolicyFamily.OTHER,
            tier=OTHER_TIER.name,
            subject=AnyPeer(),
            order=(0, policy.name),
            egress=(rule,) if "Egress" in types else (),
            ingress=(rule,) if "Ingress" in types or not types else (),
            not_evaluated=(("spec", _WHY_FORWARDED),),
        )


def _host_policy(endpoint: HostEndpoint, obj: KubeObject, why: str) -> HostPolicy:
    return HostPolicy(obj.ref, why, endpoint.node, endpoint.addresses, own_pods=endpoint.everywhere)


def _endpoints(snapshot: ClusterSnapshot) -> Iterator[HostEndpoint]:
    by_name = {obj.name: obj for group in reversed(_GROUPS) for obj in snapshot.of("HostEndpoint", group)}
    for obj in by_name.values():
        spec = _spec(obj)
        profiles, addresses = spec.get("profiles"), spec.get("expectedIPs")
        yield HostEndpoint(
            obj,
            str(spec.get("node", "")),
            frozenset(map(str, addresses)) if isinstance(addresses, list) else frozenset(),
            everywhere=spec.get("interfaceName") == "*",
            opened=isinstance(profiles, list) and _OPEN_PROFILE in profiles,
        )


def _global_policies(snapshot: ClusterSnapshot) -> list[KubeObject]:
    return [obj for group in _GROUPS for obj in snapshot.of("GlobalNetworkPolicy", group)]


def _selects(policy: KubeObject, endpoint: HostEndpoint) -> bool:
    """Whether a policy selects an endpoint; one that is about pods of namespaces or of service accounts never does."""
    spec = _spec(policy)
    if spec.get("namespaceSelector") or spec.get("serviceAccountSelector"):
        return False
    try:
        return parse_selector(str(spec.get("selector", "")), Where(policy, "spec.selector")).matches(
            endpoint.obj.labels
        )
    except InputError:
        return False  # the API refuses the policy


def _spec(obj: KubeObject) -> dict[str, Any]:
    spec = obj.raw.get("spec")
    return spec if isinstance(spec, dict) else {}
