"""Which Service and which workload an address is of, from the cluster's objects: what rows are selected by."""

from __future__ import annotations

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.packet import FiveTuple


class SnapshotNames:
    """A Service's own addresses and those of its backends are the Service's; of a backend of several Services the first is."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._services: dict[tuple[str, int], str] = {}
        self._clients: dict[str, str] = {}
        for service in snapshot.services:
            name = f"{service.metadata.namespace}/{service.metadata.name}"
            for port in service.spec.ports:
                for ip in (*service.cluster_ips, *service.external_addresses):
                    self._services.setdefault((canonical_ip(ip), port.port), name)
                for backend in snapshot.backends(service, port):
                    self._services.setdefault((canonical_ip(backend.ip), backend.port), name)
        for pod in snapshot.pods:
            if not pod.spec.host_network:
                owner = pod.metadata.owner_references[0].name if pod.metadata.owner_references else pod.metadata.name
                for ip in pod.ips:
                    self._clients[canonical_ip(ip)] = f"{pod.metadata.namespace}/{owner}"

    def service(self, flow: FiveTuple) -> str:
        return self._services.get((flow.dst, flow.dport), "")

    def client(self, flow: FiveTuple) -> str:
        return self._clients.get(flow.src, "")
