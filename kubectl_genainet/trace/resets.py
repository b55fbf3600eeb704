"""Who reset a connection: a pod's TCP, something on the way, or nobody knows.

That an end did not send a reset is only said where it would have been seen: its namespace was followed, and its node lost
no records meanwhile. Not seen is not "not sent".
"""

from __future__ import annotations

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.diagnoses.connections import (
    RESET_BY_APP,
    RESET_BY_CLIENT,
    RESET_BY_KERNEL,
    RESET_FROM_OUTSIDE,
    RESET_ON_PATH,
    RESET_UNATTRIBUTED,
    SENT_AFTER_CLOSE,
)
from kubectl_genainet.model.diagnoses.sockets import REPLY_NOT_TRANSLATED, UNKNOWN_CONNECTION
from kubectl_genainet.model.events import PacketSeen, Point
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, Severity, counted
from kubectl_genainet.model.results.path import ConnectionOutcome, PacketPath, Party
from kubectl_genainet.trace.fate import Around, seconds
from kubectl_genainet.trace.joining.connection import Connection, PacketDirection
from kubectl_genainet.trace.watching.coverage import CLOCKS_NS

SILENT_NS = 1_000_000_000  # a client that resets after it has given up, as where its keepalives stay unanswered
GOODBYE_NS = 100_000_000  # so soon after the server's FIN the client still says goodbye


def reset(path: PacketPath, connection: Connection, identity: Identity, around: Around) -> Finding | None:
    """The connection was reset before its end: by a pod's TCP, by a packet that was made on the way, or nobody knows by whom."""
    if path.outcome is not ConnectionOutcome.RESET or not connection.resets or connection.moved:
        return None
    first, direction = min(connection.resets, key=lambda r: around.wall(r[0].node, r[0].t_ns))
    sent = _as_sent(connection, first, direction, identity)
    if sent is None:
        return _not_seen_to_be_sent(path, connection, identity, around, first, direction)
    return _by_an_end(path, connection, identity, sent, direction)


def sender_unseen(connection: Connection, identity: Identity) -> PacketSeen | None:
    """The first reset where neither end was seen to send it; None where there is none, or its sender was seen."""
    for seen, direction in connection.resets:
        if _as_sent(connection, seen, direction, identity) is None:
            return seen
    return None


def _as_sent(
    connection: Connection, first: PacketSeen, direction: PacketDirection, identity: Identity
) -> PacketSeen | None:
    """The reset as it left its sender's namespace. Nodes' clocks differ: where it was seen first does not tell."""
    for seen, way in connection.resets:
        same = way is direction and (seen.tcp is None or first.tcp is None or seen.tcp.seq == first.tcp.seq)
        if same and seen.point is Point.TX and _is_end(seen, identity):
            return seen
    return None


def _is_end(seen: PacketSeen, identity: Identity) -> bool:
    known = identity.pod_in(seen.node, seen.netns) is not None or identity.is_host(seen.node, seen.netns)
    return known and identity.owns(seen.node, seen.netns, seen.flow.src)


def _evidence(path: PacketPath, seen: PacketSeen) -> list[Evidence]:
    place = f"RST first seen on {seen.device or 'no device'} ({seen.point.value})"
    evidence = [Evidence(place, Certainty.OBSERVED, node=seen.node)]
    if path.waited:
        evidence.append(Evidence(path.waited, Certainty.OBSERVED))
    return evidence


def _not_seen_to_be_sent(
    path: PacketPath,
    connection: Connection,
    identity: Identity,
    around: Around,
    first: PacketSeen,
    direction: PacketDirection,
) -> Finding:
    evidence = _evidence(path, first)
    where = f"it was first seen on {first.node}"
    sender = path.backend if direction is PacketDirection.REPLY else path.flow.client
    name = _name(sender)
    if sender is not None and sender.pod is None and sender.node is None:
        title = f"the connection was reset from outside: by {name}, or by something before it; {where}"
        return RESET_FROM_OUTSIDE.finding(title, tuple(evidence))
    why = _why_unseen(path, connection, identity, around, first, sender)
    if why:
        title = f"the connection was reset; whether {name} sent the reset is not known: {why}"
        return RESET_UNATTRIBUTED.finding(title, (*evidence, Evidence(why, Certainty.UNKNOWN)))
    title = f"the connection was reset by a packet that neither end's pod was seen to send: {where}"
    return RESET_ON_PATH.finding(title, tuple(evidence))


def _name(party: Party | None) -> str:
    if party is None:
        return "the other end"
    if party.pod:
        return f"pod {party.namespace}/{party.pod}"
    return f"node {party.node}" if party.node else party.ip


def _why_unseen(
    path: PacketPath,
    connection: Connection,
    identity: Identity,
    around: Around,
    first: PacketSeen,
    sender: Party | None,
) -> str:
    """Why the sender may have sent it unseen; "" where it would have been seen."""
    if path.incomplete:
        return "a node on its way lost records meanwhile"
    homes = identity.homes(sender.ip) if sender is not None else []
    if not homes:
        return f"no agent has reported the network namespace of {_name(sender)}"
    if (first.node, first.netns) not in identity.namespaces:
        return f"the network namespace in which {first.node} saw it first has not been reported"
    if connection.namespaces.intersection(homes):
        return ""
    when = around.wall(first.node, first.t_ns)
    for node, netns in homes:
        moment = when - around.wall(node, 0)
        if identity.followed(node, netns, moment - CLOCKS_NS, moment + CLOCKS_NS):
            return ""
    return f"nothing of the connection was seen in the network namespace of {_name(sender)}, which may not have been followed yet"


def _by_an_end(
    path: PacketPath, connection: Connection, identity: Identity, sent: PacketSeen, direction: PacketDirection
) -> Finding:
    evidence = tuple(_evidence(path, sent))
    pod = identity.pod_in(sent.node, sent.netns)
    name = f"pod {pod.metadata.namespace}/{pod.metadata.name}" if pod is not None else f"node {sent.node}"
    ref = pod.ref if pod is not None else None
    if path.drop is not None and path.drop.check == UNKNOWN_CONNECTION.name:
        title = f"TCP of {name} answered with a reset: it knows no such connection"
        return RESET_BY_KERNEL.finding(title, evidence, severity=Severity.ERROR, object=ref)
    if direction is PacketDirection.REPLY:
        when = "midway through its answer" if connection.reply_data else "after the handshake, without an answer"
        return RESET_BY_APP.finding(f"{name} reset the connection {when}", evidence, object=ref)
    if path.drop is not None and path.drop.check == REPLY_NOT_TRANSLATED.name:
        title = f"{name} reset the connection: the answer came from another address than the one that it had asked"
        return RESET_BY_CLIENT.finding(title, evidence, severity=Severity.ERROR, object=ref)
    if connection.mid_stream and not connection.request_data:
        # It may have closed it before, with the server's data still on its way: that is no fault.
        title = (
            f"the client, {name}, reset a connection whose start was not seen, and sent nothing else on it meanwhile"
        )
        return RESET_BY_CLIENT.finding(title, evidence, severity=Severity.INFO, object=ref)
    when = "midway through the answer" if connection.reply_data else "before it had an answer"
    if path.stream is not None and path.stream.reply_bytes:  # whether that was all of it is not known
        when = f"after {counted(path.stream.reply_bytes, 'byte')} of the answer"
    if path.stream is not None and (path.stream.idle_ns or 0) >= SILENT_NS:
        when += f", when neither side had sent anything new for {seconds(path.stream.idle_ns or 0)}"
    title = f"the client, {name}, reset the connection {when}"
    return RESET_BY_CLIENT.finding(title, evidence, object=ref)


def sent_after_close(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The server had said FIN, the client sent more all the same, and got a reset: a pool that did not notice. What follows at
    once, or before the client's own FIN, is no request but a protocol's goodbye (TLS close_notify)."""
    closed = min(
        (fin for fin, way in connection.fins if way is PacketDirection.REPLY), key=lambda e: e.t_ns, default=None
    )
    refused = [seen for seen, way in connection.resets if way is PacketDirection.REPLY]
    if (
        path.incomplete
        or closed is None
        or not refused
        or any(way is PacketDirection.REQUEST for _, way in connection.fins)
    ):
        return None
    there = (closed.node, closed.netns)
    later = [
        counter.grown_ns - closed.t_ns
        for (place, _), counter in connection.counts.items()
        if counter.direction is PacketDirection.REQUEST and place[:2] == there
    ]
    after_ns = max(later, default=0)
    if after_ns < GOODBYE_NS or not any((seen.node, seen.netns) == there for seen in refused):
        return None
    place = identity.place(*there)
    title = f"the client sent data {seconds(after_ns)} after {place} had closed the connection: it was answered with a reset"
    evidence = (
        Evidence(f"FIN on {closed.device}, then data of the client, then RST", Certainty.OBSERVED, node=closed.node),
    )
    return SENT_AFTER_CLOSE.finding(title, evidence)
