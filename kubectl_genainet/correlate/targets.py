"""What a target stands for: the addresses to follow, and which of them are the traced end."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.kube import Pod, Service, ServicePort
from kubectl_genainet.model.target import Target, TargetKind, not_found
from kubectl_genainet.wire import FilterEntry


@dataclass(frozen=True, slots=True)
class Resolved:
    """`filters` go to the kernel; `servers` are (address, port) of the traced end, port 0 for any; `nodes` host them."""

    target: Target
    namespace: str
    filters: tuple[FilterEntry, ...]
    servers: frozenset[tuple[str, int]]
    nodes: frozenset[str]
    warnings: tuple[str, ...] = ()


def resolve(target: Target, snapshot: ClusterSnapshot, namespace: str) -> Resolved:
    """The addresses behind a target now. Raises InputError, with near matches, for what does not exist."""
    namespace = target.namespace or namespace
    match target.kind:
        case TargetKind.SERVICE:
            return _service(target, snapshot, namespace)
        case TargetKind.ADDRESS:
            port = _number(target.port)
            entry = FilterEntry(target.name, port)
            pod = snapshot.pod_at(target.name)
            nodes = frozenset({pod.spec.node_name} if pod and pod.spec.node_name else ())
            return Resolved(target, namespace, (entry,), frozenset({(target.name, port)}), nodes)
        case _:
            return _pods(target, pods_of(target, snapshot, namespace), namespace)


def resolve_namespace(namespace: str, snapshot: ClusterSnapshot) -> Resolved:
    """All pods and Services of a namespace, as one target. Raises InputError where it has none.

    Pods that use their node's network are left out: their addresses are the node's.
    """
    filters: dict[FilterEntry, None] = {}
    for service in snapshot.services:
        if service.metadata.namespace == namespace and service.spec.type != "ExternalName":
            found = _service(Target(TargetKind.SERVICE, "Service", service.metadata.name), snapshot, namespace)
            filters |= dict.fromkeys(found.filters)
    nodes = set()
    for pod in snapshot.pods:
        if pod.metadata.namespace == namespace and not pod.spec.host_network and not pod.finished:
            filters |= dict.fromkeys(FilterEntry(canonical_ip(ip)) for ip in pod.ips)
            nodes.add(pod.spec.node_name)
    if not filters:
        known = sorted({p.metadata.namespace for p in snapshot.pods})
        raise not_found("namespace with pods or Services", namespace, known)
    servers = frozenset((entry.ip, entry.port) for entry in filters)
    target = Target(TargetKind.ADDRESS, "", f"namespace {namespace}")
    return Resolved(target, namespace, tuple(filters), servers, frozenset(nodes - {""}))


def _number(port: int | str | None) -> int:
    if isinstance(port, str):
        raise InputError(f"port {port!r} is a name, and only a Service or a pod knows names of ports")
    return port or 0


def ports_of(service: Service, port: int | str | None) -> tuple[ServicePort, ...]:
    """The Service's ports, or the one of that number or name. Raises InputError that lists them."""
    if port is None:
        return service.spec.ports
    found = tuple(p for p in service.spec.ports if port in (p.port, p.name))
    if not found:
        listed = ", ".join(f"{p.port}{f' ({p.name})' if p.name else ''}" for p in service.spec.ports)
        raise InputError(
            f"Service {service.metadata.namespace}/{service.metadata.name} has no port {port}",
            hint=f"Its ports are {listed}.",
        )
    return found


def _service(target: Target, snapshot: ClusterSnapshot, namespace: str) -> Resolved:
    service = snapshot.service(namespace, target.name)
    if service is None:
        known = [s.metadata.name for s in snapshot.services if s.metadata.namespace == namespace]
        raise not_found("Service", target.name, known, namespace=namespace)
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
        if not any(b.ready for b in backends):
            name = f" port {port.name or port.port}" if len(service.spec.ports) > 1 else ""
            warnings.append(f"Service {namespace}/{target.name}{name} has no ready endpoint")
    return Resolved(
        target, namespace, tuple(FilterEntry(canonical_ip(ip), port, proto) for ip, port, proto in sorted(ends)),
        frozenset((canonical_ip(ip), port) for ip, port, _ in ends), frozenset(nodes), tuple(warnings),
    )  # fmt: skip


def pods_of(target: Target, snapshot: ClusterSnapshot, namespace: str) -> tuple[Pod, ...]:
    """The pods that a pod or workload target stands for. Raises InputError where there is none."""
    if target.kind is TargetKind.POD:
        pod = snapshot.pod(namespace, target.name)
        if pod is None:
            known = [p.metadata.name for p in snapshot.pods if p.metadata.namespace == namespace]
            raise not_found("pod", target.name, known, namespace=namespace)
        return (pod,)
    workload = next(
        (o for o in snapshot.of(target.api_kind) if (o.namespace, o.name) == (namespace, target.name)), None
    )
    if workload is None:
        known = [o.name for o in snapshot.of(target.api_kind) if o.namespace == namespace]
        raise not_found(target.api_kind, target.name, known, namespace=namespace)
    wanted = workload.raw.get("spec", {}).get("selector", {}).get("matchLabels", {})
    pods = tuple(
        p
        for p in snapshot.pods
        if p.metadata.namespace == namespace
        and wanted
        and wanted.items() <= p.metadata.labels.items()
        and not p.finished
    )
    if not pods:
        raise InputError(f"{target.api_kind} {namespace}/{target.name} has no pods", hint="Is it scaled to zero?")
    return pods


def _pods(target: Target, pods: tuple[Pod, ...], namespace: str) -> Resolved:
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
    return Resolved(target, namespace, tuple(filters), frozenset(servers), nodes, tuple(warnings))
