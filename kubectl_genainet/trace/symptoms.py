"""What a path shows beyond the kernel's own reason: one small function a symptom, each with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.context.unread import unread
from kubectl_genainet.model.diagnoses.connections import (
    CONNECTION_MOVED,
    DATAGRAMS_LOST,
    DETOUR,
    ICMP_DROPPED,
    ICMP_ERROR,
    ICMP_LIMITED,
    ROUTING_LOOP,
    STALE_ENDPOINT,
    STOPPED_ARRIVING,
    UNANSWERED,
)
from kubectl_genainet.model.diagnoses.rules import NO_ENDPOINTS
from kubectl_genainet.model.diagnoses.sockets import (
    LISTEN_OVERFLOW,
    SYN_QUEUE_FULL,
)
from kubectl_genainet.model.events import FlowCounters, IcmpError, Point
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, counted
from kubectl_genainet.model.node import ICMP_LIMITS
from kubectl_genainet.model.packet import Protocol, address_text
from kubectl_genainet.model.reasons import icmp_meaning
from kubectl_genainet.model.results.path import BY_ENTRY, ConnectionOutcome, PacketPath, Verdict
from kubectl_genainet.trace.entries import stale_entry
from kubectl_genainet.trace.fate import Around
from kubectl_genainet.trace.joining.connection import Connection, PacketDirection
from kubectl_genainet.trace.resets import reset, sent_after_close
from kubectl_genainet.trace.slow_way import slow_handshake


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
    return ICMP_ERROR.finding(
        f"the sender was told: {icmp_name(first)}",
        (Evidence(statement, Certainty.OBSERVED, node=first.node),),
    )


def icmp_dropped(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The ICMP error that would have told the sender was itself dropped: a black hole."""
    dropped = [e for e in connection.icmp if e.point is Point.DROP]
    if not dropped:
        return None
    first = dropped[0]
    where = f"{f'in {first.hook} ' if first.hook else ''}on {first.node}"
    return ICMP_DROPPED.finding(
        f"the sender was not told: the ICMP error ({icmp_name(first)}) was dropped {where}",
        (Evidence(f"{_icmp_words(first)}: {first.reason or 'dropped'}", Certainty.OBSERVED, node=first.node),),
    )


def icmp_limited(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The kernel's limit of ICMP errors kept the rule that rejects from telling the sender."""
    drop = path.drop
    if drop is None or not (drop.told or "").startswith("icmp") or connection.icmp:
        return None
    for died in connection.drops:
        event = died.event
        for counter in ICMP_LIMITS:
            grown = identity.grown(event.node, event.netns, counter)
            if grown > 0:
                place = identity.place(event.node, event.netns)
                return ICMP_LIMITED.finding(
                    f"no error reached the sender: {place} held ICMP errors back, being over its limit",
                    (Evidence(f"{counter} grew by {grown} in {place} meanwhile", Certainty.OBSERVED, node=event.node),),
                )
    return None


def moved(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """Later packets of the connection were translated to another end than its first: its entry in a connection table was
    gone, and the Service's rules chose anew."""
    for flow, seen in connection.moved.items():
        now, before = identity.party(flow.dst, flow.dport), path.backend
        was = (before.pod or address_text(before.ip, before.port)) if before is not None else "its backend"
        title = (
            f"the client's later packets went to {now.pod or flow.destination} instead of {was}: the connection's entry in the "
            f"connection table of {seen.node} was gone (expired, flushed or evicted), and the Service's rules chose anew"
        )
        evidence = (
            Evidence(f"data for {flow.destination} on {seen.device}, and no SYN", Certainty.OBSERVED, node=seen.node),
            Evidence(
                "its client's port and sequence numbers are this connection's", Certainty.OBSERVED, node=seen.node
            ),
        )
        return CONNECTION_MOVED.finding(title, evidence)
    return None


def datagrams_lost(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """A flow of datagrams was answered, but not all of it."""
    if connection.protocol is Protocol.TCP or path.outcome is not ConnectionOutcome.ANSWERED or path.drop is None:
        return None
    number = path.recovered_drops
    title = (
        f"{counted(number, 'datagram')} of the flow {'was' if number == 1 else 'were'} dropped: {path.drop.explanation}"
    )
    return DATAGRAMS_LOST.finding(title, path.drop.evidence)


def detour(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """A connection failed at a node that neither end is on, and that it was not sent to."""
    drop, backend, client = path.drop, path.backend, path.flow.client
    if drop is None or drop.pod is not None or backend is None or not (backend.node and client.node and drop.node):
        return None
    asked = path.hops[0].dst.rpartition(":")[0].strip("[]") if path.hops else ""
    if drop.node in (backend.node, client.node) or identity.party(asked, None).node == drop.node:
        return None
    title = (
        f"packets for {backend.pod or backend.ip} on {backend.node} came to {drop.node} and died there: another node answers for "
        "the address of the next hop (used twice, or a stale neighbour entry), or a route leads there"
    )
    evidence = Evidence(
        f"a packet to {backend.ip} on {drop.device or 'a device'} of {drop.node}", Certainty.OBSERVED, node=drop.node
    )
    return DETOUR.finding(title, (evidence,))


def circling(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The first packet came by the same place again and again."""
    if not connection.passed_again:
        return None
    place, times = max(connection.passed_again.items(), key=lambda item: item[1])
    node, netns, ifindex, point = place
    device = identity.device(node, netns, ifindex) or "a device"
    title = f"a packet goes in a circle: it passed {device} of {identity.place(node, netns)} ({point.value}) {times + 1} times"
    evidence = Evidence("the same IP id and sequence number, with the same tuple", Certainty.OBSERVED, node=node)
    return ROUTING_LOOP.finding(title, (evidence,))


def stale_endpoint(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The rules sent the packet to an address that no EndpointSlice of the Service has."""
    service, backend = path.flow.service, path.backend
    if service is None or backend is None or path.nat is None:
        return None
    current = identity.snapshot.service(service.namespace, service.name)
    if current is None or unread(identity.snapshot, "EndpointSlice", service.namespace):
        return None
    port = next((p for p in current.spec.ports if p.port == service.port and p.name == service.port_name), None)
    if port is None or any(
        (b.ip, b.port) == (backend.ip, backend.port) for b in identity.snapshot.backends(current, port)
    ):
        return None
    ref = ObjectRef("Service", service.name, service.namespace)
    if path.nat.mode == BY_ENTRY:
        return stale_entry(path, service, backend, ref)
    sender = f"{path.nat.endpoint_chain or 'a rule'}{_of_node(path)}"
    if path.nat.certainty is Certainty.UNKNOWN:
        sender = "a rule or an entry of the connection table, which one is not known,"
    return STALE_ENDPOINT.finding(
        f"{sender} sends {service.name} to {backend.ip}:{backend.port}, which is no endpoint of it",
        (
            Evidence(f"the packet was translated to {path.nat.after}", Certainty.OBSERVED),
            Evidence("no EndpointSlice of the Service has that address and port", Certainty.ASSUMED, object=ref),
        ),
        object=ref,
    )


def _of_node(path: PacketPath) -> str:
    """ " of node-1", which translated the packet."""
    return f" of {path.hops[path.nat.hop or 0].node}" if path.nat is not None and path.hops else ""


def no_endpoints(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The packet never left the Service's address, and the Service has no ready endpoint."""
    service = path.flow.service
    if service is None or path.backend is not None:
        return None
    current = identity.snapshot.service(service.namespace, service.name)
    if current is None or unread(identity.snapshot, "EndpointSlice", service.namespace):
        return None
    ready = [
        b
        for p in current.spec.ports
        if p.port == service.port
        for b in identity.snapshot.backends(current, p)
        if b.ready
    ]
    if ready:
        return None
    return no_ready_endpoint(service.namespace, service.name)


def no_ready_endpoint(namespace: str, name: str) -> Finding:
    """Of a Service whose EndpointSlices were read."""
    ref = ObjectRef("Service", name, namespace)
    return NO_ENDPOINTS.finding(
        f"Service {namespace}/{name} has no ready endpoint",
        (Evidence("its EndpointSlices hold no ready address", Certainty.ASSUMED, object=ref),),
        object=ref,
    )


_QUEUES = {
    "TCPReqQFullDrop": (
        SYN_QUEUE_FULL,
        "the queue of half-open connections of {place} is full: SYNs are dropped there silently",
    ),
    "ListenOverflows": (
        LISTEN_OVERFLOW,
        "the listen queue of {place} is full: its application does not accept connections",
    ),
}


def listen_queue_full(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """First packets arrive in a pod whose listening sockets' queues have overflown, and nothing answers."""
    last = max(connection.first, key=lambda e: e.t_ns, default=None)
    if path.outcome is not ConnectionOutcome.UNANSWERED or connection.answer or last is None:
        return None
    if connection.protocol is not Protocol.TCP or not identity.owns(last.node, last.netns, last.flow.dst):
        return None
    for counter, (diagnosis, title) in _QUEUES.items():
        grown = identity.grown(last.node, last.netns, counter)
        if grown > 0:
            pod = identity.pod_in(last.node, last.netns)
            arrived = f"the SYN arrived on {last.device}, no SYN-ACK left"
            return diagnosis.finding(
                title.format(place=identity.place(last.node, last.netns)),
                (
                    Evidence(arrived, Certainty.OBSERVED, node=last.node),
                    Evidence(f"TcpExt {counter} grew by {grown}", Certainty.OBSERVED, node=last.node),
                ),
                object=pod.ref if pod else None,
            )
    return None


def unanswered(path: PacketPath, connection: Connection, identity: Identity, around: Around) -> Finding | None:
    """Nothing came back, or nothing new arrived any more, and no drop was seen that says why."""
    if path.verdict is not Verdict.UNANSWERED or listen_queue_full(path, connection, identity) is not None:
        return None
    waited = Evidence(path.waited, Certainty.OBSERVED)
    if connection.answer or connection.reply_data or connection.mid_stream:
        direction = PacketDirection.REPLY if _stuck_in_reply(connection) else PacketDirection.REQUEST
        lost = lost_between(connection, direction, identity, around)
        title = f"the {direction.value} stopped arriving, and no drop was seen: {lost}"
        return STOPPED_ARRIVING.finding(title, (waited,))
    last = path.hops[-1] if path.hops else None
    sent = Evidence(f"{counted(path.attempts, 'first packet')} sent, none answered", Certainty.OBSERVED)
    where = (
        f"last seen on {last.device} of {last.pod or last.node} ({last.point})" if last else "not seen on any device"
    )
    title = f"no answer, and no drop was seen: {where}"
    if last is not None and connection.first:
        seen = max(connection.first, key=lambda e: e.t_ns)
        if identity.owns(seen.node, seen.netns, seen.flow.dst):
            place = identity.place(seen.node, seen.netns)
            title = f"no answer: the SYN arrived in {place}, which did not answer it, and no drop was seen there"
    return UNANSWERED.finding(title, (sent, waited))


def _stuck_in_reply(connection: Connection) -> bool:
    if connection.again:
        return connection.again[-1].direction is PacketDirection.REPLY
    return bool(connection.answer) and not connection.request_data


def lost_between(connection: Connection, direction: PacketDirection, identity: Identity, around: Around) -> str:
    """Between which two places data of a direction went missing, by how much each counted, however often it was sent. (Packets
    are merged and split on the way.) A node that has not counted since the first one did may still come to the same."""
    first = connection.request_data if direction is PacketDirection.REQUEST else connection.reply_data
    reached = sorted(connection.answer, key=lambda e: e.t_ns) if not first else []
    if reached and direction is PacketDirection.REPLY:
        last = reached[-1]
        return f"last seen on {last.device} of {identity.place(last.node, last.netns)} ({last.point.value})"
    counts = [c.latest for (place, _), c in connection.counts.items() if c.direction is direction and place in first]
    counts.sort(key=lambda c: first[c.node, c.netns, c.ifindex, c.point])
    if not counts:
        return "where is not known"
    first_counted = around.wall(counts[0].node, counts[0].t_ns)
    if len({count.node for count in counts}) > 1 and first_counted > around.counted_ns:
        return "where is not known, as not all nodes have counted since"
    most = counts[0].data_bytes
    before = counts[0]
    for count in counts:
        if count.data_bytes < most:
            got = f"{count.data_bytes} of {most} bytes arrived there"
            return f"lost between {_spot(before, identity)} and {_spot(count, identity)} ({got})"
        before = count
    return f"last seen on {_spot(before, identity)}"


def _spot(count: FlowCounters, identity: Identity) -> str:
    return f"{count.device} of {identity.place(count.node, count.netns)} ({count.point.value})"


SYMPTOMS: tuple[Callable[[PacketPath, Connection, Identity], Finding | None], ...] = (
    no_endpoints,
    stale_endpoint,
    told_by_icmp,
    icmp_dropped,
    icmp_limited,
    sent_after_close,
    moved,
    datagrams_lost,
    detour,
    circling,
    listen_queue_full,
    slow_handshake,
)


def symptoms(path: PacketPath, connection: Connection, identity: Identity, around: Around) -> Iterator[Finding]:
    """Every symptom that the path shows."""
    findings = (
        reset(path, connection, identity, around),
        *(symptom(path, connection, identity) for symptom in SYMPTOMS),
        unanswered(path, connection, identity, around),
    )
    yield from (finding for finding in findings if finding is not None)
