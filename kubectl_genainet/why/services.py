"""What the API says of a Service's address that a packet was sent to, and died before a rule made a pod's of it."""

from __future__ import annotations

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.why.drop_context import DropContext

_WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)


def missing_port(context: DropContext) -> str:
    """That the Service with the packet's address does not have the port; "" where it has, or where no Service has the address."""
    snapshot, flow = context.identity.snapshot, context.flow
    if flow.protocol not in _WITH_PORTS or snapshot.service_at(flow.dst, flow.dport, flow.protocol.value) is not None:
        return ""
    service = snapshot.service_with(flow.dst)
    if service is None:
        return ""
    has = ", ".join(f"{port.port}/{port.protocol}" for port in service.spec.ports)
    wanted = f"{flow.dport}/{flow.protocol.value}"
    return (
        f"Service {service.metadata.namespace}/{service.metadata.name} ({flow.dst}) has no port {wanted}; it has {has}"
    )
