"""Enforcers without a documented deviation that decides a verdict."""

from __future__ import annotations

import re

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import Enforcer, EnforcerName, Known, agent, first_of, running

# The first release of kindnetd that enforces policies (kind 0.24); its tags are dates.
_KINDNETD_ENFORCES = "20240813"


def _kindnetd(snapshot: ClusterSnapshot) -> str:
    for obj, container in running(snapshot, "kindnetd"):
        date = re.search(r":v(\d{8})", str(container.get("image", "")))
        if date and date.group(1) >= _KINDNETD_ENFORCES:
            return str(obj.ref)
    return ""


KUBE_NETWORK_POLICIES = Known(
    Enforcer(EnforcerName.KUBE_NETWORK_POLICIES, "kube-network-policies"),
    first_of(agent("kube-network-policies"), _kindnetd),
)
AZURE_NPM = Known(
    Enforcer(EnforcerName.AZURE_NPM, "Azure Network Policy Manager"), agent("containernetworking/azure-npm|azure-npm")
)
WEAVE = Known(Enforcer(EnforcerName.WEAVE, "Weave Net"), agent("weave-npc"))
