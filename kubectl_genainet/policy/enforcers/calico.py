"""Calico, also as Canal with Flannel. Source: Calico documentation, "Host endpoints" and "Felix configuration"."""

from __future__ import annotations

from kubectl_genainet.policy.enforcers.base import Deviation, Enforcer, EnforcerName, Known, agent, any_object, first_of
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.policy.party import PartyKind

_KINDS = ("FelixConfiguration", "IPPool", "GlobalNetworkPolicy", "NetworkPolicy", "Tier")

CALICO = Known(
    Enforcer(
        EnforcerName.CALICO,
        "Calico",
        deviations=(
            Deviation(
                "egress policy applies before the traffic reaches the pod's own node: that node is not exempt",
                "Calico documentation, Protect hosts: traffic from a workload to its host",
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
)
