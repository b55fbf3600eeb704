"""Waypoints of Istio's ambient mesh: a proxy that stands between client and server, so that neither sees the other's address.

Source: Istio, "Configure waypoint proxies" (istio.io/use-waypoint, istio.io/waypoint-for).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Pod, Service

_USE, _USE_NAMESPACE, _FOR = "istio.io/use-waypoint", "istio.io/use-waypoint-namespace", "istio.io/waypoint-for"
_GATEWAY = "gateway.networking.k8s.io"


class Waypoint(NamedTuple):
    """Not `certain` where its Gateway, which says what it takes, is not among the objects."""

    namespace: str
    name: str
    certain: bool = True

    def pods(self, snapshot: ClusterSnapshot) -> list[Pod]:
        """Its pods, as far as they are among the objects."""
        wanted = {f"{_GATEWAY}/gateway-name": self.name}.items()
        here = (pod for pod in snapshot.pods if pod.metadata.namespace == self.namespace and not pod.finished)
        return [pod for pod in here if wanted <= pod.metadata.labels.items()]


def waypoint_of(snapshot: ClusterSnapshot, server: Pod, service: Service | None) -> Waypoint | None:
    """The waypoint that a connection of the mesh to a pod takes, sent to a Service or to the pod itself.

    The label of the Service or the pod decides, else that of the namespace. A waypoint takes connections to Services, unless its
    Gateway says otherwise.
    """
    where = server.metadata.namespace
    own = service.metadata.labels if service is not None else server.metadata.labels
    labels: Mapping[str, str] = own if _USE in own else snapshot.namespace_labels(where)
    name, host = labels.get(_USE, "none"), labels.get(_USE_NAMESPACE, where)
    if name == "none":
        return None
    gateway = next((g for g in snapshot.named("Gateway", host, name) if g.group == _GATEWAY), None)
    taken = gateway.labels.get(_FOR, "service") if gateway is not None else "all"
    if taken not in ("all", "service" if service is not None else "workload"):
        return None
    return Waypoint(host, name, certain=gateway is not None or service is not None)
