"""kube-router, where its firewall runs. Source: kube-router documentation, user guide (--run-firewall, on by default).

tests/cluster/test_kube_router.py compares with what kube-router does to real packets.
"""

from __future__ import annotations

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    arguments_of,
    running,
)
from kubectl_genainet.policy.matching.party import PartyKind


def _find(snapshot: ClusterSnapshot) -> str:
    for obj, container in running(snapshot, "kube-router"):
        if "--run-firewall=false" not in arguments_of(container):
            return str(obj.ref)
    return ""


_ONE_CHAIN = Deviation(
    "the rules of both directions of a policy stand in one chain (KUBE-NWPLCY-…): between two pods that the policy selects, "
    "a rule for egress admits ingress too, and the reverse",
    "kube-router 2.1, pkg/controllers/netpol/policy.go; seen with packets",
    Trait.ONE_CHAIN,
    peers=(PartyKind.POD,),
)

KUBE_ROUTER = Known(Enforcer(EnforcerName.KUBE_ROUTER, "kube-router", deviations=(_ONE_CHAIN,)), _find)
