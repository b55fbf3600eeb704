"""What a path shows beyond the kernel's own reason: one small function a symptom, each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.events import IcmpError, Point
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Severity, counted
from kubectl_genainet.model.reasons import icmp_meaning
from kubectl_genainet.model.results.path import PacketPath, Verdict
from kubectl_genainet.trace.connections import Connection, Direction


def icmp_name(event: IcmpError) -> str:
    """An ICMP error's meaning in words; type and code where it has no name here."""
    return icmp_meaning(event.family, event.type, event.code)


def _icmp_words(event: IcmpError) -> str:
    mtu = f", MTU {event.mtu}" if event.mtu else ""
    return f"ICMP {icmp_name(event)}{mtu} from {event.src} to {event.dst}"


def told_by_icmp(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The sender was told by an ICMP error why its packet did not arrive."""
    seen = [e for e in connection.icmp if e.point is not Point.DROP]
    if not seen:
        return None
    first = seen[0]
    statement = f"{_icmp_words(first)}, seen on {first.device or 'no device'}"
    return Finding(
        "icmp-error",
        f"the sender was told: {icmp_name(first)}",
        Severity.ERROR,
        (Evidence(statement, Certainty.OBSERVED, node=first.node),),
    )


def icmp_dropped(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The ICMP error that would have told the sender was itself dropped: a black hole."""
    dropped = [e for e in connection.icmp if e.point is Point.DROP]
    if not dropped:
        return None
    first = dropped[0]
    where = f"{f'in {first.hook} ' if first.hook else ''}on {first.node}"
    return Finding(
        "icmp-dropped",
        f"the sender was not told: the ICMP error ({icmp_name(first)}) was dropped {where}",
        Severity.ERROR,
        (Evidence(f"{_icmp_words(first)}: {first.reason or 'dropped'}", Certainty.OBSERVED, node=first.node),),
    )


def reset(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """An established connection was reset from the server's side before it had answered: by the pod, or by a rule."""
    replies = [event for event, direction in connection.resets if direction is Direction.REPLY]
    if not replies or not connection.answer or connection.reply_data:
        return None
    first = min(replies, key=lambda e: e.t_ns)
    pod = identity.pod_in(first.node, first.netns)
    evidence = (
        Evidence(
            f"RST first seen on {first.device or 'no device'} ({first.point.value})",
            Certainty.OBSERVED,
            node=first.node,
        ),
    )
    if pod is not None and first.point is Point.TX:
        name = f"{pod.metadata.namespace}/{pod.metadata.name}"
        title = f"pod {name} reset the connection after the handshake, without an answer: its application closed it"
        return Finding("reset-by-app", title, Severity.ERROR, evidence, object=pod.ref)
    title = f"the connection was reset by a packet that was made on node {first.node}, not by the pod"
    return Finding("reset-on-path", title, Severity.ERROR, evidence)


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
        "stale-endpoint",
        f"{chain} sends {service.name} to {backend.ip}:{backend.port}, which is no endpoint of it",
        Severity.ERROR,
        (
            Evidence(f"the packet was translated to {path.nat.after}", Certainty.OBSERVED),
            Evidence("no EndpointSlice of the Service has that address and port", Certainty.ASSUMED, object=ref),
        ),
        object=ref,
    )


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
        "no-endpoints",
        f"Service {service.namespace}/{service.name} has no ready endpoint",
        Severity.ERROR,
        (Evidence("its EndpointSlices hold no ready address", Certainty.ASSUMED, object=ref),),
        object=ref,
    )


def listen_queue_full(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """First packets arrive in a pod whose listening sockets' queues have overflown, and nothing answers."""
    if path.drop is not None or connection.answer or connection.resets or not path.hops:
        return None
    last = max(connection.first, key=lambda e: e.t_ns, default=None)
    counters = identity.listen_overflows(last.node, last.netns) if last is not None else None
    if last is None or not counters:
        return None
    pod = identity.pod_in(last.node, last.netns)
    place = identity.place(last.node, last.netns)
    return Finding(
        "listen-overflow",
        f"the listen queue of {place} is full: its application does not accept connections",
        Severity.ERROR,
        (
            Evidence(f"the SYN arrived on {last.device}, no SYN-ACK left", Certainty.OBSERVED, node=last.node),
            Evidence(f"TcpExt ListenOverflows grew by {counters} meanwhile", Certainty.OBSERVED, node=last.node),
        ),
        object=pod.ref if pod else None,
    )


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
        "unanswered",
        f"no answer, and no drop was seen: {where}",
        Severity.WARNING,
        (Evidence(f"{counted(path.attempts, 'first packet')} sent, none answered", Certainty.OBSERVED),),
    )


SYMPTOMS: tuple[Callable[[PacketPath, Connection, Identity], Finding | None], ...] = (
    no_endpoints,
    stale_endpoint,
    told_by_icmp,
    icmp_dropped,
    reset,
    listen_queue_full,
    unanswered,
)


def symptoms(path: PacketPath, connection: Connection, identity: Identity) -> Iterator[Finding]:
    """Every symptom that the path shows."""
    for symptom in SYMPTOMS:
        found = symptom(path, connection, identity)
        if found is not None:
            yield found
