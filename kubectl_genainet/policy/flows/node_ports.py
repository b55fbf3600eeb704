"""Connections of pods to a port of a node (a nodePort, a hostPort), as policies see them on their way.

The node translates the address. What the pod's own node translates, its egress policies see translated; what another node
does, they see addressed to that node, and the pod that it arrives at may see it come from either node.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from kubectl_genainet.policy.enforcers import EnforcerName
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import Explanation, PolicyFlow, both, ip_endpoint

# Their own proxies may translate what a pod sends to any node, on the pod's node.
_TRANSLATE_FOR_ALL_NODES = (EnforcerName.CILIUM, EnforcerName.OVN, EnforcerName.ANTREA)


class NodeEntry(NamedTuple):
    """The port of a node that a connection is sent to."""

    address: str
    port: int


def ways_through(engine: PolicyEngine, flow: PolicyFlow, entry: NodeEntry) -> list[Explanation]:
    """What the policies say of each way that a pod's connection to a node's port may take to where it arrives."""
    ingress = [
        engine.explain(msgspec.structs.replace(flow, source=ip_endpoint(ip))).ingress
        for ip in _nodes(engine, flow, entry)
    ]
    ingress.append(engine.explain(flow).ingress)
    return [
        Explanation(sent, both(egress.verdict, arriving.verdict), egress, arriving)
        for sent in _sent(engine, flow, entry)
        for egress in (engine.explain(sent).egress,)
        for arriving in ingress
    ]


def _sent(engine: PolicyEngine, flow: PolicyFlow, entry: NodeEntry) -> Iterator[PolicyFlow]:
    """The flow as the client's egress policies may see it."""
    own = engine.snapshot.pod(flow.source.namespace, flow.source.name)
    node = engine.snapshot.node_at(entry.address)
    known = own is not None and own.spec.node_name and node is not None
    on_own_node = known and own is not None and node is not None and own.spec.node_name == node.metadata.name
    if on_own_node or not known or engine.enforcer.name in _TRANSLATE_FOR_ALL_NODES:
        yield flow
    if not on_own_node:
        yield msgspec.structs.replace(flow, destination=ip_endpoint(entry.address), port=entry.port)


def _nodes(engine: PolicyEngine, flow: PolicyFlow, entry: NodeEntry) -> list[str]:
    """The addresses that may take the place of the client's."""
    own = engine.snapshot.pod(flow.source.namespace, flow.source.name)
    nodes = [n for n in engine.snapshot.nodes if own is not None and n.metadata.name == own.spec.node_name]
    version = ":" in entry.address
    return list(dict.fromkeys((entry.address, *(ip for n in nodes for ip in n.ips if (":" in ip) == version))))
