"""What a pod sends to an API server whose address was not read: it runs on a node or, in managed clusters, outside."""

from __future__ import annotations

import msgspec

from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.matching.party import PartyKind
from kubectl_genainet.policy.model import Direction, Explanation, PolicyFlow, both

_NODE = "(control plane)"
WHY = "the address of the API server was not read (the EndpointSlice default/kubernetes): it may be a node's or not"


def is_to_an_unread_api_server(engine: PolicyEngine, flow: PolicyFlow) -> bool:
    source, destination = engine.ends(flow)
    return destination.api_server and source.kind is PartyKind.POD


def as_a_node(engine: PolicyEngine, flow: PolicyFlow) -> Explanation:
    """The verdict if the API server runs on a node other than the pod's own."""
    explanation = engine.explain(flow)
    source, destination = engine.ends(flow)
    node = msgspec.structs.replace(destination, kind=PartyKind.HOST, node=_NODE)
    egress = engine.direction_of(flow, Direction.EGRESS, source, node)
    return msgspec.structs.replace(
        explanation, egress=egress, verdict=both(egress.verdict, explanation.ingress.verdict)
    )
