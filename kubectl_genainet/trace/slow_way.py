"""Where the time of a slow handshake went: between two nodes, or between two devices of one.

One that was sent again can't be told from the one before at each place. Then the latest that may be it counts: what is told
is the least time that it can have taken, and what was lost and sent again is not slow.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.diagnoses.connections import SLOW_HANDSHAKE
from kubectl_genainet.model.events import PacketSeen, Point
from kubectl_genainet.model.finding import Certainty, Evidence, Finding
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.trace.fate import seconds
from kubectl_genainet.trace.joining.connection import Connection, Place, place_of

SLOW_NS = 200_000_000  # of one part: nodes of a cluster are milliseconds apart


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of the way to the server and back, between two sightings. `twice`: there and back together, since only the sum
    is free of how far the clocks of two nodes are apart."""

    begin: PacketSeen
    end: PacketSeen
    lasted_ns: int
    twice: bool = False


def slow_handshake(path: PacketPath, connection: Connection, identity: Identity) -> Finding | None:
    """The part of the handshake's way that took longest, where that is long."""
    if path.incomplete or connection.mid_stream or connection.protocol is not Protocol.TCP:
        return None
    if path.handshake_ns is not None and path.handshake_ns < SLOW_NS:
        return None  # as most are: no part of it was longer
    parts = _parts(connection, list(dict.fromkeys(hop.node for hop in path.hops)))
    slowest = max(parts, key=lambda part: part.lasted_ns, default=None)
    if slowest is None or slowest.lasted_ns < SLOW_NS:
        return None
    again = len(connection.attempts) > 1 or len(connection.answer) > len({place_of(a) for a in connection.answer})
    took = f"{'at least ' if again else ''}{seconds(slowest.lasted_ns)}"
    begin, end = _place(slowest.begin, identity), _place(slowest.end, identity)
    if slowest.twice:
        title = (
            f"the handshake was slow between nodes {slowest.begin.node} and {slowest.end.node}: {took} there and back"
        )
        text = f"from the SYN to the SYN-ACK it took {took} longer at {begin} than at {end}"
    else:
        title = f"the handshake was slow: {took} from {begin} to {end}"
        text = f"{took} passed between {begin} and {end}"
    return SLOW_HANDSHAKE.finding(title, (Evidence(text, Certainty.OBSERVED, node=slowest.begin.node),))


def _place(seen: PacketSeen, identity: Identity) -> str:
    return f"{seen.device or 'no device'} of {identity.place(seen.node, seen.netns)} ({seen.point.value})"


def _parts(connection: Connection, nodes: list[str]) -> Iterator[_Part]:
    """Between sightings of one node, and between each node and the next on the way, both of which saw SYN and SYN-ACK. The end
    that answers has no network between the two; beyond the last node nothing is known. Nothing is, where a later SYN was seen
    where the first was not: probes were being attached, and of the first SYN-ACK places may be missing as well."""
    whole = {place_of(seen) for seen in connection.attempts[0]}
    asked = [seen for attempt in connection.attempts for seen in attempt]
    if not whole.issuperset(map(place_of, asked)):
        return
    for node in nodes:
        there = [[s for s in attempt if s.node == node] for attempt in connection.attempts]
        back = _latest(s for s in connection.answer if s.node == node)
        for way in (*(sorted(attempt, key=lambda s: s.t_ns) for attempt in there), back):
            yield from (_Part(a, b, b.t_ns - a.t_ns) for a, b in pairwise(way))
        came = [s for attempt in there for s in attempt if back and s.t_ns <= back[0].t_ns]
        arrived = max(came, key=lambda s: s.t_ns, default=None)
        if arrived is not None and _is_turn(arrived, back[0]):
            yield _Part(arrived, back[0], back[0].t_ns - arrived.t_ns)
    yield from (part for near, far in pairwise(nodes) if (part := _between(connection, near, far)) is not None)


def _latest(sightings: Iterable[PacketSeen]) -> list[PacketSeen]:
    """One sighting at each place of a node, in order of travel: the first at the last place, before it the latest that may be the
    same packet."""
    by_place: dict[Place, list[PacketSeen]] = {}
    for seen in sorted(sightings, key=lambda s: s.t_ns):
        by_place.setdefault(place_of(seen), []).append(seen)
    way: list[PacketSeen] = []
    for there in reversed(by_place.values()):
        way.append(next(s for s in reversed(there) if s.t_ns <= way[-1].t_ns) if way else there[0])
    return way[::-1]


def _between(connection: Connection, near: str, far: str) -> _Part | None:
    """What the network between two nodes took of the time from a SYN's leaving `near` to the first SYN-ACK's coming there. The
    SYN is the last that may be the one answered, the SYN-ACK the last of `far` that may be the one that came."""
    came = _latest(s for s in connection.answer if s.node == near)
    back = _latest(s for s in connection.answer if s.node == far)
    for attempt in reversed(connection.attempts):
        left, arrived = _latest(s for s in attempt if s.node == near), _latest(s for s in attempt if s.node == far)
        if not (came and back and left and arrived) or left[-1].t_ns > came[0].t_ns:
            continue
        waited = came[0].t_ns - left[-1].t_ns
        sent = [s.t_ns - arrived[0].t_ns for s in connection.answer if place_of(s) == place_of(back[-1])]
        spent = max((ns for ns in sent if 0 <= ns <= waited), default=None)
        return _Part(left[-1], arrived[0], waited - spent, twice=True) if spent is not None else None
    return None


def _is_turn(came: PacketSeen, answered: PacketSeen) -> bool:
    """Whether the SYN-ACK left the namespace that the SYN came into."""
    return (came.netns, came.point, answered.point) == (answered.netns, Point.RX, Point.TX)
