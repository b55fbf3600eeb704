"""Cilium. Policies are judged by identity (policy/dialects/cilium); here is what that changes for a NetworkPolicy.

Source: Cilium documentation, "Kubernetes NetworkPolicy" (known missing features); pkg/k8s/network_policy.go.
"""

from __future__ import annotations

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import Deviation, Enforcer, EnforcerName, Known, agent, any_object, first_of
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.party import PartyKind

_DOCS = "Cilium documentation, Kubernetes NetworkPolicy"


def _config(snapshot: ClusterSnapshot) -> str:
    return next((str(o.ref) for o in snapshot.of("ConfigMap", "") if o.name == "cilium-config"), "")


CILIUM = Known(
    Enforcer(
        EnforcerName.CILIUM,
        "Cilium",
        deviations=(
            Deviation(
                "to the node that runs the pod, egress is not exempt from NetworkPolicy",
                _DOCS,
                directions=(Direction.EGRESS,),
                peers=(PartyKind.HOST,),
                own_node=True,
            ),
            Deviation(
                "an ipBlock selects neither pods nor nodes: these are selected by their labels or as entities",
                _DOCS,
                peers=(PartyKind.POD, PartyKind.HOST),
            ),
            Deviation(
                "rules apply to pods by the labels of their identity",
                "Cilium documentation, Limiting Identity-Relevant Labels",
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
)
