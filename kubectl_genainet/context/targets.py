"""What a target stands for: the addresses to follow, and which of them are the traced end."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from kubectl_genainet.context.unread import unread
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import Pod, Service, ServicePort
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.target import Target, TargetKind, must_be_read, not_found, service_named
from kubectl_genainet.policy.flows.targets import pods_named
from kubectl_genainet.wire import FilterEntry

DNS_PORT = 53


@dataclass(frozen=True, slots=True)
class Resolved:
    """`filters` go to the kernel; `servers` are (address, port) of the traced end, port 0 for any; `nodes` host them."""

    target: Target
    namespace: str
    filters: tuple[FilterEntry, ...]
    servers: frozenset[tuple[str, int]]
    nodes: frozenset[str]
    warnings: tuple[str, ...] = ()
    pods: frozenset[str] = frozenset()  # addresses that a connection must have an end at; empty: any
    lookups: frozenset[str] = frozenset()  # DNS servers whose queries by the target's callers are followed too

    def concerns(self, path: PacketPath) -> bool:
        """Whether a path is of the target: the Services in front of a pod are followed too, with all their backends, and a
        bundle may hold what another target asked for."""
        client, service = path.flow.client, path.flow.service
        if self.pods:
            return client.ip in self.pods or (path.backend or client).ip in self.pods
        if service is not None and (service.namespace, service.name) == (self.namespace, self.target.name):
            return self.target.port in (None, service.port, service.port_name)
        ends = [(end.ip, end.port or 0) for end in (path.backend, service) if end is not None]
        if any(ip in self.lookups and port == DNS_PORT for ip, port in ends):
            return False
        if self.target.kind is TargetKind.ADDRESS or not ends:
            ends.append((client.ip, client.port or 0))
        nat = path.nat
        return any({end, (end[0], 0)} & self.servers for end in ends) or (
            nat is not None and any(address_text(*server) in (nat.before, nat.after) for server in self.servers)
        )


def resolve(target: Target, snapshot: ClusterSnapshot, namespace: str) -> Resolved:
    """The addresses behind a target now. Raises InputError, with near matches, for what does not exist."""
    namespace = target.namespace or namespace
    match target.kind:
        case TargetKind.SERVICE:
            return _service(target, snapshot, namespace)
        case TargetKind.ADDRESS:
            return _address(target, snapshot, namespace)
        case _:
            return _pods(target, pods_named(snapshot, target, namespace), snapshot, namespace)


def _address(target: Target, snapshot: ClusterSnapshot, namespace: str) -> Resolved:
    """A Service's address stands for its backends too: behind the translation, on other nodes, only they are seen."""
    port, ip = _number(target.port), canonical_ip(target.name)
    for service in snapshot.services:
        if ip in map(canonical_ip, (*service.cluster_ips, *service.external_addresses)):
            meta, ports = service.metadata, [p.port for p in service.spec.ports]
            if not port or port in ports:
                of_service = Target(TargetKind.SERVICE, "Service", meta.name, port or None, meta.namespace)
                resolved = _service(of_service, snapshot, meta.namespace)
                return dataclasses.replace(resolved, target=target, namespace=namespace)
    pod = snapshot.pod_at(ip)
    nodes = frozenset({pod.spec.node_name} if pod and pod.spec.node_name else ())
    return Resolved(target, namespace, (FilterEntry(ip, port),), frozenset({(ip, port)}), nodes)


def resolve_namespace(namespace: str, snapshot: ClusterSnapshot) -> Resolved:
    """All pods and Services of a namespace ("": of the cluster), as one target. Raises InputError where it has none.

    Pods that use their node's network are left out: their addresses are the node's.
    """
    filters: dict[FilterEntry, None] = {}
    for service in snapshot.services:
        if namespace in ("", service.metadata.namespace) and service.spec.type != "ExternalName":
            of_service = Target(TargetKind.SERVICE, "Service", service.metadata.name)
            resolved = _service(of_service, snapshot, service.metadata.namespace)
            filters |= dict.fromkeys(resolved.filters)
    nodes = set()
    for pod in snapshot.pods:
        if namespace in ("", pod.metadata.namespace) and not pod.spec.host_network and not pod.finished:
            filters |= dict.fromkeys(FilterEntry(canonical_ip(ip)) for ip in pod.ips)
            nodes.add(pod.spec.node_name)
    if not filters:
        must_be_read(snapshot, "Service", namespace)
        must_be_read(snapshot, "Pod", namespace)
        if not namespace:
            raise InputError("the cluster has no Services, and no pods with an address of their own")
        known = sorted({p.metadata.namespace for p in snapshot.pods})
        raise not_found("namespace with pods or Services", namespace, known)
    servers = frozenset((entry.ip, entry.port) for entry in filters)
    target = Target(TargetKind.ADDRESS, "", f"namespace {namespace}" if namespace else "the cluster")
    return Resolved(target, namespace, tuple(filters), servers, frozenset(nodes - {""}))


def _number(port: int | str | None) -> int:
    if isinstance(port, str):
        raise InputError(f"port {port!r} is a name, and only a Service or a pod knows names of ports")
    return port or 0


def ports_of(service: Service, port: int | str | None) -> tuple[ServicePort, ...]:
    """The Service's ports, or the one of that number or name. Raises InputError that lists them."""
    if port is None:
        return service.spec.ports
    named = tuple(p for p in service.spec.ports if port in (p.port, p.name))
    if not named:
        listed = ", ".join(f"{p.port}{f' ({p.name})' if p.name else ''}" for p in service.spec.ports)
        raise InputError(
            f"Service {service.metadata.namespace}/{service.metadata.name} has no port {port}",
            hint=f"Its ports are {listed}.",
        )
    return named


def _service(target: Target, snapshot: ClusterSnapshot, namespace: str) -> Resolved:
    service = service_named(snapshot, namespace, target.name)
    if service.spec.type == "ExternalName":
        raise InputError(
            f"Service {namespace}/{target.name} is an ExternalName ({service.spec.external_name}): a DNS alias without packets",
            hint=f"Trace the address that {service.spec.external_name} resolves to, or use `kubectl genainet dns`.",
        )
    ends: set[tuple[str, int, str]] = set()
    nodes: set[str] = set()
    warnings = []
    for port in ports_of(service, target.port):
        ends |= {(ip, port.port, port.protocol) for ip in (*service.cluster_ips, *service.external_addresses)}
        if port.node_port:
            ends |= {(ip, port.node_port, port.protocol) for node in snapshot.nodes for ip in node.ips}
        backends = snapshot.backends(service, port)
        ends |= {(b.ip, b.port, port.protocol) for b in backends}
        nodes |= {b.node for b in backends if b.node}
        if not unread(snapshot, "EndpointSlice", namespace) and not any(b.ready for b in backends):
            name = f" port {port.name or port.port}" if len(service.spec.ports) > 1 else ""
            warnings.append(f"Service {namespace}/{target.name}{name} has no ready endpoint")
    return Resolved(
        target,
        namespace,
        tuple(FilterEntry(canonical_ip(ip), port, proto) for ip, port, proto in sorted(ends)),
        frozenset((canonical_ip(ip), port) for ip, port, _ in ends),
        frozenset(nodes),
        tuple(warnings),
    )


def _in_front_of(pods: set[str], snapshot: ClusterSnapshot) -> set[tuple[str, int, str]]:
    """The Services' addresses behind which the pods are: what a client calls before the translation."""
    addresses: set[tuple[str, int, str]] = set()
    for service in snapshot.services:
        for port in service.spec.ports:
            if any(backend.ip in pods for backend in snapshot.backends(service, port)):
                ips = (*service.cluster_ips, *service.external_addresses)
                addresses |= {(canonical_ip(ip), port.port, port.protocol) for ip in ips}
    return addresses


def _pods(target: Target, pods: list[Pod], snapshot: ClusterSnapshot, namespace: str) -> Resolved:
    filters, servers, warnings = [], set(), []
    for pod in pods:
        port = target.port
        if isinstance(port, str):
            named = [p.container_port for p in pod.ports if p.name == port]
            if not named:
                raise InputError(f"pod {pod.metadata.name} has no port named {port!r}")
            port = named[0]
        if pod.spec.host_network:
            warnings.append(
                f"pod {pod.metadata.name} uses its node's network: all traffic of {', '.join(pod.ips)} is followed"
            )
        for ip in pod.ips:
            filters.append(FilterEntry(canonical_ip(ip), port or 0))
            servers.add((canonical_ip(ip), port or 0))
    if not filters:
        raise InputError(f"{target} has no address yet", hint="Its pods have not started; see `kubectl describe pod`.")
    nodes = frozenset(p.spec.node_name for p in pods if p.spec.node_name)
    addresses = frozenset(ip for ip, _ in servers)
    fronts = _in_front_of(set(addresses), snapshot)
    filters += [FilterEntry(ip, port, protocol) for ip, port, protocol in sorted(fronts)]
    servers |= {(ip, port) for ip, port, _ in fronts}
    return Resolved(target, namespace, tuple(filters), frozenset(servers), nodes, tuple(warnings), addresses)
