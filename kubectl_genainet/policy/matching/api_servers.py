"""The API servers of a cluster: the addresses that they publish behind the Service default/kubernetes.

Source: Kubernetes, pkg/controlplane/reconcilers: API servers write the Service, its Endpoints and its EndpointSlice.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import EndpointPort, Service

API_SERVER = "kubernetes.default.svc"  # its name, for one whose address was not read
_SERVICE = ("default", "kubernetes")
_DEFAULT_PORT = 6443


class _Address(msgspec.Struct, frozen=True):
    ip: str


class _Subset(msgspec.Struct, frozen=True):
    addresses: tuple[_Address, ...] = ()
    ports: tuple[EndpointPort, ...] = ()


class _Endpoints(msgspec.Struct, frozen=True):
    subsets: tuple[_Subset, ...] = ()


def is_its_service(namespace: str, name: str) -> bool:
    return (namespace, name) == _SERVICE


def addresses_in_endpoints(
    snapshot: ClusterSnapshot, namespace: str, name: str
) -> Iterator[tuple[str, tuple[EndpointPort, ...]]]:
    """The addresses in the Endpoints (v1) of a Service, each with its ports; older manifests have these instead of slices."""
    for obj in snapshot.of("Endpoints", ""):
        if (obj.namespace, obj.name) == (namespace, name):
            for subset in obj.decode(_Endpoints).subsets:
                yield from ((canonical_ip(address.ip), subset.ports) for address in subset.addresses)


def api_servers(snapshot: ClusterSnapshot) -> dict[str, int]:
    """The addresses of the API servers, each with its port; none where neither slices nor Endpoints were read."""
    found: dict[str, int] = {}
    for item in snapshot.endpoint_slices:
        if is_its_service(item.metadata.namespace, item.service or item.metadata.name):
            for endpoint in item.endpoints:
                found |= {canonical_ip(text): _port(item.ports) for text in endpoint.addresses}
    if not found:
        found = {ip: _port(ports) for ip, ports in addresses_in_endpoints(snapshot, *_SERVICE)}
    return found


def _port(ports: tuple[EndpointPort, ...]) -> int:
    return next((p.port for p in ports if p.port), _DEFAULT_PORT)


def arrives_at(service: Service, port: int) -> int:
    """The port of the API server behind a port of its Service, where no endpoint was read."""
    targets = (p.target_port for p in service.spec.ports if p.port == port)
    return next((t for t in targets if isinstance(t, int) and t), port)
