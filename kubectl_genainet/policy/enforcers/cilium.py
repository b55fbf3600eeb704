"""Cilium. Policies are judged by identity (policy/dialects/cilium); here is what that changes for a NetworkPolicy.

Source: Cilium documentation, "Kubernetes NetworkPolicy" (known missing features); pkg/k8s/network_policy.go.
"""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    UnreadKinds,
    agent,
    any_object,
    first_of,
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
    changed = enforcer
    if options.get("enable-policy") == "never":
        changed = msgspec.structs.replace(changed, stopped="the agent's option enable-policy is never")
    if options.get("policy-audit-mode") == "true":
        why = "the agent's option policy-audit-mode is on: what policies would drop is logged and passes"
        changed = msgspec.structs.replace(changed, stopped=why)
    if options.get("enable-policy") == "always" and obj is not None:
        deviations = tuple(dict.fromkeys((*changed.deviations, _ALWAYS)))
        changed = msgspec.structs.replace(changed, isolates_all=obj.ref, deviations=deviations)
    off = [UnreadKinds(g, (k,), f"the agent's option {o} is off") for o, g, k in _SWITCHES if options.get(o) == "false"]
    return msgspec.structs.replace(changed, unread=(_ADMIN, _cluster_policies(obj, options), *off))


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
        agent("cilium/cilium(-ci)?|cilium|anetd"),
        _config,
        any_object("cilium.io", "CiliumNode", "CiliumEndpoint"),
    ),
    any_object("cilium.io", "CiliumIdentity", "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"),
    _configured,
)
