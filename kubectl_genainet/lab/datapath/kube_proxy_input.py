"""What kube-proxy decides for each Service port before it writes rules; both its modes share it.

Follows kubernetes pkg/proxy/topology.go (CategorizeEndpoints) and pkg/proxy/serviceport.go, v1.27 to v1.31.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.lab.spec import AddressFamily, family_of
from kubectl_genainet.model.cluster import Backend, ClusterSnapshot
from kubectl_genainet.model.kube import Service, ServicePort
from kubectl_genainet.proxy.drift.expected import usable
from kubectl_genainet.proxy.names import service_port_name


@dataclass(frozen=True, slots=True)
class ProxyNode:
    """The node that rules are written for. `cluster_cidr` None: kube-proxy can't tell pods' traffic from other."""

    name: str
    family: AddressFamily
    node_ips: tuple[str, ...]
    cluster_cidr: str | None
    service_cidr: str


@dataclass(frozen=True, slots=True)
class ProxyPort:
    """A Service port as one node sees it: its addresses and the endpoints it may use, by traffic policy."""

    service: Service
    port: ServicePort
    cluster_ip: str
    external_ips: tuple[str, ...]
    balancer_ips: tuple[str, ...]
    source_ranges: tuple[str, ...]
    cluster_endpoints: tuple[Backend, ...]
    local_endpoints: tuple[Backend, ...]
    has_endpoints: bool

    @property
    def namespace(self) -> str:
        return self.service.metadata.namespace

    @property
    def name(self) -> str:
        """ "ns/service:port"."""
        return service_port_name(self.namespace, self.service.metadata.name, self.port.name)

    @property
    def protocol(self) -> str:
        return self.port.protocol.lower()

    @property
    def external_local(self) -> bool:
        return self.external and self.service.spec.external_traffic_policy == "Local"

    @property
    def internal_local(self) -> bool:
        return self.service.spec.internal_traffic_policy == "Local"

    @property
    def external(self) -> bool:
        """Whether it can be reached from outside the cluster."""
        return bool(self.port.node_port or self.external_ips or self.balancer_ips)

    @property
    def has_internal_endpoints(self) -> bool:
        return self.has_endpoints and bool(self.local_endpoints or not self.internal_local)

    @property
    def has_external_endpoints(self) -> bool:
        return self.has_endpoints and bool(self.local_endpoints or not self.external_local)

    @property
    def all_endpoints(self) -> tuple[Backend, ...]:
        """All that rules are needed for, in kube-proxy's order."""
        return tuple(dict.fromkeys(sorted((*self.cluster_endpoints, *self.local_endpoints), key=endpoint_text)))

    @property
    def affinity_seconds(self) -> int:
        """0 without session affinity."""
        spec = self.service.spec
        return spec.session_affinity_config.client_ip.timeout_seconds if spec.session_affinity == "ClientIP" else 0


def endpoint_text(endpoint: Backend) -> str:
    """ "10.0.0.1:80" or "[fd00::1]:80"; kube-proxy sorts endpoints by this text."""
    return f"[{endpoint.ip}]:{endpoint.port}" if ":" in endpoint.ip else f"{endpoint.ip}:{endpoint.port}"


def proxy_ports(snapshot: ClusterSnapshot, node: ProxyNode) -> Iterator[ProxyPort]:
    """Every Service port that a node has rules for, in the order of the Services' names."""
    for service in sorted(snapshot.services, key=lambda s: (s.metadata.namespace, s.metadata.name)):
        cluster_ips = _of_family(service.cluster_ips, node.family)
        if not cluster_ips or service.spec.type == "ExternalName":
            continue
        for port in service.spec.ports:
            yield _proxy_port(snapshot, node, service, port, cluster_ips[0])


def _of_family(ips: tuple[str, ...], family: AddressFamily) -> tuple[str, ...]:
    return tuple(ip for ip in ips if family_of(ip) is family)


def _proxy_port(
    snapshot: ClusterSnapshot, node: ProxyNode, service: Service, port: ServicePort, cluster_ip: str
) -> ProxyPort:
    backends = tuple(b for b in snapshot.backends(service, port) if family_of(b.ip) is node.family)
    backends = tuple(sorted(backends, key=endpoint_text))
    reachable = tuple(usable(backends))
    local = tuple(usable(b for b in backends if b.node == node.name))
    spec = service.spec
    internal_local = spec.internal_traffic_policy == "Local"
    balancer_ips = tuple(i.ip for i in service.status.load_balancer.ingress if i.ip)
    external_ips = _of_family(spec.external_ips, node.family)
    balancer_ips = _of_family(balancer_ips, node.family)
    external = bool(port.node_port or external_ips or balancer_ips)
    # Cluster endpoints also serve external traffic of policy Local, for its short cut to pods of the cluster.
    uses_cluster = not internal_local or external
    uses_local = internal_local or (external and spec.external_traffic_policy == "Local")
    return ProxyPort(
        service=service,
        port=port,
        cluster_ip=cluster_ip,
        external_ips=external_ips,
        balancer_ips=balancer_ips,
        source_ranges=_of_family(spec.load_balancer_source_ranges, node.family),
        cluster_endpoints=reachable if uses_cluster else (),
        local_endpoints=local if uses_local else (),
        has_endpoints=bool(reachable or local),
    )
