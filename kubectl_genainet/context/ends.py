"""Which end of a flow is the server's: a packet may be a request or an answer, and counters keep no connections."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.path import ServiceRef


@dataclass(frozen=True, slots=True)
class Oriented:
    """A flow in the client's direction; `reply` says that the packet itself went the other way."""

    request: FiveTuple
    reply: bool


class Ends:
    """Knows the servers of a snapshot: addresses of Services, their endpoints, the ports that containers declare."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot
        self._services: dict[tuple[str, int, str], ServiceRef] = {}
        self._declared = {
            (canonical_ip(ip), port.container_port, port.protocol)
            for pod in snapshot.pods
            if not pod.finished
            for port in pod.ports
            for ip in pod.ips
        }
        for service in snapshot.services:
            meta = service.metadata
            for port in service.spec.ports:
                for backend in snapshot.backends(service, port):
                    ref = ServiceRef(meta.namespace, meta.name, port.port, port.name, backend.ip)
                    self._services.setdefault((backend.ip, backend.port, port.protocol), ref)

    def service(self, ip: str, port: int, protocol: str) -> ServiceRef | None:
        """The Service that has this address and port: as its own, or as an endpoint's."""
        resolved = self._snapshot.service_at(ip, port, protocol)
        if resolved is not None:
            meta = resolved.service.metadata
            return ServiceRef(meta.namespace, meta.name, resolved.port.port, resolved.port.name, resolved.ip)
        return self._services.get((canonical_ip(ip), port, protocol))

    def _known(self, ip: str, port: int, protocol: str) -> int:
        """How surely the end is a server: 2 by a Service, 1 by a container's declaration, else 0."""
        if self.service(ip, port, protocol) is not None:
            return 2
        return int((ip, port, protocol) in self._declared)

    def orient(self, flow: FiveTuple) -> Oriented:
        """What is a server by the API's objects is one; else the lower port is taken for the server's."""
        protocol = flow.protocol.value
        towards, back = self._known(flow.dst, flow.dport, protocol), self._known(flow.src, flow.sport, protocol)
        reply = 0 < flow.sport < flow.dport if towards == back else back > towards
        return Oriented(flow.reversed if reply else flow, reply)
