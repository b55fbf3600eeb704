"""Cilium. Policies are judged by identity (policy/dialects/cilium); here is what that changes for a NetworkPolicy.

Source: Cilium documentation, "Kubernetes NetworkPolicy" (known missing features); pkg/k8s/network_policy.go.
"""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Doubt,
    Enforcer,
    EnforcerName,
    Known,
    OwnNodeClosed,
    Trait,
    UnreadKinds,
    agent,
    any_object,
    first_of,
    running_release,
)
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction

_DOCS = "Cilium documentation, Kubernetes NetworkPolicy"


def _config(snapshot: ClusterSnapshot) -> str:
    return next((str(o.ref) for o in snapshot.of("ConfigMap", "") if o.name == "cilium-config"), "")


_ALWAYS = Deviation(
    "the agent's option enable-policy is always: pods without a policy are isolated in both directions",
    "Cilium documentation, Policy Enforcement Modes",
    Trait.ALL_ISOLATED,
)
_IMAGE = "cilium/cilium(-ci)?|cilium|anetd|(mirrored|hardened)-cilium(-cilium)?"
# Until which release a NetworkPolicy means less than the API says. Sources: cilium/cilium issue 28684, "Port ranges" in the
# notes of 1.16, pull request 30572; issues 24779 and 30003, pull requests 30650 and 44429.
_DOUBTS = (
    ((1, 16), Doubt.END_PORT, "Cilium before 1.16 ignores endPort: of a range, port alone counts"),
    (
        (1, 16),
        Doubt.NAMESPACE_LABELS,
        "Cilium before 1.16 takes a peer by labels of its namespace for one of the policy's own namespace too",
    ),
    ((1, 16), Doubt.DEFAULT_DENY, "Cilium before 1.16 does not know enableDefaultDeny: every rule isolates"),
    ((1, 19), Doubt.DEEP_NAMES, "Cilium before 1.19 takes a leading **. of matchPattern for *., which is one label"),
    (
        (1, 20),
        Doubt.SHARED_NAMES,
        "Cilium before 1.20 may not know what a port by its name is in egress where pods give the name several numbers",
    ),
)
# Source: Cilium documentation, "SCTP support (beta)".
_SCTP = "the agent drops all SCTP unless its option enable-sctp is on, which is off by default"
# Since 1.20 the agent adds the allow for the own node only beside rules for ingress (cilium/cilium issue 48444).
_CLOSED_SINCE, _CLOSED_AT_LEAST_UNTIL = (1, 20), (1, 20, 2)
_CLOSED_TO_NODE = (
    "with enable-policy: always, Cilium 1.20 lets a pod's own node (and so the kubelet's probes) reach it only where some "
    "policy is about its ingress"
)
_ADMIN_GROUP = "policy.networking.k8s.io"
_ADMIN = UnreadKinds(
    _ADMIN_GROUP,
    ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy"),
    "Cilium enforces the policies, and it does not read this kind (only ClusterNetworkPolicy, since 1.20)",
)
_CLUSTER_POLICY = "enable-k8s-cluster-network-policy"
# Options that switch a kind of policy off.
_SWITCHES = (
    ("enable-k8s-networkpolicy", "networking.k8s.io", "NetworkPolicy"),
    ("enable-cilium-network-policy", "cilium.io", "CiliumNetworkPolicy"),
    ("enable-cilium-clusterwide-network-policy", "cilium.io", "CiliumClusterwideNetworkPolicy"),
)


def _configured(enforcer: Enforcer, snapshot: ClusterSnapshot) -> Enforcer:
    """With the options of cilium-config that switch policies off, or on for every pod."""
    obj = next((o for o in snapshot.of("ConfigMap", "") if o.name == "cilium-config"), None)
    data = obj.raw.get("data") if obj is not None else None
    options = {str(k): str(v).lower() for k, v in data.items()} if isinstance(data, dict) else {}
    release = running_release(snapshot, _IMAGE)
    doubts = [(doubt, why) for until, doubt, why in _DOUBTS if release is not None and release < until]
    if options.get("enable-sctp") != "true":
        doubts.append((Doubt.SCTP, _SCTP if obj is not None else f"{_SCTP}; it was not read"))
    changed = msgspec.structs.replace(enforcer, doubts=tuple(doubts))
    if options.get("enable-policy") == "never":
        changed = msgspec.structs.replace(changed, stopped="the agent's option enable-policy is never")
    if options.get("policy-audit-mode") == "true":
        why = "the agent's option policy-audit-mode is on: what policies would drop is logged and passes"
        changed = msgspec.structs.replace(changed, stopped=why)
    if options.get("enable-policy") == "always" and obj is not None:
        deviations = tuple(dict.fromkeys((*changed.deviations, _ALWAYS)))
        closed = _closed_to_own_node(release)
        changed = msgspec.structs.replace(changed, isolates_all=obj.ref, deviations=deviations, own_node_closed=closed)
    off = [UnreadKinds(g, (k,), f"the agent's option {o} is off") for o, g, k in _SWITCHES if options.get(o) == "false"]
    return msgspec.structs.replace(changed, unread=(_ADMIN, _cluster_policies(obj, options), *off))


def _closed_to_own_node(release: tuple[int, ...] | None) -> OwnNodeClosed | None:
    if release is not None and release < _CLOSED_SINCE:
        return None
    return OwnNodeClosed(_CLOSED_TO_NODE, certain=release is not None and release <= _CLOSED_AT_LEAST_UNTIL)


def _cluster_policies(config: KubeObject | None, options: dict[str, str]) -> UnreadKinds:
    kinds = () if options.get(_CLUSTER_POLICY) == "true" else ("ClusterNetworkPolicy",)
    if config is None:
        why = f"Cilium reads this kind since 1.20, where the agent's option {_CLUSTER_POLICY} is on; it was not read"
        return UnreadKinds(_ADMIN_GROUP, kinds, why, certain=False)
    return UnreadKinds(_ADMIN_GROUP, kinds, f"the agent's option {_CLUSTER_POLICY} is off")


CILIUM = Known(
    Enforcer(
        EnforcerName.CILIUM,
        "Cilium",
        deviations=(
            Deviation(
                "to the node that runs the pod, egress is not exempt from NetworkPolicy",
                _DOCS,
                Trait.OWN_NODE,
                directions=(Direction.EGRESS,),
                peers=(PartyKind.HOST,),
                own_node=True,
            ),
            Deviation(
                "an ipBlock selects neither pods nor nodes: these are selected by their labels or as entities",
                _DOCS,
                Trait.BLOCKS,
                peers=(PartyKind.POD, PartyKind.HOST),
            ),
            Deviation(
                "rules apply to pods by the labels of their identity",
                "Cilium documentation, Limiting Identity-Relevant Labels",
                Trait.IDENTITIES,
            ),
            Deviation(
                "rules of a direction that policyTypes leaves out apply, and isolate",
                "Cilium, pkg/k8s/network_policy.go",
                Trait.EVERY_RULE,
            ),
            Deviation(
                "a port by its name is none of a pod that uses its node's network",
                "Cilium, pkg/policy (named ports of endpoints)",
                Trait.NAMED_PORTS,
                directions=(Direction.EGRESS,),
                peers=(PartyKind.HOST,),
            ),
        ),
        to_own_node_exempt=False,
    ),
    first_of(
        agent(_IMAGE),
        _config,
        any_object("cilium.io", "CiliumNode", "CiliumEndpoint"),
    ),
    any_object("cilium.io", "CiliumIdentity", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"),
    _configured,
)
