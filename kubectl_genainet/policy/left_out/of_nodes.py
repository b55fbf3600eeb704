"""Policies of other projects that apply to nodes and are not evaluated: they may stop what reaches or leaves a node.

Source: Antrea documentation, "Antrea Network Policy" (appliedTo with a nodeSelector).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.matching.selectors import EVERYTHING, RawSelector, Selector, selector_of
from kubectl_genainet.policy.rules import HostPolicy
from kubectl_genainet.policy.where import Where

ANTREA = ("crd.antrea.io", "ClusterNetworkPolicy")
_WHY = "it applies to nodes, and Antrea's policies are not evaluated"


def policies_of_nodes(snapshot: ClusterSnapshot) -> Iterator[HostPolicy]:
    """Such policies, for each node that they select; for every node where the nodes are not among the objects."""
    for obj in snapshot.of(ANTREA[1], ANTREA[0]):
        selectors = [_selector(obj, part["nodeSelector"]) for part in _applied(obj) if "nodeSelector" in part]
        if selectors and not snapshot.nodes:
            yield HostPolicy(obj.ref, _WHY)
        for node in snapshot.nodes:
            if any(selector.matches(node.metadata.labels) for selector in selectors):
                yield HostPolicy(obj.ref, _WHY, node.metadata.name, frozenset(node.ips))


def is_of_nodes_alone(obj: KubeObject) -> bool:
    """Whether a policy applies to no pod."""
    parts = _applied(obj)
    return (obj.group, obj.kind) == ANTREA and bool(parts) and all("nodeSelector" in part for part in parts)


def _applied(obj: KubeObject) -> list[dict[str, Any]]:
    """What the policy, and each rule of it, applies to."""
    spec = obj.raw.get("spec")
    spec = spec if isinstance(spec, dict) else {}
    rules = [rule for side in ("ingress", "egress") for rule in _members(spec, side)]
    return [part for place in (spec, *rules) for part in _members(place, "appliedTo")]


def _members(place: dict[str, Any], field: str) -> list[dict[str, Any]]:
    members = place.get(field)
    return [m for m in members if isinstance(m, dict)] if isinstance(members, list) else []


def _selector(obj: KubeObject, raw: Any) -> Selector:
    """A selector; one that selects all where it can't be read."""
    try:
        return selector_of(msgspec.convert(raw, RawSelector), Where(obj).at("spec"))
    except (InputError, msgspec.ValidationError):
        return EVERYTHING
