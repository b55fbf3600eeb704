"""From what a user points at to the ends of flows: pods, a workload's pods, a Service's ready backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import KubeObject, Pod, Service, ServicePort
from kubectl_genainet.model.target import (
    Target,
    TargetKind,
    elsewhere_only,
    must_be_read,
    not_found,
    pod_named,
    service_named,
)
from kubectl_genainet.model.units import whole_number
from kubectl_genainet.model.workload_kinds.kinds import pod_templates
from kubectl_genainet.policy.flows.names import in_cluster
from kubectl_genainet.policy.flows.node_ports import NodeEntry
from kubectl_genainet.policy.matching.api_servers import (
    API_SERVER,
    addresses_in_endpoints,
    api_servers,
    arrives_at,
    is_its_service,
)
from kubectl_genainet.policy.matching.selectors import RawSelector, selector_of
from kubectl_genainet.policy.model import PolicyEndpoint, PolicyFlow, domain_endpoint, ip_endpoint, pod_endpoint
from kubectl_genainet.policy.where import Where

_LONGEST_CHAIN = 5
_EVERY_ADDRESS = ("", "0.0.0.0", "::")


class _WorkloadSpec(msgspec.Struct, frozen=True):
    selector: RawSelector = RawSelector()


class _Workload(msgspec.Struct, frozen=True):
    spec: _WorkloadSpec = _WorkloadSpec()


class FlowDestination(NamedTuple):
    """An end of a flow with the port that the flow arrives at; `service` is set where a Service stands before it."""

    endpoint: PolicyEndpoint
    protocol: str
    port: int
    service: str = ""
    entry: NodeEntry | None = None  # where the connection is sent to a port of a node or to a load balancer


class SentFlow(NamedTuple):
    """A flow as it arrives, with the Service ("namespace/name", or "") and the port of a node that it was sent to."""

    flow: PolicyFlow
    service: str = ""
    entry: NodeEntry | None = None


def flows_between(
    snapshot: ClusterSnapshot, source: Target | str, target: Target | str, *, namespace: str, protocol: str
) -> list[SentFlow]:
    """Every flow that SRC → DST stands for.

    A `str` is a domain name. Names without a namespace are looked up in `namespace`. Raises InputError.
    """
    sources = source_endpoints(snapshot, source, namespace)
    destinations = destinations_of(snapshot, target, namespace, protocol)
    flows = [
        SentFlow(PolicyFlow(s, d.endpoint, d.protocol, d.port), d.service, d.entry)
        for s in sources
        for d in destinations
        if not (s.name and (s.namespace, s.name) == (d.endpoint.namespace, d.endpoint.name)) or len(sources) == 1
    ]
    if not flows:
        raise InputError(f"{source} and {target} are the same pod")
    return flows


def source_endpoints(snapshot: ClusterSnapshot, target: Target | str, namespace: str) -> list[PolicyEndpoint]:
    if isinstance(target, str):
        raise InputError(f"a flow can't start at the name {target!r}", hint="Give the address that it comes from.")
    if target.kind is TargetKind.ADDRESS:
        return [ip_endpoint(target.name)]
    if target.kind is TargetKind.SERVICE:
        service = service_named(snapshot, target.namespace or namespace, target.name)
        return list(dict.fromkeys(d.endpoint for p in service.spec.ports for d in backends_of(snapshot, service, p)))
    return [_endpoint(p) for p in pods_named(snapshot, target, namespace)]


def destinations_of(
    snapshot: ClusterSnapshot, target: Target | str, namespace: str, protocol: str
) -> list[FlowDestination]:
    """Where connections to the target arrive, after Service address translation."""
    if isinstance(target, str):
        host, port = _host_and_port(target)
        inside = in_cluster(snapshot, host, port, namespace)
        if inside is None:
            return [FlowDestination(domain_endpoint(host), protocol or "TCP", _port_number(port, host))]
        target = inside
    if target.kind is TargetKind.ADDRESS:
        return _at_address(snapshot, target, protocol or "TCP")
    if target.kind is TargetKind.SERVICE:
        return _through_service(snapshot, target, namespace, protocol)
    return [d for pod in pods_named(snapshot, target, namespace) for d in _pod_ports(pod, target, protocol)]


def _through_service(
    snapshot: ClusterSnapshot, target: Target, namespace: str, protocol: str, seen: frozenset[str] = frozenset()
) -> list[FlowDestination]:
    """Where connections to a Service arrive. One of type ExternalName is an alias: of another Service or of a domain."""
    wanted = target.namespace or namespace, target.name
    known = api_servers(snapshot) if is_its_service(*wanted) and snapshot.service(*wanted) is None else {}
    if known:  # the Service itself was not read
        return [FlowDestination(ip_endpoint(ip), "TCP", number, "/".join(wanted)) for ip, number in known.items()]
    service = service_named(snapshot, *wanted)
    where, name = service.metadata.namespace, f"{service.metadata.namespace}/{service.metadata.name}"
    if service.spec.type != "ExternalName":
        return [d for p in _service_ports(service, target, protocol) for d in backends_of(snapshot, service, p)]
    host = service.spec.external_name.rstrip(".")
    if name in seen:
        raise InputError(f"Service {name} is an alias of itself")
    ports = [p for p in service.spec.ports if target.port in (None, p.port, p.name)]
    numbers: list[tuple[str, int | str | None]] = [(p.protocol, p.port) for p in ports]
    if isinstance(target.port, int) and not ports:
        numbers = [(protocol or "TCP", target.port)]  # an alias in DNS has no ports: any can be asked for
    if not numbers:
        raise InputError(
            f"Service {name} is an alias of {host} and needs a port", hint=f"Give one: svc/{target.name}:443"
        )
    destinations: list[FlowDestination] = []
    for proto, number in numbers:
        inside = in_cluster(snapshot, host, number, where)
        if inside is None:
            destinations.append(FlowDestination(domain_endpoint(host), proto, _port_number(number, host), name))
        elif inside.kind is TargetKind.SERVICE:
            destinations += _through_service(snapshot, inside, where, protocol, seen | {name})
        else:
            destinations += destinations_of(snapshot, inside, where, proto)
    return destinations


def backends_of(snapshot: ClusterSnapshot, service: Service, port: ServicePort) -> list[FlowDestination]:
    """The ready backends of a Service port, from its EndpointSlices; from its selector where it has none.

    Manifests mostly hold no slices: every pod that the selector selects counts as ready then, and for a Service without a
    selector its Endpoints do. Raises InputError where there is no backend.
    """
    name = f"{service.metadata.namespace}/{service.metadata.name}"
    backends = []
    where = service.metadata.namespace
    if snapshot.has_slices(service):
        for backend in snapshot.backends(service, port):
            if backend.ready:
                pod = snapshot.pod(where, backend.pod) if backend.pod else None
                endpoint = _endpoint(pod, backend.ip) if pod else ip_endpoint(backend.ip)
                backends.append(
                    FlowDestination(endpoint, port.protocol, _arrives_at(service, port, backend.port), name)
                )
    elif not service.spec.selector:
        backends = [
            FlowDestination(ip_endpoint(ip) if ip else domain_endpoint(API_SERVER), port.protocol, number, name)
            for ip, number in _endpoints(snapshot, service, port)
        ]
    else:
        for pod in snapshot.pods:
            wanted = service.spec.selector.items()
            if pod.metadata.namespace == service.metadata.namespace and wanted <= pod.metadata.labels.items():
                number = _target_port(pod, port)
                if number and not pod.finished:
                    arrives = _arrives_at(service, port, number)
                    backends.append(
                        FlowDestination(_endpoint(pod, _of_family(service, pod)), port.protocol, arrives, name)
                    )
    if not backends:
        raise InputError(
            f"Service {name} port {port.port} has no ready backend: there is no flow to judge",
            hint="`kubectl genainet doctor` says why a Service has no endpoints.",
        )
    return backends


def _arrives_at(service: Service, port: ServicePort, target: int) -> int:
    """The port that a client's connection arrives at. A headless Service is a name for addresses: nothing translates the port."""
    return port.port if service.spec.cluster_ip == "None" else target


def _of_family(service: Service, pod: Pod) -> str:
    """The pod's address of the one IP version that a Service has; "" where it has both, or is not known to have one."""
    versions = {":" in ip for ip in service.cluster_ips}
    return next((ip for ip in pod.ips if {":" in ip} == versions), "")


def _endpoints(snapshot: ClusterSnapshot, service: Service, port: ServicePort) -> Iterator[tuple[str, int]]:
    """The addresses and ports in the Endpoints (v1) of a Service, which older manifests have instead of slices; an empty
    address for an API server whose address was not read."""
    meta = service.metadata
    for ip, ports in addresses_in_endpoints(snapshot, meta.namespace, meta.name):
        yield from ((ip, p.port) for p in ports if (p.name, p.protocol) == (port.name, port.protocol))
    if is_its_service(meta.namespace, meta.name) and not api_servers(snapshot):
        yield "", arrives_at(service, port.port)


def _target_port(pod: Pod, port: ServicePort) -> int:
    if isinstance(port.target_port, int):
        return port.target_port or port.port
    named = [p for p in pod.ports if p.name == port.target_port and p.protocol == port.protocol]
    return named[0].container_port if named else 0


def _service_ports(service: Service, target: Target, protocol: str) -> list[ServicePort]:
    ports = [p for p in service.spec.ports if not protocol or p.protocol == protocol]
    if target.port is not None:
        ports = [p for p in ports if target.port in (p.port, p.name)]
    if not ports:
        there = ", ".join(f"{p.port}/{p.protocol}" + (f" ({p.name})" if p.name else "") for p in service.spec.ports)
        raise InputError(f"Service {service.metadata.name} has no such port; it has {there or 'none'}")
    return ports


def pods_named(snapshot: ClusterSnapshot, target: Target, namespace: str) -> list[Pod]:
    """The pods that a pod or workload target stands for. Raises InputError where there is none."""
    where = target.namespace or namespace
    if target.kind is TargetKind.POD:
        return [pod_named(snapshot, where, target.name)]
    workload = next(iter(snapshot.named(target.api_kind, where, target.name)), None)
    if workload is None:
        must_be_read(snapshot, target.api_kind, where)
        elsewhere = sorted(o.namespace for o in snapshot.by_kind.get(target.api_kind, ()) if o.name == target.name)
        if elsewhere:
            raise elsewhere_only(target.api_kind, target.word, target.name, where, elsewhere)
        others = [o.name for o in snapshot.by_kind.get(target.api_kind, ()) if o.namespace == where]
        raise not_found(target.api_kind, target.name, others, namespace=where)
    pods = list(
        _pods_of(snapshot, workload, [p for p in snapshot.pods if p.metadata.namespace == where and not p.finished])
    )
    if not pods:
        must_be_read(snapshot, "Pod", where)
        raise InputError(f"{workload.ref} has no pods", hint="Is it scaled to zero?")
    return pods


def _pods_of(snapshot: ClusterSnapshot, workload: KubeObject, pods: Iterable[Pod]) -> Iterable[Pod]:
    """The pods of a workload: those that it owns, if only through others, that it selects, or that its controller labels."""
    raw = workload.decode(_Workload).spec.selector
    selector = selector_of(raw, Where(workload).at("spec").at("selector"))
    added = [t.added_labels.items() for t in pod_templates(workload, snapshot.by_kind) if t.added_labels]
    for pod in pods:
        labels = pod.metadata.labels
        owners = [(o.kind, o.name) for o in pod.metadata.owner_references]
        if (
            _leads_to(snapshot, owners, workload)
            or (selector.requirements and selector.matches(labels))
            or any(wanted <= labels.items() for wanted in added)
        ):
            yield pod


def _leads_to(snapshot: ClusterSnapshot, owners: list[tuple[str, str]], workload: KubeObject) -> bool:
    """Whether a chain of owners leads to a workload."""
    for _ in range(_LONGEST_CHAIN):
        if (workload.kind, workload.name) in owners:
            return True
        owners = [
            (str(ref.get("kind")), str(ref.get("name")))
            for kind, name in owners
            for obj in snapshot.named(kind, workload.namespace, name)
            for ref in obj.owner_references
        ]
    return False


def _pod_ports(pod: Pod, target: Target, protocol: str) -> list[FlowDestination]:
    if isinstance(target.port, int):
        return [FlowDestination(_endpoint(pod), protocol or "TCP", target.port)]
    ports = [p for p in pod.ports if not protocol or p.protocol == protocol]
    if target.port is not None:
        ports = [p for p in ports if p.name == target.port]
    if not ports:
        wanted = f"no port named {target.port}" if target.port else "no declared port"
        with_port = msgspec.structs.replace(target, port=8080)
        raise InputError(
            f"pod {pod.metadata.namespace}/{pod.metadata.name} has {wanted}", hint=f"Give one: {with_port}"
        )
    declared = dict.fromkeys((p.protocol, p.container_port) for p in ports)
    return [FlowDestination(_endpoint(pod), proto, number) for proto, number in declared]


def _at_address(snapshot: ClusterSnapshot, target: Target, protocol: str) -> list[FlowDestination]:
    if not isinstance(target.port, int):
        raise InputError(f"{target} needs a port number", hint=f"Give one: {target.name}:443")
    behind = snapshot.service_at(target.name, target.port, protocol)
    by_balancer = behind is not None and _proxies(behind.service, target.name)
    at_entry = by_balancer or snapshot.node_at(target.name) is not None
    entry = NodeEntry(target.name, target.port) if at_entry else None
    if behind is not None:
        return [d._replace(entry=entry) for d in backends_of(snapshot, behind.service, behind.port)]
    if entry is not None:
        ports = list(_host_ports(snapshot, entry, protocol))
        if ports:
            return ports
    return [FlowDestination(ip_endpoint(target.name), protocol, target.port)]


def _proxies(service: Service, address: str) -> bool:
    """Whether an address is a load balancer's that takes connections itself (ipMode Proxy)."""
    balancers = service.status.load_balancer.ingress
    return any(b.ip_mode == "Proxy" and canonical_ip(b.ip) == canonical_ip(address) for b in balancers if b.ip)


def _host_ports(snapshot: ClusterSnapshot, entry: NodeEntry, protocol: str) -> Iterator[FlowDestination]:
    """The pods that a port of a node leads to."""
    node = snapshot.node_at(entry.address)
    for pod in snapshot.pods if node is not None else ():
        if node is None or pod.spec.node_name != node.metadata.name or pod.spec.host_network or pod.finished:
            continue
        for port in pod.ports:
            address = canonical_ip(port.host_ip) if port.host_ip not in _EVERY_ADDRESS else entry.address
            if (port.host_port, port.protocol, address) == (entry.port, protocol, canonical_ip(entry.address)):
                yield FlowDestination(_endpoint(pod), protocol, port.container_port, entry=entry)


def _host_and_port(text: str) -> tuple[str, int | str | None]:
    host, _, port = text.partition(":")
    number = whole_number(port)
    return host, (port or None) if number is None else number


def _port_number(port: int | str | None, host: str) -> int:
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise InputError(f"{host} needs a port number", hint=f"Give one: {host}:443")
    return port


def _endpoint(pod: Pod, ip: str = "") -> PolicyEndpoint:
    return pod_endpoint(pod.metadata.namespace, pod.metadata.name, ip)
