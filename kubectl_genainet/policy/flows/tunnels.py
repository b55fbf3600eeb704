"""Tunnels of meshes: between two pods of one mesh a connection arrives on the port of the mesh's proxy, whatever port the
client asked for.

Sources: Istio, "Ambient and Kubernetes NetworkPolicy"; Linkerd, "Common errors: Network Policy" and "Protocol Detection".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import Container, Pod
from kubectl_genainet.policy.matching.mesh import AMBIENT_LABEL, HBONE, LINKERD_INBOUND
from kubectl_genainet.policy.model import PolicyEndpoint, PolicyFlow

_LINKERD_PROXY = "linkerd-proxy"
_OPAQUE = "25,587,3306,4444,5432,6379,9300,11211"  # Linkerd's default
_ANNOTATION, _INJECT = "config.linkerd.io/", "linkerd.io/inject"
# Since which release every connection between two proxies goes to their port, not only those to opaque ports.
_EVERY_PORT = {"stable": (2, 18), "edge": (25, 4)}


class Tunnel(NamedTuple):
    """The port that a connection arrives on; not `certain` where it may as well arrive on its own."""

    port: int
    note: str
    certain: bool


class Membership(Enum):
    """Whether a pod's connections with other pods of a mesh go through its tunnel."""

    NEVER = "never"
    SOME = "some"  # not on every port, or not known
    ALWAYS = "always"


class Meshes:
    """Who is in the tunnels of which meshes. `ports` are those of the meshes that there may be in the snapshot."""

    def __init__(self, snapshot: ClusterSnapshot) -> None:
        self._snapshot = snapshot
        namespaces = [_metadata(namespace.raw) for namespace in snapshot.of("Namespace", "")]
        pods = snapshot.pods
        ambient = any(AMBIENT_LABEL in pod.metadata.labels for pod in pods) or any(
            AMBIENT_LABEL in (metadata.get("labels") or ()) for metadata in namespaces
        )
        linkerd = any(_INJECT in pod.metadata.annotations or _proxy(pod, _LINKERD_PROXY) for pod in pods) or any(
            _INJECT in (metadata.get("annotations") or ()) for metadata in namespaces
        )
        self.ports = (HBONE,) * ambient + (LINKERD_INBOUND,) * linkerd

    def membership(self, port: int, namespace: str, name: str) -> Membership:
        """Of a pod, in the mesh whose tunnels end at a port."""
        pod = self._snapshot.pod(namespace, name)
        if pod is None or pod.spec.host_network:
            return Membership.NEVER
        if port == HBONE:
            return Membership.ALWAYS if in_ambient(self._snapshot, pod) else Membership.NEVER
        proxy, annotations = _proxy(pod, _LINKERD_PROXY), _linkerd_annotations(self._snapshot, pod)
        if proxy is None and not _to_be_injected(annotations):
            return Membership.NEVER
        skips = any(f"{_ANNOTATION}skip-{side}-ports" in annotations for side in ("inbound", "outbound"))
        return Membership.SOME if skips or not _tunnels_every_port(proxy) else Membership.ALWAYS


def _metadata(raw: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = raw.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def tunnel_of(snapshot: ClusterSnapshot, flow: PolicyFlow) -> Tunnel | None:
    """The tunnel that a flow goes through; None for one that arrives on the port that it asks for."""
    if flow.protocol != "TCP":
        return None
    client, server = _pod(snapshot, flow.source), _pod(snapshot, flow.destination)
    if client is None or server is None or client.spec.host_network or server.spec.host_network:
        return None
    if in_ambient(snapshot, client) and in_ambient(snapshot, server):
        note = (
            f"both pods are in the ambient mesh: the connection to port {flow.port} arrives in its tunnel (HBONE), "
            f"on port {HBONE}, and that is what the policies see"
        )
        return Tunnel(HBONE, note, certain=True)
    return _linkerd(snapshot, client, server, flow.port)


def _pod(snapshot: ClusterSnapshot, end: PolicyEndpoint) -> Pod | None:
    return snapshot.pod(end.namespace, end.name) if end.name else None


def in_ambient(snapshot: ClusterSnapshot, pod: Pod) -> bool:
    """Whether a pod is in Istio's ambient mesh: by its own label, else by that of its namespace."""
    labels = pod.metadata.labels
    mode = labels.get(AMBIENT_LABEL, snapshot.namespace_labels(pod.metadata.namespace).get(AMBIENT_LABEL))
    return mode == "ambient" and _proxy(pod, "istio-proxy") is None


def _proxy(pod: Pod, name: str) -> Container | None:
    return next((c for c in (*pod.spec.containers, *pod.spec.init_containers) if c.name == name), None)


def _linkerd(snapshot: ClusterSnapshot, client: Pod, server: Pod, port: int) -> Tunnel | None:
    annotations = _linkerd_annotations(snapshot, client), _linkerd_annotations(snapshot, server)
    proxies = _proxy(client, _LINKERD_PROXY), _proxy(server, _LINKERD_PROXY)
    if not all(proxy or _to_be_injected(notes) for proxy, notes in zip(proxies, annotations, strict=True)):
        return None
    skipped = (
        annotations[0].get(f"{_ANNOTATION}skip-outbound-ports", ""),
        annotations[1].get(f"{_ANNOTATION}skip-inbound-ports", ""),
    )
    if any(_holds(ports, port) for ports in skipped):
        return None
    inbound = next((p.container_port for p in proxies[1].ports if p.name == _LINKERD_PROXY), 0) if proxies[1] else 0
    opaque = _holds(annotations[1].get(f"{_ANNOTATION}opaque-ports", _OPAQUE), port)
    certain = all(proxies) and (opaque or _tunnels_every_port(proxies[0]))
    note = (
        f"both pods have Linkerd's proxy: the connection to port {port} "
        f"{'arrives' if certain else 'may arrive'} on the proxy's port {inbound or LINKERD_INBOUND}, and that is what the "
        "policies see"
    )
    return Tunnel(inbound or LINKERD_INBOUND, note, certain)


def _linkerd_annotations(snapshot: ClusterSnapshot, pod: Pod) -> Mapping[str, str]:
    """Those of the pod, and of its namespace where the pod has none of this name."""
    where = pod.metadata.namespace
    raw = next((o.raw for o in snapshot.named("Namespace", "", where)), {})
    inherited = _metadata(raw).get("annotations")
    own = dict(inherited) if isinstance(inherited, dict) else {}
    return {str(key): str(value) for key, value in (own | pod.metadata.annotations).items()}


def _to_be_injected(annotations: Mapping[str, str]) -> bool:
    return annotations.get(_INJECT) in ("enabled", "ingress")


def _holds(ports: str, port: int) -> bool:
    """Whether a list such as "25,8000-9000" holds a port."""
    for part in ports.split(","):
        first, _, last = part.strip().partition("-")
        numbers = [int(text) for text in (first, last or first) if text.isdecimal() and len(text) < 6]
        if len(numbers) == 2 and numbers[0] <= port <= numbers[1]:
            return True
    return False


def _tunnels_every_port(proxy: Container | None) -> bool:
    release = re.search(r":(?:(stable|edge)-|v|version-)?(\d{1,4})\.(\d{1,4})", proxy.image) if proxy else None
    if release is None:
        return False
    return (int(release[2]), int(release[3])) >= _EVERY_PORT[release[1] or "stable"]
