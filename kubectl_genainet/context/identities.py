"""The cluster's objects as the names that agents read for their metrics: each object is reduced to what a name needs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import msgspec

from kubectl_genainet.context.identity import workload_of
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.identities import Identities, Owner, backend_key
from kubectl_genainet.model.kube import EndpointSlice, Pod, Service
from kubectl_genainet.model.packet import Protocol

PortKey = tuple[str, str]  # a port's name and protocol: what an EndpointSlice's port and its Service's have in common


class PodIdentity(msgspec.Struct, frozen=True):
    """Whose a pod's UID and addresses are."""

    uid: str
    owner: Owner
    addresses: tuple[str, ...]


class ServiceName(msgspec.Struct, frozen=True):
    """A Service ("NAMESPACE/NAME") and its ports."""

    name: str
    ports: frozenset[PortKey]


class SliceName(msgspec.Struct, frozen=True):
    """The Service that an EndpointSlice is of, and the keys (`backend_key`) of its endpoints by port."""

    service: str
    backends: tuple[tuple[PortKey, str], ...]


def pod_name(pod: Pod) -> PodIdentity | None:
    """None for a pod that has ended, or that shares its node's address and namespace."""
    if pod.finished or pod.spec.host_network:
        return None
    owner = Owner(pod.metadata.namespace, workload_of(pod) or pod.metadata.name)
    return PodIdentity(pod.metadata.uid, owner, tuple(canonical_ip(ip) for ip in pod.ips))


def service_name(service: Service) -> ServiceName:
    name = f"{service.metadata.namespace}/{service.metadata.name}"
    return ServiceName(name, frozenset((port.name, port.protocol) for port in service.spec.ports))


def slice_name(endpoint_slice: EndpointSlice) -> SliceName | None:
    """None for a slice of no Service."""
    if not endpoint_slice.service:
        return None
    # The API allows several addresses an endpoint, kube-proxy uses the first.
    addresses = [canonical_ip(endpoint.addresses[0]) for endpoint in endpoint_slice.endpoints if endpoint.addresses]
    backends = tuple(
        ((port.name, port.protocol), backend_key(address, port.port, Protocol(port.protocol)))
        for port in endpoint_slice.ports
        for address in addresses
    )
    return SliceName(f"{endpoint_slice.metadata.namespace}/{endpoint_slice.service}", backends)


def identities(
    pods: Iterable[PodIdentity], services: Iterable[ServiceName], slices: Iterable[SliceName], taken_at: float
) -> Identities:
    """Names of all pods, and of the Services that each endpoint serves. `taken_at`: seconds since 1970."""
    uids: dict[str, Owner] = {}
    addresses: dict[str, Owner] = {}
    for pod in pods:
        if pod.uid:
            uids[pod.uid] = pod.owner
        addresses |= dict.fromkeys(pod.addresses, pod.owner)
    ports = {service.name: service.ports for service in services}
    backends: dict[str, set[str]] = defaultdict(set)
    for endpoint_slice in slices:
        for port, key in endpoint_slice.backends:
            if port in ports.get(endpoint_slice.service, ()):
                backends[key].add(endpoint_slice.service)
    return Identities(taken_at, uids, addresses, {key: tuple(sorted(names)) for key, names in backends.items()})


def identities_of(snapshot: ClusterSnapshot, taken_at: float) -> Identities:
    """The same of a snapshot."""
    pods = filter(None, map(pod_name, snapshot.pods))
    slices = filter(None, map(slice_name, snapshot.endpoint_slices))
    return identities(pods, map(service_name, snapshot.services), slices, taken_at)
