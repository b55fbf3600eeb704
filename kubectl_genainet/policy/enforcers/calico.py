"""Calico, also as Canal with Flannel. Source: Calico documentation, "Host endpoints" and "Felix configuration"."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Doubt,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    agent,
    any_object,
    first_of,
    running_release,
)
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction

# As Calico, Rancher's mirror and RKE2 name it; Calico Enterprise has releases of its own.
_IMAGE, _ENTERPRISE = "calico/node|(mirrored-)?calico-node|hardened-calico", "tigera/(cnx-)?node"
_SIDECARS_SINCE = (3, 29)  # projectcalico/calico pull request 8885
_SIDECARS = "Calico before 3.29 may not know the named ports of sidecars (init containers that keep running)"
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
    """With what its release is in doubt of, Felix' data plane, and its action for traffic from a pod to its own node."""
    release = running_release(snapshot, _IMAGE)
    if release is not None and release < _SIDECARS_SINCE:
        enforcer = msgspec.structs.replace(enforcer, doubts=((Doubt.SIDECAR_PORTS, _SIDECARS),))
    for group in ("projectcalico.org", "crd.projectcalico.org"):
        for obj in snapshot.of("FelixConfiguration", group):
            spec = obj.raw.get("spec")
            if obj.name != "default" or not isinstance(spec, dict):
                continue
            if spec.get("bpfEnabled") is True:  # Calico documentation, "eBPF data plane": source IP preservation
                enforcer = msgspec.structs.replace(enforcer, keeps_clients=True)
            if str(spec.get("defaultEndpointToHostAction")).lower() == "drop":
                deviations = tuple(dict.fromkeys((*enforcer.deviations, _NODE_CLOSED)))
                enforcer = msgspec.structs.replace(enforcer, node_closed=obj.ref, deviations=deviations)
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
    first_of(agent(_IMAGE), agent(_ENTERPRISE)),
    first_of(
        any_object("operator.tigera.io", "Installation"),
        any_object("crd.projectcalico.org", *_KINDS),
        any_object("projectcalico.org", *_KINDS),
    ),
    _configured,
)
