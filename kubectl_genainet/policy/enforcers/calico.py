"""Calico, also as Canal with Flannel. Source: Calico documentation, "Host endpoints" and "Felix configuration"."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    agent,
    any_object,
    first_of,
)
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction

_KINDS = ("FelixConfiguration", "IPPool", "GlobalNetworkPolicy", "NetworkPolicy", "Tier")

_NODE_CLOSED = Deviation(
    "defaultEndpointToHostAction is Drop: what a pod sends to its own node is dropped, with or without policies",
    "Calico documentation, Felix configuration: defaultEndpointToHostAction",
    Trait.NODE_CLOSED,
    directions=(Direction.EGRESS,),
    peers=(PartyKind.HOST,),
    own_node=True,
)


def _configured(enforcer: Enforcer, snapshot: ClusterSnapshot) -> Enforcer:
    """With Felix' action for traffic from a pod to its own node, where it is set to Drop."""
    for group in ("projectcalico.org", "crd.projectcalico.org"):
        for obj in snapshot.of("FelixConfiguration", group):
            spec = obj.raw.get("spec")
            action = spec.get("defaultEndpointToHostAction") if isinstance(spec, dict) else None
            if obj.name == "default" and str(action).lower() == "drop":
                deviations = tuple(dict.fromkeys((*enforcer.deviations, _NODE_CLOSED)))
                return msgspec.structs.replace(enforcer, node_closed=obj.ref, deviations=deviations)
    return enforcer


CALICO = Known(
    Enforcer(
        EnforcerName.CALICO,
        "Calico",
        deviations=(
            Deviation(
                "egress policy applies before the traffic reaches the pod's own node: that node is not exempt",
                "Calico documentation, Protect hosts: traffic from a workload to its host",
                Trait.OWN_NODE,
                directions=(Direction.EGRESS,),
                peers=(PartyKind.HOST,),
                own_node=True,
            ),
        ),
        to_own_node_exempt=False,
    ),
    agent("calico/node|calico-node"),
    first_of(
        any_object("operator.tigera.io", "Installation"),
        any_object("crd.projectcalico.org", *_KINDS),
        any_object("projectcalico.org", *_KINDS),
    ),
    _configured,
)
