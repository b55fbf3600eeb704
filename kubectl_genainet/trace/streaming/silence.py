"""A reply's longest silence, and who was waited for meanwhile: from what the packets and the sending socket showed; where they
don't show it, it is not known."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.model.events import FlowSilence, Held, Point
from kubectl_genainet.model.results.path import Silence, WaitedFor
from kubectl_genainet.trace.fate import Around, seconds
from kubectl_genainet.trace.joining.connection import Connection, PacketDirection
from kubectl_genainet.trace.streaming.data import Data, data_at

LOST_TELLS = 2  # so many losses within a silence: what is sent again ends it
COUNTED_NS = 2_500_000_000  # counts of both ends are of the same moment, but for the last second or two
RELEASED_NS = 20_000_000  # an ACK so shortly before data let it go; ticks of the kernel's clock are up to 10 ms
_RELEASED_SHARE = 20  # or in the last part of so many of the silence


@dataclass(frozen=True, slots=True)
class Ends:
    """A connection's data where the reply leaves, where it arrives, and where the request leaves."""

    leaving: Data | None
    arriving: Data | None
    asking: Data | None


@dataclass(frozen=True, slots=True)
class Span:
    """A silence of the reply as the client had it; `is_last`: no data ended it."""

    begin_ns: int
    end_ns: int
    is_last: bool

    @property
    def length_ns(self) -> int:
        return self.end_ns - self.begin_ns

    def has(self, moment_ns: int) -> bool:
        return self.begin_ns <= moment_ns <= self.end_ns

    def in_later_half(self, moment_ns: int) -> bool:
        return self.begin_ns + self.length_ns / 2 < moment_ns <= self.end_ns


Turn = tuple[WaitedFor, str]  # who was waited for, and what shows it


def silence_of(connection: Connection, around: Around, ends: Ends, began: int, until: int | None) -> Silence | None:
    """The reply's longest silence as the client had it: between two pieces of data or, with `until`, since the last."""
    if ends.arriving is None or ends.leaving is None:
        return None
    arriving = ends.arriving
    span = Span(arriving.silence_at_ns, arriving.silence_at_ns + arriving.silence_ns, is_last=False)
    if until is not None and until - arriving.last_ns > span.length_ns:
        span = Span(arriving.last_ns, until, is_last=True)
    if not span.length_ns:
        return None
    closed = _closed(connection, around)
    turn = _full(ends.leaving, span, closed) or _lost(connection, around, span)
    if turn is None and span.is_last:
        turn = _of_last(connection, around, ends, ends.leaving, span)
    whose, why = turn or _of_ended(ends.leaving, span, closed)
    return Silence(span.length_ns, max(0, span.begin_ns - began), whose, why, span.is_last)


def _full(leaving: Data, span: Span, closed: int) -> Turn | None:
    """The client said late in the silence that it takes no more: what is sent all the same is lost, and no fault of the way."""
    at = leaving.at_silence
    said = (closed, leaving.silence_at_ns + at.closed_ns if at is not None and at.closed_ns else 0)
    if not any(map(span.in_later_half, said)):
        return None
    return WaitedFor.CLIENT, "the client said that its receive window had no room"


def _lost(connection: Connection, around: Around, span: Span) -> Turn | None:
    """What was lost of the reply, and sent again until the silence ended."""
    drops = [(d.event.node, d.event.t_ns) for d in connection.drops if d.direction is PacketDirection.REPLY]
    again = [(r.node, r.t_ns) for r in connection.again if r.direction is PacketDirection.REPLY]
    lost = [moment for moment in (around.wall(*event) for event in (*drops, *again)) if span.has(moment)]
    if len(lost) < LOST_TELLS or not span.in_later_half(max(lost)):
        return None
    return WaitedFor.NETWORK, f"meanwhile packets of it were dropped or sent again, {len(lost)} times"


def _closed(connection: Connection, around: Around) -> int:
    """When the client last said that it takes no more data; 0 for never."""
    requests = (c.latest for c in connection.counts.values() if c.direction is PacketDirection.REQUEST)
    return max((around.wall(count.node, count.closed_ns) for count in requests if count.closed_ns), default=0)


def _of_ended(leaving: Data, span: Span, closed: int) -> Turn:
    """Of a silence that data ended, by the server's own."""
    length, begin = leaving.silence_ns, leaving.silence_at_ns
    if length < span.length_ns / 2:
        return WaitedFor.NETWORK, f"the server itself was never silent for more than {seconds(length)}"
    overlap = min(span.end_ns, begin + length) - max(span.begin_ns, begin)
    if overlap < span.length_ns / 2:
        return WaitedFor.UNKNOWN, "the server's longest silence was another"
    at = leaving.at_silence
    if at is None:
        return WaitedFor.UNKNOWN, ""
    if at.asked_ns > length - at.asked_ns:
        return WaitedFor.CLIENT, f"the client asked for more after {seconds(at.asked_ns)} of it"
    return _by_socket(at, length, is_closed=bool(at.closed_ns) or begin <= closed <= begin + length)


def _by_socket(at: FlowSilence, length: int, *, is_closed: bool) -> Turn:
    """What the server's socket showed when the silence ended. A window without room is the client's where the client said so;
    else it was full of what had not been acknowledged."""
    if at.held is Held.UNKNOWN:
        return WaitedFor.UNKNOWN, "the server's socket was not seen"
    if at.held is Held.NOTHING or at.held_ns < (length - at.asked_ns) / 2:
        free = seconds(length if at.held is Held.NOTHING else length - at.held_ns)
        return WaitedFor.SERVER, f"for {free} of it, its TCP had nothing that was not sent and acknowledged"
    held = seconds(at.held_ns)
    if at.held is Held.WINDOW and is_closed:
        return WaitedFor.CLIENT, f"for {held} of it, its receive window had no room, as the client said"
    if at.held is Held.BUFFER:
        return WaitedFor.NETWORK, f"for {held} of it, the server's send buffer was full of what was not acknowledged"
    if at.heard_ns <= max(RELEASED_NS, length // _RELEASED_SHARE):
        return WaitedFor.NETWORK, f"for {held} of it, data was not acknowledged, and an ACK came just before it went on"
    return (
        WaitedFor.UNKNOWN,
        f"for {held} of it, data was not sent or not acknowledged; whether there was more is unknown",
    )


def _of_last(connection: Connection, around: Around, ends: Ends, leaving: Data, span: Span) -> Turn:
    """Of the silence since the last data: whether more was to come of the reply is not seen."""
    missing = leaving.bytes - ends.arriving.bytes if ends.arriving is not None and not connection.mid_stream else 0
    if missing > 0 and span.length_ns >= COUNTED_NS:
        return WaitedFor.NETWORK, f"{missing} bytes that the server had sent did not arrive"
    if span.in_later_half(leaving.last_ns):
        return WaitedFor.NETWORK, f"the server sent more {seconds(leaving.last_ns - span.begin_ns)} into it"
    if ends.asking is None or not span.has(ends.asking.last_ns):
        return WaitedFor.UNKNOWN, "whether the reply was complete is not known"
    asked = ends.asking.last_ns
    if span.in_later_half(asked):
        return WaitedFor.CLIENT, f"the client asked for more after {seconds(asked - span.begin_ns)} of it"
    came = data_at(connection, PacketDirection.REQUEST, Point.RX, around.wall)
    if not came or came[-1].place != leaving.place:
        return WaitedFor.UNKNOWN, "the server's end was not seen"
    if span.has(came[-1].last_ns):
        return WaitedFor.SERVER, f"it was asked {seconds(asked - span.begin_ns)} into it, and has not answered"
    if span.end_ns - asked < COUNTED_NS:
        return WaitedFor.UNKNOWN, "what was asked last was not seen to reach the server"
    return WaitedFor.NETWORK, "what the client asked last did not reach the server"
