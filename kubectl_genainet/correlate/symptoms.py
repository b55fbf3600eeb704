"""What a path shows beyond the kernel's own reason: one small function a symptom, each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kubectl_genainet.correlate.connections import Connection
from kubectl_genainet.correlate.identity import Identity
from kubectl_genainet.model.events import IcmpError
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Severity
from kubectl_genainet.model.path import PacketPath, Verdict

# RFC 792, RFC 1812 5.2.7.1, RFC 4443
_ICMP4 = {
    (3, 0): "network unreachable", (3, 1): "host unreachable", (3, 2): "protocol unreachable", (3, 3): "port unreachable",
    (3, 4): "fragmentation needed", (3, 9): "network prohibited", (3, 10): "host prohibited",
    (3, 13): "administratively prohibited", (11, 0): "TTL exceeded",
}  # fmt: skip
_ICMP6 = {
    (1, 0): "no route", (1, 1): "administratively prohibited", (1, 3): "address unreachable", (1, 4): "port unreachable",
    (1, 5): "policy", (2, 0): "packet too big", (3, 0): "hop limit exceeded",
}  # fmt: skip


def icmp_name(event: IcmpError) -> str:
    """An ICMP error's meaning in words; type and code where it has no name here."""
    names = _ICMP4 if event.family == 4 else _ICMP6
    return names.get((event.type, event.code), f"type {event.type} code {event.code}")


def told_by_icmp(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The sender was told by an ICMP error why its packet did not arrive."""
    if not connection.icmp:
        return None
    first = connection.icmp[0]
    mtu = f", MTU {first.mtu}" if first.mtu else ""
    statement = f"ICMP {icmp_name(first)}{mtu} from {first.src} to {first.dst}, seen on {first.device or 'no device'}"
    return Finding(
        "icmp-error", f"the sender was told: {icmp_name(first)}", Severity.ERROR,
        (Evidence(statement, Certainty.OBSERVED, node=first.node),),
    )  # fmt: skip


def stale_endpoint(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The rules sent the packet to an address that no EndpointSlice of the Service has."""
    service, backend = path.flow.service, path.backend
    if service is None or backend is None or path.nat is None:
        return None
    found = identity.snapshot.service(service.namespace, service.name)
    if found is None:
        return None
    port = next((p for p in found.spec.ports if p.port == service.port and p.name == service.port_name), None)
    if port is None or any(
        (b.ip, b.port) == (backend.ip, backend.port) for b in identity.snapshot.backends(found, port)
    ):
        return None
    ref = ObjectRef("Service", service.name, service.namespace)
    chain = path.nat.endpoint_chain or "a rule"
    return Finding(
        "stale-endpoint", f"{chain} sends {service.name} to {backend.ip}:{backend.port}, which is no endpoint of it",
        Severity.ERROR,
        (
            Evidence(f"the packet was translated to {path.nat.after}", Certainty.OBSERVED),
            Evidence("no EndpointSlice of the Service has that address and port", Certainty.ASSUMED, object=ref),
        ),
        object=ref,
    )  # fmt: skip


def no_endpoints(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The packet never left the Service's address, and the Service has no ready endpoint."""
    service = path.flow.service
    if service is None or path.backend is not None:
        return None
    found = identity.snapshot.service(service.namespace, service.name)
    if found is None:
        return None
    ready = [
        b for p in found.spec.ports if p.port == service.port for b in identity.snapshot.backends(found, p) if b.ready
    ]
    if ready:
        return None
    ref = ObjectRef("Service", service.name, service.namespace)
    return Finding(
        "no-endpoints", f"Service {service.namespace}/{service.name} has no ready endpoint", Severity.ERROR,
        (Evidence("its EndpointSlices hold no ready address", Certainty.ASSUMED, object=ref),), object=ref,
    )  # fmt: skip


def unanswered(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The first packet was sent again and again and nothing came back; nothing says why."""
    if (
        path.drop is not None
        or connection.icmp
        or connection.resets
        or connection.answer
        or path.verdict is Verdict.FORWARDED
    ):
        return None
    last = path.hops[-1] if path.hops else None
    where = (
        f"last seen on {last.device} of {last.pod or last.node} ({last.point})" if last else "not seen on any device"
    )
    return Finding(
        "unanswered", f"no answer, and no drop was seen: {where}", Severity.WARNING,
        (Evidence(f"{path.attempts} first packets sent, none answered", Certainty.OBSERVED),),
    )  # fmt: skip


SYMPTOMS: tuple[Callable[[PacketPath, Connection, Identity], Finding | None], ...] = (
    no_endpoints, stale_endpoint, told_by_icmp, unanswered,
)  # fmt: skip


def symptoms(path: PacketPath, connection: Connection, identity: Identity) -> Iterator[Finding]:
    """Every symptom that the path shows."""
    for symptom in SYMPTOMS:
        found = symptom(path, connection, identity)
        if found is not None:
            yield found
