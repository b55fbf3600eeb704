"""What became of a connection: answered, unanswered, refused, reset, dropped; and what that waited for.

A sighting is evidence and never the outcome. A drop tells only where the connection did not get over it: nothing new
arrived in that direction afterwards. Times of several nodes are compared by their wall clocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kubectl_genainet.model.diagnoses import BY_REASON
from kubectl_genainet.model.diagnoses.sockets import TCP_OUT_OF_PLACE
from kubectl_genainet.model.events import PacketSeen, Point
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.reasons import BACKGROUND_LOCATIONS, NO_REASON, function_of
from kubectl_genainet.model.results.path import ConnectionOutcome, Verdict
from kubectl_genainet.trace.joining.connection import Connection, Counted, Dropped, PacketDirection, place_of

FRESH_NS = 500_000_000  # a loss so shortly before the end of the trace may still be made good
ANSWERED_AT_ONCE_NS = 50_000_000  # a TCP frees what it answers with a reset in one go
RESENT_TELLS = 2  # so many retransmissions in a row without anything new


@dataclass(frozen=True, slots=True)
class Fate:
    """`drop` is the one that decided, `recovered` counts those that did not."""

    outcome: ConnectionOutcome
    verdict: Verdict
    drop: Dropped | None = None
    waited: str = ""
    recovered: int = 0


@dataclass(frozen=True, slots=True)
class Around:
    """What a fate needs to know besides the connection."""

    wall: Callable[[str, int], int]  # a node's time as wall-clock time
    owns: Callable[[str, int, str], bool]  # whether a node's namespace has an address
    node_of: Callable[[str], str | None]  # the node that has an address, or its pod
    until_ns: int  # wall-clock time up to which all nodes on its way have reported
    counted_ns: int = 0  # and up to which they have reported what they counted


def seconds(ns: int) -> str:
    """ "2.3 s", "40 ms"."""
    return f"{ns / 1e9:.1f} s" if ns >= 10**9 else f"{max(ns, 0) / 1e6:.0f} ms"


def fate_of(connection: Connection, around: Around) -> Fate:
    """The connection's fate, from all that is known of it now."""
    if connection.protocol is not Protocol.TCP:
        return _of_datagrams(connection, around)
    served = bool(connection.request_data or connection.reply_data or connection.mid_stream)
    if not connection.answer and not served:
        return _unopened(connection, around)
    if not served and not _accepted(connection, around):
        return _half_open(connection, around)
    return _opened(connection, around)


def is_loss(dropped: Dropped) -> bool:
    """Whether something was lost: without a reason the kernel also frees what nobody misses, as repeated SYNs."""
    event = dropped.event
    return event.reason not in NO_REASON or function_of(event.location) not in BACKGROUND_LOCATIONS


def telling(drops: Iterable[Dropped], around: Around) -> Dropped | None:
    """Of several drops the one that says most: with a reason before one without; a copy that a bridge flooded to another node
    than the destination's, and that this node freed as not its own, last."""

    def says_less(dropped: Dropped) -> tuple[bool, bool]:
        event = dropped.event
        is_stray = event.reason == "OTHERHOST" and event.node != around.node_of(event.flow.dst)
        return event.reason in NO_REASON, is_stray

    return min(drops, key=says_less, default=None)


def _span(connection: Connection, around: Around) -> int:
    """From the first packet to now, in ns."""
    began = _began(connection, around)
    return around.until_ns - began if began else 0


def _waited(connection: Connection, around: Around, what: str) -> str:
    return f"{what} in {seconds(_span(connection, around))}"


def _refused(connection: Connection) -> bool:
    return any(direction is PacketDirection.REPLY for _, direction in connection.resets)


def _told(connection: Connection) -> bool:
    return any(error.point is not Point.DROP for error in connection.icmp)


def _unopened(connection: Connection, around: Around) -> Fate:
    """No answer to the SYN was seen anywhere."""
    drop = telling((d for d in connection.drops if d.first_packet), around)
    if _refused(connection) or _told(connection):
        return Fate(ConnectionOutcome.REFUSED, Verdict.REJECTED, drop)
    waited = _waited(connection, around, "no SYN-ACK")
    refused_way_back = telling((d for d in connection.drops if _is_syn_ack(d)), around)
    if drop is None and refused_way_back is not None:
        waited = _waited(connection, around, "the SYN-ACK was dropped where it was made, and none arrived")
        return Fate(ConnectionOutcome.DROPPED, Verdict.DROPPED, refused_way_back, waited)
    if drop is not None or connection.icmp:
        return Fate(ConnectionOutcome.DROPPED, Verdict.DROPPED, drop, waited)
    return Fate(ConnectionOutcome.UNANSWERED, Verdict.UNANSWERED, None, waited)


def _is_syn_ack(dropped: Dropped) -> bool:
    tcp = dropped.event.tcp
    return dropped.direction is PacketDirection.REPLY and tcp is not None and tcp.syn and is_loss(dropped)


def _accepted(connection: Connection, around: Around) -> bool:
    """Whether the SYN-ACK got to the client: it was seen in the client's namespace (or, where that is not known, left for
    it), no reset came back, and neither side tried again afterwards."""
    starts = [attempt[0] for attempt in connection.attempts if attempt]
    if any(direction is PacketDirection.REQUEST for _, direction in connection.resets) and not connection.fins:
        return not any(d.direction is PacketDirection.REPLY for d in connection.drops)
    if connection.fins:
        return True
    first_answer = min(around.wall(a.node, a.t_ns) for a in connection.answer)
    if any(around.wall(s.node, s.t_ns) > first_answer + FRESH_NS for s in starts):
        last_answer = max(around.wall(a.node, a.t_ns) for a in connection.answer)
        return last_answer > max(around.wall(s.node, s.t_ns) for s in starts) and _seen_at_home(connection, starts)
    if not starts or starts[0].point is not Point.TX:
        return not connection.again
    return _seen_at_home(connection, starts)


def _seen_at_home(connection: Connection, starts: list[PacketSeen]) -> bool:
    homes = {(s.node, s.netns) for s in starts if s.point is Point.TX}
    return not homes or any((a.node, a.netns) in homes for a in connection.answer)


def _half_open(connection: Connection, around: Around) -> Fate:
    """A SYN-ACK was sent, and the client did not get it, or had no use for it."""
    drop = telling((d for d in connection.drops if d.direction is PacketDirection.REPLY), around)
    if any(direction is PacketDirection.REQUEST for _, direction in connection.resets):
        return Fate(ConnectionOutcome.RESET, Verdict.RESET, drop, "the client answered the SYN-ACK with a reset")
    waited = _waited(connection, around, "the SYN-ACK did not reach the client")
    if drop is not None and is_loss(drop):
        return Fate(ConnectionOutcome.DROPPED, Verdict.DROPPED, drop, waited)
    return Fate(ConnectionOutcome.UNANSWERED, Verdict.UNANSWERED, None, waited)


def _opened(connection: Connection, around: Around) -> Fate:
    """The connection came about: it failed only by a reset before its end, or by a loss that it did not get over."""
    for direction in PacketDirection:
        lost = _lost_for_good(connection, direction, around)
        if lost is not None:
            return lost
    broken = broken_by(connection, around)
    recovered = sum(map(is_loss, connection.drops))
    if broken is not None:
        event, direction = broken
        side = "client" if direction is PacketDirection.REQUEST else "server"
        after = seconds(around.wall(event.node, event.t_ns) - _began(connection, around))
        since = "its first packet that was seen (its start was not)" if connection.mid_stream else "its start"
        waited = f"a reset from the {side}'s side {after} after {since}"
        provoking = _answered_by_reset(connection, direction, around)
        recovered -= provoking is not None
        return Fate(ConnectionOutcome.RESET, Verdict.RESET, provoking, waited, recovered)
    waited = "" if connection.closing else f"still open after {seconds(_span(connection, around))}"
    return Fate(ConnectionOutcome.ANSWERED, Verdict.FORWARDED, None, waited, recovered)


def _answered_by_reset(connection: Connection, direction: PacketDirection, around: Around) -> Dropped | None:
    """The packet that the resetting TCP had no connection for, and freed just before it sent the reset."""
    for drop in connection.drops:
        event = drop.event
        freed = around.wall(event.node, event.t_ns)
        if drop.direction is direction or drop.first_packet or not is_loss(drop):
            continue
        for reset, way in connection.resets:
            here = (reset.node, reset.netns) == (event.node, event.netns)
            if here and way is direction and abs(around.wall(reset.node, reset.t_ns) - freed) < ANSWERED_AT_ONCE_NS:
                return drop
    return None


def _began(connection: Connection, around: Around) -> int:
    began = [around.wall(s.node, s.t_ns) for attempt in connection.attempts for s in attempt]
    if connection.mid_stream:  # its first packet is one of many, and the other direction's may have come before
        began += [around.wall(place[0], t) for place, t in connection.reply_data.items()]
    return min(began, default=0)


def broken_by(connection: Connection, around: Around) -> tuple[PacketSeen, PacketDirection] | None:
    """The reset that ended the connection before its end: neither side had said FIN. A client that says nothing and
    resets at once has only looked whether the port is open."""
    if not connection.resets:
        return None
    first = min(connection.resets, key=lambda r: around.wall(r[0].node, r[0].t_ns))
    when = around.wall(first[0].node, first[0].t_ns)
    if any(around.wall(event.node, event.t_ns) <= when for event, _ in connection.fins):
        return None
    looked = first[1] is PacketDirection.REQUEST and not connection.request_data and not connection.mid_stream
    return None if looked else first


def _lost_for_good(connection: Connection, direction: PacketDirection, around: Around) -> Fate | None:
    """Packets of this direction were lost, and nothing new arrived afterwards, in either."""
    progress = last_progress(connection, around)
    again = [r for r in connection.again if r.direction is direction and around.wall(r.node, r.t_ns) > progress]
    drops = [
        d
        for d in connection.drops
        if d.direction is direction and not d.first_packet and around.wall(d.event.node, d.event.t_ns) > progress
        if is_loss(d) and (again or not _is_duplicate(d)) and not _receiver_had_reset(connection, d, around)
    ]
    moments = [around.wall(d.event.node, d.event.t_ns) for d in drops] + [around.wall(r.node, r.t_ns) for r in again]
    if (not drops and len(again) < RESENT_TELLS) or _all_arrived(connection, direction, around):
        return None
    if not connection.closing and around.until_ns - max(moments) < FRESH_NS and len(again) < RESENT_TELLS:
        return None
    silence = seconds(around.until_ns - progress) if progress else ""
    what = "request" if direction is PacketDirection.REQUEST else "reply"
    waited = f"nothing new of the {what} arrived{f' for {silence}' if silence else ''}"
    if drops:
        return Fate(ConnectionOutcome.DROPPED, Verdict.DROPPED, telling(drops, around), waited)
    return Fate(ConnectionOutcome.UNANSWERED, Verdict.UNANSWERED, None, waited)


def _receiver_had_reset(connection: Connection, dropped: Dropped, around: Around) -> bool:
    """Whether the end that the packet was for had ended the connection before: what still comes has nobody to get it."""
    freed = around.wall(dropped.event.node, dropped.event.t_ns)
    return any(
        way is not dropped.direction and around.wall(reset.node, reset.t_ns) < freed for reset, way in connection.resets
    )


def _all_arrived(connection: Connection, direction: PacketDirection, around: Around) -> bool:
    """Whether all data of this direction, and its FIN, were seen at the device of the end that they were for: what was lost, or
    sent again, had arrived by then."""
    counts = [(place, count.latest) for (place, _), count in connection.counts.items() if count.direction is direction]
    sent = max((latest.data_bytes for _, latest in counts), default=0)
    at_end = [
        (place, latest)
        for place, latest in counts
        if place[3] is Point.RX and around.owns(latest.node, latest.netns, latest.flow.dst)
    ]
    if not sent or all(latest.data_bytes < sent for _, latest in at_end):
        return False
    ends = {place for place, _ in at_end}
    fins = [place_of(event) for event, way in connection.fins if way is direction]
    return not fins or any(place in ends for place in fins)


def _is_duplicate(dropped: Dropped) -> bool:
    """Whether the receiving TCP had no use for the segment: without a retransmission after it, nothing is missing."""
    known = BY_REASON.get(dropped.event.reason)
    return known is not None and known[0] is TCP_OUT_OF_PLACE


def last_progress(connection: Connection, around: Around) -> int:
    """When, by the wall clock, anything new last reached the end it was for; 0 for never.

    That is where data of a direction was last seen coming in (a pod's device, or a node's where the end has no agent).
    """
    moments = [around.wall(a.node, a.t_ns) for a in connection.answer] or [0]
    for direction, seen in (
        (PacketDirection.REQUEST, connection.request_data),
        (PacketDirection.REPLY, connection.reply_data),
    ):
        incoming = {place: around.wall(place[0], t) for place, t in seen.items() if place[3] is Point.RX}
        if not incoming:
            continue
        end = max(incoming, key=lambda place: incoming[place])
        moments.append(incoming[end])
        moments += [
            around.wall(place[0], count.grown_ns)
            for (place, _), count in connection.counts.items()
            if place == end and count.direction is direction and _tells(count, around)
        ]
    return max(moments)


def _tells(count: Counted, around: Around) -> bool:
    """Whether a count shows progress: one that tells new data from repeated, or one at the very end of the way."""
    latest = count.latest
    return bool(latest.last_ns) or around.owns(latest.node, latest.netns, latest.flow.dst)


def _answered_later(connection: Connection, lost: list[Dropped], around: Around) -> bool:
    """Whether answers went on to arrive at the client: only a flow's first datagrams are seen one by one, the others are
    counted."""
    last = max(around.wall(d.event.node, d.event.t_ns) for d in lost)
    return any(
        around.wall(count.latest.node, count.grown_ns) > last
        for (place, _), count in connection.counts.items()
        if count.direction is PacketDirection.REPLY
        and place[3] is Point.RX
        and around.owns(place[0], place[1], count.latest.flow.dst)
    )


def _of_datagrams(connection: Connection, around: Around) -> Fate:
    """Datagrams need no answer: those that arrived have arrived."""
    lost = [d for d in connection.drops if is_loss(d)]
    requests = [d for d in lost if d.direction is PacketDirection.REQUEST]
    answered = bool(connection.answer)
    if not answered and (_told(connection) or connection.icmp or requests):
        error = _told(connection)
        verdict = Verdict.REJECTED if error else Verdict.DROPPED
        return Fate(
            ConnectionOutcome.REFUSED if error else ConnectionOutcome.DROPPED, verdict, telling(requests, around)
        )
    if answered:
        last_answer = max(around.wall(a.node, a.t_ns) for a in connection.answer)
        after = [d for d in lost if around.wall(d.event.node, d.event.t_ns) > last_answer]
        if after and not _answered_later(connection, after, around):
            requests_only = all(d.direction is PacketDirection.REQUEST for d in after)
            waited = (
                "datagrams after the last answer were dropped"
                if requests_only
                else "answers were dropped on their way back"
            )
            return Fate(ConnectionOutcome.DROPPED, Verdict.DROPPED, telling(after, around), waited)
        return Fate(ConnectionOutcome.ANSWERED, Verdict.FORWARDED, telling(lost, around), "", len(lost))
    back = telling((d for d in lost if d.direction is PacketDirection.REPLY), around)
    if back is not None:
        return Fate(ConnectionOutcome.DROPPED, Verdict.DROPPED, back)
    waited = f"no datagram back in {seconds(_span(connection, around))}; none may be meant to come"
    arrived = any(around.owns(s.node, s.netns, s.flow.dst) for attempt in connection.attempts for s in attempt)
    return Fate(ConnectionOutcome.UNANSWERED, Verdict.FORWARDED if arrived else Verdict.UNKNOWN, None, waited)
