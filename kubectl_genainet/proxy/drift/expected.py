"""The endpoints that kube-proxy has to send a Service port's connections to, on one node.

Source: kubernetes pkg/proxy/topology.go (CategorizeEndpoints, topologyModeFromHints).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from kubectl_genainet.model.cluster import Backend, ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import KubeObject, Service

_TRIGGER = "endpoints.kubernetes.io/last-change-trigger-time"
_ZONES = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")


class Slices:
    """EndpointSlices by Service, for what the typed view leaves out: hints and the time of the last change."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self.taken_at = snapshot.taken_at
        self.by_service: dict[tuple[str, str], list[KubeObject]] = {}
        for obj in snapshot.of("EndpointSlice", "discovery.k8s.io"):
            key = (obj.namespace, obj.labels.get("kubernetes.io/service-name", ""))
            self.by_service.setdefault(key, []).append(obj)
        self.zones = {n.metadata.name: _zone(n.metadata.labels) for n in snapshot.nodes}

    def of(self, service: Service) -> list[KubeObject]:
        return self.by_service.get((service.metadata.namespace, service.metadata.name), [])

    def hints(self, service: Service) -> Mapping[str, tuple[frozenset[str], frozenset[str]]]:
        """Topology hints by address: the zones and the nodes that an endpoint is meant for."""
        found: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
        for obj in self.of(service):
            for endpoint in obj.raw.get("endpoints") or ():
                hints = endpoint.get("hints") if isinstance(endpoint, dict) else None
                if isinstance(hints, dict) and hints:
                    for address in endpoint.get("addresses") or ():
                        found[canonical_ip(str(address))] = (_names(hints, "forZones"), _names(hints, "forNodes"))
        return found

    def age(self, service: Service) -> str:
        """How long before the snapshot the endpoints last changed ("41 s"); empty where that is not recorded."""
        times = [obj.annotations[_TRIGGER] for obj in self.of(service) if _TRIGGER in obj.annotations]
        try:
            latest = max(map(datetime.fromisoformat, times))
            seconds = (datetime.fromisoformat(self.taken_at) - latest).total_seconds()
        except (ValueError, TypeError):
            return ""
        return f"{seconds:.0f} s"


def _zone(labels: Mapping[str, str]) -> str:
    return next((labels[key] for key in _ZONES if labels.get(key)), "")


def _names(hints: Mapping[str, Any], key: str) -> frozenset[str]:
    return frozenset(str(item.get("name", "")) for item in hints.get(key) or () if isinstance(item, dict))


def usable(backends: Iterable[Backend]) -> list[Backend]:
    """Ready endpoints, or while none is ready those that serve while terminating."""
    known = list(backends)
    return [b for b in known if b.ready] or [b for b in known if b.serving and b.terminating]


def is_local_only(service: Service) -> bool:
    """Whether all of the Service's traffic policies are Local: a node then has its own endpoints only."""
    spec = service.spec
    external = spec.type in ("NodePort", "LoadBalancer") or bool(spec.external_ips)
    return spec.internal_traffic_policy == "Local" and (not external or spec.external_traffic_policy == "Local")


def expected(service: Service, backends: Iterable[Backend], node: str, slices: Slices) -> list[Backend] | None:
    """Endpoints that must be in the node's rules; None where hints decide and the node's zone is not known."""
    candidates = usable(backends)
    if is_local_only(service):
        return [b for b in candidates if b.node == node]
    hints = slices.hints(service)
    if not candidates or not all(b.ip in hints for b in candidates):
        return candidates
    by_node = [b for b in candidates if node in hints[b.ip][1]]
    if by_node and all(hints[b.ip][1] for b in candidates):
        return None  # honoured by kube-proxy 1.35 and later only: either is right
    zone = slices.zones.get(node, "")
    if not zone:
        return None
    if not all(hints[b.ip][0] for b in candidates):
        return candidates
    return [b for b in candidates if zone in hints[b.ip][0]] or candidates
