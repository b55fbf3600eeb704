"""What Calico documents."""

from __future__ import annotations

from typing import Any

from tests.unit.policy.documented.base import (
    CHAT,
    FROM_B,
    NODE2,
    WEB,
    Documented,
    kind,
)
from tests.unit.policy.policy_cluster import (
    Raw,
)

PC = "projectcalico.org/v3"


def tier(name: str, order: int, **more: Any) -> Raw:
    return {"apiVersion": PC, "kind": "Tier", "metadata": {"name": name}, "spec": {"order": order, **more}}


def calico(name: str, where: str = "a", **spec: Any) -> Raw:
    if not where:
        return {"apiVersion": PC, "kind": "GlobalNetworkPolicy", "metadata": {"name": name}, "spec": spec}
    return {"apiVersion": PC, "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": where}, "spec": spec}


DENY, ALLOW, PASS = {"action": "Deny"}, {"action": "Allow"}, {"action": "Pass"}
IN: Raw = {"types": ["Ingress"]}
HOST = {
    "apiVersion": PC,
    "kind": "HostEndpoint",
    "metadata": {"name": "n2", "labels": {"host": "x"}},
    "spec": {"node": "n2", "interfaceName": "*", "expectedIPs": [NODE2]},
}
# Calico: Get started with policy tiers, staged network policies, protect hosts, NetworkPolicy reference.
CALICO_CASES = [
    Documented(
        "a staged policy is not enforced",
        "calico",
        (kind(PC, "StagedNetworkPolicy", where="a", **IN, ingress=[DENY]),),
        CHAT,
        WEB,
        "allow",
    ),
    Documented(
        "nor a staged global one",
        "calico",
        (kind(PC, "StagedGlobalNetworkPolicy", **IN, ingress=[DENY]),),
        CHAT,
        WEB,
        "allow",
    ),
    Documented(
        "nor a staged one of Kubernetes",
        "calico",
        (kind(PC, "StagedKubernetesNetworkPolicy", where="a", podSelector={}, ingress=[]),),
        CHAT,
        WEB,
        "allow",
    ),
    Documented(
        "an earlier tier decides first",
        *(
            "calico",
            (
                tier("security", 100),
                calico("security.x", tier="security", **IN, ingress=[DENY]),
                calico("x", **IN, ingress=[ALLOW]),
            ),
            CHAT,
            WEB,
            "deny",
        ),
    ),
    Documented(
        "Pass goes on to the next tier",
        *(
            "calico",
            (
                tier("security", 100),
                calico("security.x", tier="security", **IN, ingress=[PASS]),
                calico("x", **IN, ingress=[DENY]),
            ),
            CHAT,
            WEB,
            "deny",
        ),
    ),
    Documented(
        "a tier ends in its default action, Deny",
        *(
            "calico",
            (
                tier("security", 100),
                calico(
                    "security.x", tier="security", **IN, ingress=[{**ALLOW, "source": {"selector": "app == 'nobody'"}}]
                ),
            ),
            CHAT,
            WEB,
            "deny",
        ),
    ),
    Documented(
        "or Pass",
        *(
            "calico",
            (
                tier("security", 100, defaultAction="Pass"),
                calico(
                    "security.x", tier="security", **IN, ingress=[{**ALLOW, "source": {"selector": "app == 'nobody'"}}]
                ),
            ),
            CHAT,
            WEB,
            "allow",
        ),
    ),
    Documented(
        "lower order goes first",
        "calico",
        (calico("x", order=10, **IN, ingress=[ALLOW]), calico("y", order=20, **IN, ingress=[DENY])),
        CHAT,
        WEB,
        "allow",
    ),
    Documented(
        "NetworkPolicies have order 1000",
        "calico",
        (FROM_B, calico("y", order=2000, **IN, ingress=[DENY])),
        CHAT,
        WEB,
        "allow",
    ),
    Documented(
        "and yield to lower ones", "calico", (FROM_B, calico("y", order=500, **IN, ingress=[DENY])), CHAT, WEB, "deny"
    ),
    Documented(
        "types leave the other direction open",
        "calico",
        (calico("x", types=["Egress"], egress=[DENY]),),
        CHAT,
        WEB,
        "allow",
    ),
    Documented(
        "a rule for ICMP is not for TCP",
        "calico",
        (calico("x", **IN, ingress=[{**ALLOW, "protocol": "ICMP"}]),),
        CHAT,
        WEB,
        "deny",
    ),
    Documented(
        "a namespace's policy is not for others",
        "calico",
        (calico("x", "b", **IN, ingress=[DENY]),),
        CHAT,
        WEB,
        "allow",
    ),
    Documented(
        "a global one is, by namespaceSelector",
        "calico",
        (calico("x", "", namespaceSelector="kubernetes.io/metadata.name == 'a'", **IN, ingress=[DENY]),),
        CHAT,
        WEB,
        "deny",
    ),
    Documented(
        "to a host endpoint that a policy selects is not evaluated",
        "calico",
        (HOST, calico("x", "", selector="host == 'x'", **IN, ingress=[DENY])),
        WEB,
        NODE2,
        "unknown",
    ),
]
