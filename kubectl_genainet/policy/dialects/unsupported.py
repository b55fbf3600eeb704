"""Policies that are not evaluated: kinds of other projects, and kinds that could not be read.

Each becomes a policy whose rules may match: where the verdict hangs on it, it is UNKNOWN and the kind is named.
"""

from __future__ import annotations

from typing import NamedTuple

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.model import Action, Direction, Family
from kubectl_genainet.policy.peers import AnyPeer, Peer, PodsPeer, UnknownPeer
from kubectl_genainet.policy.rules import ADMIN_TIER, BASELINE_TIER, DEFAULT_TIER, Policy, Rule, Tier
from kubectl_genainet.policy.selectors import EVERYTHING, Operator, Requirement, Selector

OTHER_TIER = Tier("other", 0)  # before all tiers that are evaluated


class OtherKind(NamedTuple):
    """A kind that restricts traffic by rules of its own; `admits` if it can also let pass what others would drop."""

    group: str
    kind: str
    admits: bool
    directions: tuple[Direction, ...] = (Direction.EGRESS, Direction.INGRESS)


OTHER_KINDS = (
    OtherKind("crd.antrea.io", "ClusterNetworkPolicy", True),
    OtherKind("crd.antrea.io", "NetworkPolicy", True),
    OtherKind("k8s.ovn.org", "EgressFirewall", False, (Direction.EGRESS,)),
    OtherKind("network.openshift.io", "EgressNetworkPolicy", False, (Direction.EGRESS,)),
    OtherKind("kubeovn.io", "SecurityGroup", False),
    OtherKind("security.istio.io", "AuthorizationPolicy", False, (Direction.INGRESS,)),
    OtherKind("policy.linkerd.io", "Server", False, (Direction.INGRESS,)),
)
_MESH_ROOT = "istio-system"

# kind -> tier: where its policies would be consulted, had they been read
_READ_KINDS = {
    "NetworkPolicy": DEFAULT_TIER,
    "AdminNetworkPolicy": ADMIN_TIER,
    "BaselineAdminNetworkPolicy": BASELINE_TIER,
    "ClusterNetworkPolicy": ADMIN_TIER,
    "CiliumNetworkPolicy": DEFAULT_TIER,
    "CiliumClusterwideNetworkPolicy": DEFAULT_TIER,
    "GlobalNetworkPolicy": DEFAULT_TIER,
}


def not_evaluated_policies(snapshot: ClusterSnapshot) -> list[Policy]:
    """A stand-in for every object of a kind that is not evaluated, and for every policy kind that could not be read."""
    found = []
    for other in OTHER_KINDS:
        for obj in snapshot.of(other.kind, other.group):
            found.append(_stand_in_for(obj, other))
    for left_out in snapshot.left_out:
        tier = _READ_KINDS.get(left_out.kind)
        if tier is not None:
            why = f"{left_out.kind} objects could not be read: {left_out.reason}"
            found.append(_stand_in(ObjectRef(left_out.kind, "*"), AnyPeer(), tier, True, tuple(Direction), why))
    return found


def _stand_in_for(obj: KubeObject, other: OtherKind) -> Policy:
    subject: Peer = PodsPeer(namespace=obj.namespace) if obj.namespace else AnyPeer()
    if other.group == "security.istio.io":
        root = obj.namespace == _MESH_ROOT
        subject = PodsPeer(_match_labels(obj), namespace="" if root else obj.namespace)
    why = f"{other.kind} ({other.group}) is not evaluated"
    return _stand_in(obj.ref, subject, OTHER_TIER, other.admits, other.directions, why)


def _match_labels(obj: KubeObject) -> Selector:
    labels = obj.raw.get("spec", {}).get("selector", {}).get("matchLabels", {})
    if not isinstance(labels, dict):
        return EVERYTHING
    return Selector(tuple(Requirement(str(k), Operator.IN, (str(v),)) for k, v in labels.items()))


def _stand_in(
    ref: ObjectRef, subject: Peer, tier: Tier, admits: bool, directions: tuple[Direction, ...], why: str
) -> Policy:
    peers = (UnknownPeer("", why),)
    rules: tuple[Rule, ...] = (Rule(1, Action.ALLOW, "", peers=peers),) if admits else ()
    rules += (Rule(len(rules) + 1, Action.DENY, "", peers=peers),)
    return Policy(
        ref=ref,
        family=Family.ADMIN if tier is not DEFAULT_TIER else Family.NETWORK_POLICY,
        tier=tier.name,
        subject=subject,
        order=(-1, ref.name),
        egress=rules if Direction.EGRESS in directions else (),
        ingress=rules if Direction.INGRESS in directions else (),
    )
