"""What a connection carried: how much, how soon, how steadily, and how it ended. From sizes and times, never from contents.

The reply is measured where it leaves the server and where it reaches the client: a silence that is longer at the client
than at the server was made on the way.
"""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.model.events import Point
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.path import Stream
from kubectl_genainet.trace.fate import Around
from kubectl_genainet.trace.joining.connection import Connection, PacketDirection
from kubectl_genainet.trace.streaming.data import Data, data_at
from kubectl_genainet.trace.streaming.silence import Ends, silence_of

_GAPS_A_OCTAVE = 4
IDLES_NS = 10_000_000_000  # nothing new after the last of the reply for so long: it is open, and idle
AT_ONCE_NS = 1_000_000_000  # a reset that comes so soon after data answers it


def stream_of(connection: Connection, around: Around) -> Stream | None:
    """None for what is no TCP, where no data was counted, and where the counts of data that was seen did not come: how much it
    was is not known then."""
    if connection.protocol is not Protocol.TCP:
        return None
    sent = data_at(connection, PacketDirection.REPLY, Point.TX, around.wall)
    arrived = data_at(connection, PacketDirection.REPLY, Point.RX, around.wall)
    asked = data_at(connection, PacketDirection.REQUEST, Point.RX, around.wall)
    asking = data_at(connection, PacketDirection.REQUEST, Point.TX, around.wall)
    leaving = (sent or arrived)[0] if sent or arrived else None
    arriving = _at_client(connection, arrived) if arrived else sent[-1] if sent else None
    request = asked[-1] if asked else asking[0] if asking else None
    if leaving is None and request is None:
        return None
    if (leaving is None and connection.reply_data) or (request is None and connection.request_data):
        return None
    began = _began(connection, around, leaving, request)
    ended, by, when = _ending(connection, around)
    first = None
    if leaving is not None and request is not None and leaving.first_ns >= request.first_ns:
        first = leaving.first_ns - request.first_ns
    gaps, sums = (leaving.gaps, leaving.gap_us) if leaving is not None else ((), ())
    return Stream(
        request_bytes=request.bytes if request is not None else 0,
        reply_bytes=arriving.bytes if arriving is not None else 0,
        first_reply_ns=first,
        next_reply_ns=_next_reply(leaving, asking[0] if asking else request),
        silence=silence_of(
            connection,
            around,
            Ends(leaving, arriving, asking[0] if asking else request),
            began,
            None if ended == "fin" else when,
        ),
        gap_p50_ns=gap_quantile(gaps, sums, 0.5),
        gap_p99_ns=gap_quantile(gaps, sums, 0.99),
        ended=ended,
        ended_by=by,
        lasted_ns=max(0, when - began),
        older=connection.mid_stream,
        idle_ns=_idle_ns(asking[0] if asking else None, sent[0] if sent else None, when if ended == "reset" else None),
        request_took_ns=_request_took(leaving, request) if first is not None else None,
    )


def _request_took(leaving: Data | None, request: Data | None) -> int | None:
    """From the first data of the request to the last before the reply began; None where the server's end is not seen."""
    if leaving is None or request is None or leaving.place != request.place or not leaving.first_asked_ns:
        return None
    return leaving.first_asked_ns - request.first_ns


def _idle_ns(asking: Data | None, leaving: Data | None, reset_ns: int | None) -> int | None:
    """How long neither end had sent anything new before the last of them did, or before the reset; None where that is not
    known. Of each end only the longest silence is."""
    ends = [data for data in (asking, leaving) if data is not None]
    if not ends:
        return None
    last = max(ends, key=lambda data: data.last_ns)
    if reset_ns is not None and reset_ns - last.last_ns > AT_ONCE_NS:
        return reset_ns - last.last_ns
    resumed = last.silence_at_ns + last.silence_ns
    others = [data.last_ns for data in ends if data is not last]
    if not last.silence_ns or any(moment > resumed for moment in others):
        return None
    return resumed - max(last.silence_at_ns, *others, 0)


def _next_reply(leaving: Data | None, asking: Data | None) -> int | None:
    """From the first data of the reply to the next; None where there is none, or the client has asked for more since."""
    if leaving is None or not leaving.second_ns or (asking is not None and asking.last_ns > leaving.first_ns):
        return None
    return leaving.second_ns - leaving.first_ns


def _at_client(connection: Connection, got: list[Data]) -> Data | None:
    """The reply's data in the client's namespace; None where that is known, and nothing came in."""
    starts = [attempt[0] for attempt in connection.attempts if attempt and attempt[0].point is Point.TX]
    if not starts:
        return got[-1]
    home = (starts[0].node, starts[0].netns)
    return next((data for data in reversed(got) if data.place == home), None)


def _began(connection: Connection, around: Around, *data: Data | None) -> int:
    times = [around.wall(s.node, s.t_ns) for attempt in connection.attempts for s in attempt]
    return min(
        (*times, *(d.first_ns for d in data if d is not None))
    )  # of one older than the trace, data may come first


def quiet_ns(connection: Connection, around: Around) -> int | None:
    """Since the last new data of the reply, as far as it was counted; None before any."""
    replies = (
        c.latest for c in connection.counts.values() if c.direction is PacketDirection.REPLY and c.latest.last_ns
    )
    last = max((around.wall(count.node, count.last_ns) for count in replies), default=None)
    return max(0, around.until_ns - last) if last is not None else None


def _idles(connection: Connection, around: Around) -> bool:
    """Whether the last that came was of the reply, and that is long ago."""
    last = dict.fromkeys(PacketDirection, 0)
    for count in connection.counts.values():
        if count.latest.last_ns:
            moment = around.wall(count.latest.node, count.latest.last_ns)
            last[count.direction] = max(last[count.direction], moment)
    replied = last[PacketDirection.REPLY]
    return replied > last[PacketDirection.REQUEST] and around.until_ns - replied >= IDLES_NS


def _ending(connection: Connection, around: Around) -> tuple[str, str, int]:
    """(how, by whom, when): of a FIN and a reset the earlier."""
    ends = [(around.wall(e.node, e.t_ns), "reset", d) for e, d in connection.resets]
    ends += [(around.wall(e.node, e.t_ns), "fin", d) for e, d in connection.fins]
    if not ends:
        return ("idle" if _idles(connection, around) else "open"), "", around.until_ns
    when, how, direction = min(ends, key=lambda end: end[0])
    return how, "client" if direction is PacketDirection.REQUEST else "server", when


def gap_quantile(gaps: Sequence[int], sums_us: Sequence[int], share: float) -> int | None:
    """The mean of the bucket that the quantile lies in, in ns (FlowCounters.gaps, gap_us): what is in a bucket differs by a
    quarter at most, and by far less in a steady stream. Its upper bound where no sum is known; None without a gap."""
    total, counted = sum(gaps), 0
    for number, count in enumerate(gaps):
        counted += count
        if count and counted >= share * total:
            if number < len(sums_us):
                return sums_us[number] * 1000 // count
            octave, quarter = divmod(number, _GAPS_A_OCTAVE)
            return int(1000 * 2**octave * (1 + (quarter + 1) / _GAPS_A_OCTAVE))
    return None
