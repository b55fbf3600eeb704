"""The endpoints that kube-proxy has to send a Service port's connections to, on one node.

Source: kubernetes pkg/proxy/topology.go (CategorizeEndpoints, topologyModeFromHints).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kubectl_genainet.model.cluster import Backend, ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import KubeObject, Service
from kubectl_genainet.proxy.service_rules import RuleAddress

_TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
_ZONES = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")

Hints = Mapping[str, tuple[frozenset[str], frozenset[str]]]  # zones and nodes by an endpoint's address


class Slices:
    """EndpointSlices by Service, for what the typed view leaves out: hints and the time of the last change."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.taken_at = snapshot.taken_at
        self.by_service: dict[tuple[str, str], list[KubeObject]] = {}
        for obj in snapshot.of("EndpointSlice", "discovery.k8s.io"):
            key = (obj.namespace, obj.labels.get("kubernetes.io/service-name", ""))
            self.by_service.setdefault(key, []).append(obj)
        self.zones = {n.metadata.name: _zone(n.metadata.labels) for n in snapshot.nodes}
        self._hints: dict[tuple[str, str], Hints] = {}

    def of(self, service: Service) -> list[KubeObject]:
        return self.by_service.get((service.metadata.namespace, service.metadata.name), [])

    def hints(self, service: Service) -> Hints:
        """Topology hints by address: the zones and the nodes that an endpoint is meant for."""
        key = (service.metadata.namespace, service.metadata.name)
        if key not in self._hints:
            self._hints[key] = _hints(self.of(service))
        return self._hints[key]

    def age(self, service: Service) -> str:
        """How long before the snapshot the endpoints last changed ("41 s"); empty where that is not recorded."""
        times = [obj.annotations[_TRIGGER] for obj in self.of(service) if _TRIGGER in obj.annotations]
        try:
            latest = max(map(datetime.fromisoformat, times))
            seconds = (datetime.fromisoformat(self.taken_at) - latest).total_seconds()
        except (ValueError, TypeError):
            return ""
        return f"{seconds:.0f} s"


def _hints(slices: Iterable[KubeObject]) -> Hints:
    by_address: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    for endpoint_slice in slices:
        for endpoint in endpoint_slice.raw.get("endpoints") or ():
            hints = endpoint.get("hints") if isinstance(endpoint, dict) else None
            if isinstance(hints, dict) and hints:
                for address in endpoint.get("addresses") or ():
                    by_address[canonical_ip(str(address))] = (_names(hints, "forZones"), _names(hints, "forNodes"))
    return by_address


def _zone(labels: Mapping[str, str]) -> str:
    return next((labels[key] for key in _ZONES if labels.get(key)), "")


def _names(hints: Mapping[str, Any], key: str) -> frozenset[str]:
    return frozenset(str(item.get("name", "")) for item in hints.get(key) or () if isinstance(item, dict))


def usable(backends: Iterable[Backend]) -> list[Backend]:
    """Ready endpoints, or while none is ready those that serve while terminating (KEP-1669)."""
    known = list(backends)
    return [b for b in known if b.ready] or [b for b in known if b.is_used_at_last]


def is_local(service: Service, address: RuleAddress) -> bool:
    """Whether the traffic policy of this address of the Service is Local: a node then uses its own endpoints only."""
    spec = service.spec
    is_inside = address.via == "clusterIP" or address.ip in {canonical_ip(ip) for ip in service.cluster_ips}
    return (spec.internal_traffic_policy if is_inside else spec.external_traffic_policy) == "Local"


def expected(
    service: Service, address: RuleAddress, backends: Iterable[Backend], node: str, slices: Slices
) -> tuple[list[Backend], ...]:
    """Endpoints that a node's rules must have for an address of the Service; empty where that is not known.

    More than one list where releases of kube-proxy differ: either is right, and the newest comes first.
    """
    known = list(backends)
    if is_local(service, address):
        return (usable(b for b in known if b.node == node),)
    ready = [b for b in known if b.ready]
    hints = slices.hints(service)
    if not ready or not all(b.ip in hints for b in ready):
        return (usable(known),)
    by_node = [b for b in ready if node in hints[b.ip][1]]
    has_node_hints = bool(by_node) and all(hints[b.ip][1] for b in ready)
    zone = slices.zones.get(node)
    if zone is None:  # a node that was not read
        return ()
    by_zone = [b for b in ready if zone in hints[b.ip][0]]
    for_zone = by_zone if by_zone and all(hints[b.ip][0] for b in ready) else ready
    return (by_node, for_zone) if has_node_hints else (for_zone,)  # kube-proxy reads node hints since 1.34
