"""Antrea. Its own policies (crd.antrea.io) go before NetworkPolicies and are not evaluated."""

from __future__ import annotations

from kubectl_genainet.policy.enforcers.base import Enforcer, EnforcerName, Known, agent, any_object

ANTREA = Known(
    Enforcer(EnforcerName.ANTREA, "Antrea"),
    agent("antrea-(ubuntu|ubi|agent-ubuntu|agent-ubi)", "antrea-agent"),
    any_object("crd.antrea.io", "ClusterNetworkPolicy", "NetworkPolicy", "Tier", "AntreaAgentInfo"),
)
