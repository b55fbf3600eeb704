"""What a pod sends to a link-local address that its own node may have: a DNS cache, the EKS Pod Identity agent.

Cilium knows an address of the node as the entity host, which no block selects, and any other as the world; which of both a
link-local address is depends on when the agent saw it (cilium/cilium issues 18644, 34387 and 34956). Those of 169.254.169.0/24
are the cloud's.
"""

from __future__ import annotations

import ipaddress

import msgspec

from kubectl_genainet.policy.enforcers import EnforcerName
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.cidr import Address
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction, Explanation, PolicyFlow, both

_LINK_LOCAL = ipaddress.ip_network("169.254.0.0/16")
_OF_CLOUDS = ipaddress.ip_network("169.254.169.0/24")
_POD_IDENTITY = ipaddress.ip_address("fd00:ec2::23")
WHY = (
    "Cilium may know this link-local address as the node's own (the entity host, which blocks do not select) or as one outside "
    "(the entity world)"
)


def may_be_its_nodes(engine: PolicyEngine, flow: PolicyFlow) -> bool:
    """Whether a pod sends to an address that Cilium may know as the node's."""
    if engine.enforcer.name is not EnforcerName.CILIUM or not flow.destination.ip or flow.destination.name:
        return False
    source, destination = engine.ends(flow)
    apart = source.kind is PartyKind.POD and destination.kind is PartyKind.OUTSIDE
    return apart and destination.address is not None and _is_a_nodes(destination.address)


def _is_a_nodes(address: Address) -> bool:
    if address.version == 6:
        return address.value == int(_POD_IDENTITY)
    ip = ipaddress.IPv4Address(address.value)
    return ip in _LINK_LOCAL and ip not in _OF_CLOUDS


def as_its_nodes(engine: PolicyEngine, flow: PolicyFlow) -> Explanation:
    """The verdict on a pod's flow to an address, as if the pod's node had it."""
    explanation = engine.explain(flow)
    source, destination = engine.ends(flow)
    node = msgspec.structs.replace(destination, kind=PartyKind.HOST, node=source.node, node_labels=source.node_labels)
    egress = engine.direction_of(flow, Direction.EGRESS, source, node)
    return msgspec.structs.replace(
        explanation, egress=egress, verdict=both(egress.verdict, explanation.ingress.verdict)
    )
