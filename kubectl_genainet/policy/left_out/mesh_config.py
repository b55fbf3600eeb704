"""Istio's setting for the whole mesh that closes the way to what its registry does not have, as a policy that may deny.

Source: Istio, "Global Mesh Options" (outboundTrafficPolicy). What the registry has is not evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.left_out.scopes import MESH_ROOT
from kubectl_genainet.policy.left_out.unevaluated import StandIn, Unevaluated
from kubectl_genainet.policy.matching.mesh import MeshLevel
from kubectl_genainet.policy.matching.node_peers import OutsidePeer
from kubectl_genainet.policy.matching.party import PolicyParty
from kubectl_genainet.policy.matching.peers import YES, Match, no
from kubectl_genainet.policy.model import PolicyFamily, RuleAction, Term
from kubectl_genainet.policy.rules import OTHER_TIER, Policy, PolicyRule

_CONFIG, _CLOSED = "istio", "REGISTRY_ONLY"
_FIELD = "data.mesh: outboundTrafficPolicy.mode"
_WHY = f"outboundTrafficPolicy is {_CLOSED}: the pod's proxy refuses what the mesh's registry does not have"


class _InMeshPeer(msgspec.Struct, frozen=True):
    """Pods whose connections a proxy of the mesh takes."""

    def match(self, party: PolicyParty, own: PolicyParty) -> Match:
        if party.mesh is not MeshLevel.OUTSIDE:
            return YES
        return no(Term.POD, "a pod with a proxy of the mesh", party.text, _FIELD)


def closed_registry(snapshot: ClusterSnapshot) -> Iterator[StandIn]:
    """A policy for each configuration of Istio's that is closed; revisions have one each."""
    for obj in snapshot.of("ConfigMap", ""):
        if obj.namespace == MESH_ROOT and obj.name.partition("-")[0] == _CONFIG and _is_closed(obj):
            rule = PolicyRule(1, RuleAction.DENY, _FIELD, peers=(OutsidePeer(),), not_evaluated=((_FIELD, _WHY),))
            order = (-1, obj.name)
            policy = Policy(obj.ref, PolicyFamily.OTHER, OTHER_TIER.name, _InMeshPeer(), order, egress=(rule,))
            yield StandIn(policy, Unevaluated(obj.ref, _WHY, _FIELD, obj.source))


def _is_closed(config: KubeObject) -> bool:
    data = config.raw.get("data")
    return isinstance(data, dict) and _CLOSED in str(data.get("mesh", ""))
