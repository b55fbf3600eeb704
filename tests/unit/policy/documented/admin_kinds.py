"""What OVN-Kubernetes and Antrea document of their own kinds and of administrators' policies."""

from __future__ import annotations

from tests.unit.policy.documented.base import (
    CHAT,
    CLOSED_IN,
    CLOSED_OUT,
    DB,
    DENY_B,
    FIREWALL,
    FROM_B,
    NAME,
    NODE2,
    OVN,
    WEB,
    WORLD,
    Documented,
    anp,
    banp,
    kind,
)
from tests.unit.policy.policy_cluster import (
    labels,
)

OVN_CASES = [
    Documented("an EgressFirewall is about what leaves the cluster", OVN, (FIREWALL,), WEB, WORLD, "unknown"),
    Documented("and not about pods of the cluster", OVN, (FIREWALL,), WEB, CHAT, "allow"),
    Documented("it is its namespace's", OVN, (FIREWALL,), CHAT, WORLD, "allow"),
    Documented("it is for egress only", OVN, (FIREWALL,), WORLD, WEB, "allow"),
    Documented("a NetworkPolicy denies beside it", OVN, (FIREWALL, CLOSED_OUT), WEB, WORLD, "deny"),
    Documented(
        "an AdminNetworkPolicy goes before NetworkPolicies", OVN, (anp(5, ingress=[DENY_B]), FROM_B), CHAT, WEB, "deny"
    ),
    Documented(
        "Pass leaves it to NetworkPolicies",
        OVN,
        (anp(5, ingress=[{**DENY_B, "action": "Pass"}]), CLOSED_IN),
        CHAT,
        WEB,
        "deny",
    ),
    Documented(
        "Pass without a NetworkPolicy leaves it to the baseline",
        *(OVN, (anp(5, ingress=[{**DENY_B, "action": "Pass"}]), banp(ingress=[DENY_B])), CHAT, WEB, "deny"),
    ),
    Documented("the baseline yields to a NetworkPolicy", OVN, (banp(ingress=[DENY_B]), FROM_B), CHAT, WEB, "allow"),
    Documented(
        "of two, the lower priority decides",
        *(OVN, (anp(9, ingress=[DENY_B]), anp(3, ingress=[{**DENY_B, "action": "Allow"}])), CHAT, WEB, "allow"),
    ),
    Documented(
        "nodes are selected by their labels",
        *(OVN, (anp(5, egress=[{"action": "Deny", "to": [{"nodes": labels(role="infra")}]}]),), WEB, NODE2, "deny"),
    ),
    Documented(
        "and other nodes are not",
        *(
            OVN,
            (anp(5, egress=[{"action": "Deny", "to": [{"nodes": labels(role="infra")}]}]),),
            WEB,
            "192.168.0.7",
            "allow",
        ),
    ),
    Documented(
        "networks are blocks of addresses",
        *(OVN, (anp(5, egress=[{"action": "Deny", "to": [{"networks": ["203.0.113.0/24"]}]}]),), WEB, WORLD, "deny"),
    ),
    Documented(
        "EgressIP chooses an address and stops nothing",
        OVN,
        (kind("k8s.ovn.org/v1", "EgressIP", egressIPs=["192.168.0.9"]),),
        WEB,
        WORLD,
        "allow",
    ),
    Documented(
        "EgressQoS marks and stops nothing",
        OVN,
        (kind("k8s.ovn.org/v1", "EgressQoS", where="a", egress=[{"dscp": 46}]),),
        WEB,
        WORLD,
        "allow",
    ),
]

ANTREA = "antrea"
DROP = [{"action": "Drop", "from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}]
FOR_A = [{"namespaceSelector": labels(**{NAME: "a"})}]
ACNP = kind(
    "crd.antrea.io/v1beta1", "ClusterNetworkPolicy", priority=5, tier="securityops", appliedTo=FOR_A, ingress=DROP
)
ANNP = kind(
    "crd.antrea.io/v1beta1",
    "NetworkPolicy",
    where="a",
    priority=5,
    appliedTo=[{"podSelector": labels(app="db")}],
    ingress=DROP,
)
# Antrea: Antrea Network Policy CRDs. Its tiers go before NetworkPolicies, its baseline tier after them.
ANTREA_CASES = [
    Documented("its cluster policy may drop", ANTREA, (ACNP,), CHAT, WEB, "unknown"),
    Documented("only where it is applied to", ANTREA, (ACNP,), WEB, CHAT, "allow"),
    Documented("and in its direction", ANTREA, (ACNP,), WEB, WORLD, "allow"),
    Documented("it may admit what a NetworkPolicy does not", ANTREA, (ACNP, CLOSED_IN), CHAT, WEB, "unknown"),
    Documented("its policy of a namespace is for the pods that it selects", ANTREA, (ANNP,), CHAT, DB, "unknown"),
    Documented("and for no others", ANTREA, (ANNP,), CHAT, WEB, "allow"),
    Documented("nor in other namespaces", ANTREA, (ANNP,), WEB, CHAT, "allow"),
    Documented(
        "a tier alone stops nothing", ANTREA, (kind("crd.antrea.io/v1beta1", "Tier", priority=20),), CHAT, WEB, "allow"
    ),
    Documented(
        "nor does a group", ANTREA, (kind("crd.antrea.io/v1beta1", "ClusterGroup", podSelector={}),), CHAT, WEB, "allow"
    ),
    Documented("NetworkPolicies are enforced", ANTREA, (CLOSED_IN,), CHAT, WEB, "deny"),
]
