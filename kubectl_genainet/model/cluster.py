"""The cluster's state at one moment, as far as it could be read, with the look-ups that every analysis needs."""

from __future__ import annotations

import ipaddress
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, TypeVar

import msgspec

from kubectl_genainet.model.kube import (
    SERVICE_LABEL,
    EndpointSlice,
    KubeObject,
    Namespace,
    Node,
    Pod,
    PodPlace,
    Service,
    ServicePort,
)
from kubectl_genainet.model.sharing import SharedParts

T = TypeVar("T")
# Behind the object's name, in a note of the reading: it differs, or it does not; then the source that counts, and the other.
GIVEN_TWICE = " is given twice: "
GIVEN_ALIKE = " is given twice, alike: "
COUNTS = " counts, not "
_TAG = re.compile(r"(:[^/]*)?(@.*)?$")


class LeftOut(msgspec.Struct, frozen=True):
    """A kind of object that could not be read: whatever depends on it is unknown, not absent.

    `namespace`: its objects in this one were read, those of all others were not. `partly`: some were read, and others are known
    to exist. `hint`: what to do about it.
    """

    kind: str
    reason: str
    namespace: str = ""
    partly: bool = False
    hint: str = ""


@lru_cache(maxsize=65536)
def canonical_ip(text: str) -> str:
    """The one spelling of an address that all look-ups use: compressed, lower case, IPv4-mapped IPv6 as IPv4.

    Returns `text` itself where it is no address.
    """
    if ":" not in text:  # IPv4 has one spelling: octets with leading zeros are refused
        return text
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return text
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


class Backend(msgspec.Struct, frozen=True):
    """One address and port that a Service port may be sent to, from its EndpointSlices."""

    ip: str
    port: int
    ready: bool
    serving: bool
    terminating: bool
    node: str
    pod: str  # name of the pod in the Service's namespace; empty when the slice names none

    @property
    def is_used_at_last(self) -> bool:
        """Whether kube-proxy sends to it at least while nothing of the Service is ready (KEP-1669)."""
        return self.ready or (self.serving and self.terminating)


def _usefulness(backend: Backend) -> tuple[bool, bool, bool]:
    return backend.ready, backend.serving, not backend.terminating


class ServiceAddress(msgspec.Struct, frozen=True):
    """A Service port, found by one of its addresses. `via` is clusterIP, externalIP, loadBalancer or nodePort."""

    service: Service
    port: ServicePort
    ip: str
    via: str


@dataclass(frozen=True, slots=True)
class PodPlaces:
    """The positions of pods by address, without finished ones, whose addresses may be another's by now; and of those that use
    their node's network. `versions` of IP that any of them has."""

    by_ip: Mapping[str, int]
    on_host: tuple[int, ...]
    versions: frozenset[int]


# The cached properties of a snapshot that are decoded objects: what of.
_DECODED: Mapping[str, tuple[str, str, type[Any]]] = {
    "pods": ("", "Pod", Pod),
    "services": ("", "Service", Service),
    "endpoint_slices": ("discovery.k8s.io", "EndpointSlice", EndpointSlice),
    "nodes": ("", "Node", Node),
}


@dataclass(frozen=True)
class ClusterSnapshot:
    """All objects that were read. `left_out` names what was not; `taken_at` is RFC 3339 or empty; `given`: what the user named.

    `notes` is what there is to say about the reading itself (a file left out, an object given twice), a sentence each.
    `overlays` tells which kustomizations give an object, by its name; `alternatives` are pairs of them that differ in one.
    """

    objects: tuple[KubeObject, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    taken_at: str = ""
    notes: tuple[str, ...] = ()
    overlays: Mapping[str, frozenset[str]] = field(default_factory=dict)
    alternatives: frozenset[frozenset[str]] = frozenset()
    given: frozenset[str] = frozenset()

    @cached_property
    def by_kind(self) -> Mapping[str, tuple[KubeObject, ...]]:
        kinds: dict[str, list[KubeObject]] = defaultdict(list)
        for obj in self.objects:
            kinds[obj.kind].append(obj)
        return {kind: tuple(objs) for kind, objs in kinds.items()}

    def of(self, kind: str, group: str | None = None) -> tuple[KubeObject, ...]:
        """The objects of a kind; with `group`, of that API group only ("" is core, "networking.k8s.io", …)."""
        return self.by_kind.get(kind, ()) if group is None else self.by_group.get((kind, group), ())

    def named(self, kind: str, namespace: str, name: str) -> tuple[KubeObject, ...]:
        """The objects of a kind with a name in a namespace: one of each API group that has such a kind."""
        if kind not in self._names:
            names: dict[tuple[str, str], tuple[KubeObject, ...]] = {}
            for obj in self.by_kind.get(kind, ()):
                key = (obj.namespace, obj.name)
                names[key] = (*names.get(key, ()), obj)
            self._names[kind] = names
        return self._names[kind].get((namespace, name), ())

    @cached_property
    def _names(self) -> dict[str, Mapping[tuple[str, str], tuple[KubeObject, ...]]]:
        """Of the kinds that were asked for by name."""
        return {}

    @cached_property
    def by_group(self) -> Mapping[tuple[str, str], tuple[KubeObject, ...]]:
        """The objects by kind and API group."""
        groups: dict[tuple[str, str], list[KubeObject]] = defaultdict(list)
        for kind, objects in self.by_kind.items():
            for obj in objects:
                groups[(kind, obj.group)].append(obj)
        return {key: tuple(objects) for key, objects in groups.items()}

    @cached_property
    def agents_by_image(self) -> Mapping[str, tuple[tuple[KubeObject, dict[str, Any]], ...]]:
        """The containers of DaemonSets and of pods, with their objects, by the image's path without registry tag."""
        by_image: dict[str, list[tuple[KubeObject, dict[str, Any]]]] = defaultdict(list)
        for obj in (*self.of("DaemonSet", "apps"), *self.of("Pod", "")):
            for container in obj.pod_containers:
                by_image[_TAG.sub("", str(container.get("image", "")))].append((obj, container))
        return {image: tuple(pairs) for image, pairs in by_image.items()}

    def with_kinds(self, kinds: Mapping[tuple[str, str], tuple[KubeObject, ...]], taken_at: str) -> ClusterSnapshot:
        """The state in which these kinds, by (API group, kind), have these objects and all others are as they were.

        Of an object that is the same one as before nothing is decoded again: most changes are of a few in 50,000.
        """
        unchanged = (o for o in self.objects if (o.group, o.kind) not in kinds)
        changed = (o for objects in kinds.values() for o in objects)
        now = replace(self, objects=(*unchanged, *changed), taken_at=taken_at)
        for name, (group, kind, shape) in _DECODED.items():
            if name in vars(self):  # a cached property that was asked for
                known = dict(zip(map(id, self.of(kind, group)), vars(self)[name], strict=True))
                vars(now)[name] = now._decoded(shape, now.of(kind, group), known)
        if self._looked_up_pods:
            before = self.of("Pod", "")
            looked_up = {id(before[position]): pod for position, pod in self._looked_up_pods.items()}
            positions = {id(obj): position for position, obj in enumerate(now.of("Pod", "")) if id(obj) in looked_up}
            now._looked_up_pods.update((position, looked_up[key]) for key, position in positions.items())
        return now

    @staticmethod
    def _decoded(shape: type[T], objects: Iterable[KubeObject], known: Mapping[int, T] | None = None) -> tuple[T, ...]:
        """`known`: what was decoded before, by the object's id()."""
        shared, known = SharedParts(), known or {}
        return tuple(known.get(id(obj)) or shared.of(obj.decode(shape)) for obj in objects)

    @cached_property
    def pods(self) -> tuple[Pod, ...]:
        return self._decoded(Pod, self.of("Pod", ""))

    @cached_property
    def services(self) -> tuple[Service, ...]:
        return self._decoded(Service, self.of("Service", ""))

    @cached_property
    def endpoint_slices(self) -> tuple[EndpointSlice, ...]:
        return self._decoded(EndpointSlice, self.of("EndpointSlice", "discovery.k8s.io"))

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        return self._decoded(Node, self.of("Node", ""))

    @cached_property
    def namespaces(self) -> Mapping[str, Namespace]:
        return {n.metadata.name: n for n in self._decoded(Namespace, self.of("Namespace", ""))}

    def namespace_labels(self, name: str) -> dict[str, str]:
        """Labels of a namespace, with the one that the API server always sets (KEP-2161)."""
        namespace = self.namespaces.get(name)
        return {**(namespace.metadata.labels if namespace else {}), "kubernetes.io/metadata.name": name}

    @cached_property
    def _pod_places(self) -> PodPlaces:
        by_ip: dict[str, int] = {}
        on_host: list[int] = []
        versions: set[int] = set()
        decoded: Iterable[Pod | PodPlace] = vars(self).get("pods") or (o.decode(PodPlace) for o in self.of("Pod", ""))
        for position, place in enumerate(decoded):
            versions |= {6 if ":" in ip else 4 for ip in place.status.ips}
            if place.spec.host_network:
                on_host.append(position)
            elif not place.status.finished:
                by_ip |= dict.fromkeys(map(canonical_ip, place.status.ips), position)
        return PodPlaces(by_ip, tuple(on_host), frozenset(versions))

    @property
    def pods_ip_versions(self) -> frozenset[int]:
        """4, 6 or both: what the pods' addresses are."""
        return self._pod_places.versions

    @cached_property
    def _pods_by_key(self) -> Mapping[tuple[str, str], int]:
        return {(obj.namespace, obj.name): position for position, obj in enumerate(self.of("Pod", ""))}

    @cached_property
    def _pods_by_uid(self) -> Mapping[str, int]:
        return {str(obj.metadata.get("uid", "")): position for position, obj in enumerate(self.of("Pod", ""))}

    @cached_property
    def _looked_up_pods(self) -> dict[int, Pod]:
        return {}

    def _pod(self, position: int | None) -> Pod | None:
        """The pod of a position. It alone is decoded, unless all are: 50,000 take a second of CPU and 30 MB."""
        if position is None:
            return None
        if "pods" in vars(self):  # they were asked for
            return self.pods[position]
        if position not in self._looked_up_pods:
            self._looked_up_pods[position] = self.of("Pod", "")[position].decode(Pod)
        return self._looked_up_pods[position]

    def pod_at(self, ip: str) -> Pod | None:
        """The pod with the address. Pods with hostNetwork share their node's and are never found so."""
        return self._pod(self._pod_places.by_ip.get(canonical_ip(ip)))

    def pod(self, namespace: str, name: str) -> Pod | None:
        return self._pod(self._pods_by_key.get((namespace, name)))

    def pod_with(self, uid: str) -> Pod | None:
        return self._pod(self._pods_by_uid.get(uid)) if uid else None

    @cached_property
    def host_pods(self) -> tuple[Pod, ...]:
        """The pods with hostNetwork, finished ones too."""
        return tuple(filter(None, map(self._pod, self._pod_places.on_host)))

    @cached_property
    def _nodes_by_ip(self) -> Mapping[str, Node]:
        return {canonical_ip(ip): node for node in self.nodes for ip in node.ips}

    def node_at(self, ip: str) -> Node | None:
        return self._nodes_by_ip.get(canonical_ip(ip))

    @cached_property
    def _services_by_key(self) -> Mapping[tuple[str, str], Service]:
        return {(s.metadata.namespace, s.metadata.name): s for s in self.services}

    def service(self, namespace: str, name: str) -> Service | None:
        return self._services_by_key.get((namespace, name))

    @cached_property
    def _slices_by_service(self) -> Mapping[tuple[str, str], list[int]]:
        """The positions of a Service's EndpointSlices."""
        by_service: dict[tuple[str, str], list[int]] = {}
        for position, obj in enumerate(self.of("EndpointSlice", "discovery.k8s.io")):
            by_service.setdefault((obj.namespace, str(obj.labels.get(SERVICE_LABEL, ""))), []).append(position)
        return by_service

    @cached_property
    def _looked_up_slices(self) -> dict[tuple[str, str], tuple[EndpointSlice, ...]]:
        return {}

    def _slices_of(self, service: Service) -> tuple[EndpointSlice, ...]:
        """As with pods, they alone are decoded unless all are."""
        key = service.metadata.namespace, service.metadata.name
        positions = self._slices_by_service.get(key, ())
        if "endpoint_slices" in vars(self):
            return tuple(map(self.endpoint_slices.__getitem__, positions))
        if key not in self._looked_up_slices:
            objects = map(self.of("EndpointSlice", "discovery.k8s.io").__getitem__, positions)
            self._looked_up_slices[key] = self._decoded(EndpointSlice, objects)
        return self._looked_up_slices[key]

    def has_slices(self, service: Service) -> bool:
        """Whether any EndpointSlice of a Service was read, if only an empty one."""
        return (service.metadata.namespace, service.metadata.name) in self._slices_by_service

    @cached_property
    def endpoints(self) -> Mapping[tuple[str, int, str], tuple[Service, ServicePort]]:
        """The first Service that has an address, port and protocol as an endpoint, ready or not."""
        by_address: dict[tuple[str, int, str], tuple[Service, ServicePort]] = {}
        _ = self.endpoint_slices  # all are needed
        for service in self.services:
            for port in service.spec.ports:
                behind = (service, port)
                for backend in self.backends(service, port):
                    by_address.setdefault((backend.ip, backend.port, port.protocol), behind)
        return by_address

    def backends(self, service: Service, port: ServicePort) -> tuple[Backend, ...]:
        """Every endpoint of a Service port, ready or not, in the slices' order, without repeats.

        A slice port belongs to the Service port of the same name and protocol (EndpointSlice API).
        """
        backends: dict[tuple[str, int], Backend] = {}
        for item in self._slices_of(service):
            for slice_port in item.ports:
                if slice_port.name != port.name or slice_port.protocol != port.protocol:
                    continue
                for endpoint in item.endpoints:
                    conditions = endpoint.conditions
                    target = endpoint.target_ref
                    for address in endpoint.addresses[:1]:  # the API allows several, kube-proxy uses the first
                        backend = Backend(
                            ip=canonical_ip(address),
                            port=slice_port.port,
                            ready=conditions.ready,
                            serving=conditions.ready if conditions.serving is None else conditions.serving,
                            terminating=conditions.terminating,
                            node=endpoint.node,
                            pod=target.name if target and target.kind in ("Pod", "") else "",
                        )
                        # Of two endpoints at one address (hostNetwork pods in a rollout) the ready one counts.
                        key = (backend.ip, backend.port)
                        if key not in backends or _usefulness(backend) > _usefulness(backends[key]):
                            backends[key] = backend
        return tuple(backends.values())

    @cached_property
    def _services_by_address(self) -> Mapping[tuple[str, int, str], ServiceAddress]:
        by_address: dict[tuple[str, int, str], ServiceAddress] = {}
        for service in self.services:
            addresses = [(ip, "clusterIP") for ip in service.cluster_ips]
            addresses += [(ip, "externalIP") for ip in service.spec.external_ips]
            addresses += [(i.ip, "loadBalancer") for i in service.status.load_balancer.ingress if i.ip]
            for port in service.spec.ports:
                for ip, via in addresses:
                    key = (canonical_ip(ip), port.port, port.protocol)
                    by_address.setdefault(key, ServiceAddress(service, port, key[0], via))
        return by_address

    @cached_property
    def _services_by_node_port(self) -> Mapping[tuple[int, str], tuple[Service, ServicePort]]:
        return {(p.node_port, p.protocol): (s, p) for s in self.services for p in s.spec.ports if p.node_port}

    def service_with(self, ip: str) -> Service | None:
        """The Service that has the address, whatever its ports."""
        wanted = canonical_ip(ip)
        return next(
            (
                address.service
                for (service_ip, *_), address in self._services_by_address.items()
                if service_ip == wanted
            ),
            None,
        )

    def service_at(self, ip: str, port: int, protocol: str) -> ServiceAddress | None:
        """The Service port behind an address; `protocol` is the API's name ("TCP", "UDP", "SCTP")."""
        by_address = self._services_by_address.get((canonical_ip(ip), port, protocol))
        if by_address is None and self.node_at(ip) is not None:
            by_port = self._services_by_node_port.get((port, protocol))
            if by_port is not None:
                return ServiceAddress(*by_port, canonical_ip(ip), "nodePort")
        return by_address
