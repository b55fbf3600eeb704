"""kube-network-policies and kindnetd, Azure NPM, Weave.

tests/oracles/test_packets.py compares with what kube-network-policies does to real packets.
"""

from __future__ import annotations

import re

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import (
    Deviation,
    Doubt,
    Enforcer,
    EnforcerName,
    Known,
    Trait,
    agent,
    first_of,
    running,
)

# The first release of kindnetd that enforces policies (kind 0.24); its tags are dates.
_KINDNETD_ENFORCES = "20240813"


def _kindnetd(snapshot: ClusterSnapshot) -> str:
    for obj, container in running(snapshot, "kindnetd"):
        date = re.search(r":v(\d{8})", str(container.get("image", "")))
        if date and date.group(1) >= _KINDNETD_ENFORCES:
            return str(obj.ref)
    return ""


_BASELINE = Deviation(
    "a NetworkPolicy that selects a pod keeps the BaselineAdminNetworkPolicy from being consulted for it in both directions, "
    "whatever its policyTypes",
    "kube-network-policies 0.8, pkg/networkpolicy/controller.go; seen with packets",
    Trait.BASELINE,
)

KUBE_NETWORK_POLICIES = Known(
    Enforcer(EnforcerName.KUBE_NETWORK_POLICIES, "kube-network-policies", deviations=(_BASELINE,)),
    first_of(agent("kube-network-policies"), _kindnetd),
)
AZURE_NPM = Known(
    Enforcer(EnforcerName.AZURE_NPM, "Azure Network Policy Manager"), agent("containernetworking/azure-npm|azure-npm")
)
# weaveworks/weave issues 3032 and 3785.
_NAMES = "Weave Net does not support ports by their names: its controller ends at a policy that has one"
WEAVE = Known(Enforcer(EnforcerName.WEAVE, "Weave Net", doubts=((Doubt.NAMES, _NAMES),)), agent("weave-npc"))
