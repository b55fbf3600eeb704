"""What Cilium documents."""

from __future__ import annotations

from typing import Any

from tests.unit.policy.documented.base import (
    CHAT,
    NODE2,
    WEB,
    WORLD,
    Documented,
    kind,
)
from tests.unit.policy.policy_cluster import (
    Raw,
    labels,
)

CNP = "cilium.io/v2"


def ccnp(**spec: Any) -> Raw:
    return kind(CNP, "CiliumClusterwideNetworkPolicy", **{"endpointSelector": labels(app="web"), **spec})


# Cilium: Network Policy (layers 3, 4 and 7, deny policies, host policies, ICMP).
CILIUM_CASES = [
    Documented(
        "the entity cluster is not the world",
        "cilium",
        (ccnp(ingress=[{"fromEntities": ["cluster"]}]),),
        WORLD,
        WEB,
        "deny",
    ),
    Documented("it is pods and nodes", "cilium", (ccnp(ingress=[{"fromEntities": ["cluster"]}]),), CHAT, WEB, "allow"),
    Documented(
        "remote nodes are an entity",
        "cilium",
        (ccnp(ingress=[{"fromEntities": ["remote-node"]}]),),
        NODE2,
        WEB,
        "allow",
    ),
    Documented(
        "which is not the own host", "cilium", (ccnp(ingress=[{"fromEntities": ["remote-node"]}]),), CHAT, WEB, "deny"
    ),
    Documented(
        "deny goes before allow",
        "cilium",
        (ccnp(egress=[{"toEntities": ["all"]}], egressDeny=[{"toEntities": ["world"]}]),),
        WEB,
        WORLD,
        "deny",
    ),
    Documented(
        "and is for what it names",
        "cilium",
        (ccnp(egress=[{"toEntities": ["all"]}], egressDeny=[{"toEntities": ["world"]}]),),
        WEB,
        CHAT,
        "allow",
    ),
    Documented(
        "an ICMP rule admits no TCP",
        "cilium",
        (ccnp(ingress=[{"icmps": [{"fields": [{"type": 8, "family": "IPv4"}]}]}]),),
        CHAT,
        WEB,
        "deny",
    ),
    Documented(
        "a deny rule alone isolates", "cilium", (ccnp(ingressDeny=[{"fromEntities": ["world"]}]),), CHAT, WEB, "deny"
    ),
    Documented(
        "unless it says that it does not",
        *(
            "cilium",
            (ccnp(enableDefaultDeny={"ingress": False}, ingressDeny=[{"fromEntities": ["world"]}]),),
            CHAT,
            WEB,
            "allow",
        ),
    ),
    Documented(
        "a host policy is about nodes",
        "cilium",
        (kind(CNP, "CiliumClusterwideNetworkPolicy", nodeSelector={}, ingress=[{"fromEntities": ["cluster"]}]),),
        CHAT,
        WEB,
        "allow",
    ),
    Documented(
        "and what reaches a node is not evaluated",
        "cilium",
        (kind(CNP, "CiliumClusterwideNetworkPolicy", nodeSelector={}, ingress=[{"fromEntities": ["cluster"]}]),),
        WEB,
        NODE2,
        "unknown",
    ),
    Documented(
        "mutual authentication may refuse",
        "cilium",
        (ccnp(ingress=[{"fromEndpoints": [{}], "authentication": {"mode": "required"}}]),),
        CHAT,
        WEB,
        "unknown",
    ),
    Documented(
        "an egress gateway stops nothing",
        "cilium",
        (kind(CNP, "CiliumEgressGatewayPolicy", selectors=[{"podSelector": {}}], destinationCIDRs=["0.0.0.0/0"]),),
        WEB,
        WORLD,
        "allow",
    ),
]
