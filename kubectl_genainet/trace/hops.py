"""The hops of a packet: its sightings in order, on one clock, with the NAT between two of them; what they say of time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.events import PacketSeen, Point
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import Hop
from kubectl_genainet.trace.joining.connection import Connection, PacketDirection, place_of


def in_order(sightings: Sequence[PacketSeen], clocks: Clocks, client_node: str | None) -> list[PacketSeen]:
    """Sightings in the order of travel: by time where all have one clock. Else node after node: the client's first, then
    the one that got the packet as the last let it go; the clocks decide only where that does not tell."""
    by_node: dict[str, list[PacketSeen]] = {}
    for seen in sorted(sightings, key=lambda s: s.t_ns):
        by_node.setdefault(seen.node, []).append(seen)
    if all(clocks.same(a, b) for a, b in pairwise(by_node)):
        return sorted(sightings, key=lambda s: s.t_ns)
    ordered: list[PacketSeen] = []
    while by_node:
        node = _next_node(by_node, ordered[-1] if ordered else None, clocks, client_node)
        ordered += by_node.pop(node)
    return ordered


def _next_node(
    by_node: Mapping[str, Sequence[PacketSeen]], last: PacketSeen | None, clocks: Clocks, client_node: str | None
) -> str:
    if last is None:
        candidates = [client_node] if client_node in by_node else _starts(by_node) or list(by_node)
    else:
        candidates = [n for n, seen in by_node.items() if seen[0].flow == last.flow] or list(by_node)
    reference = last.node if last is not None else next(iter(by_node))

    def when(node: str) -> tuple[int, int]:
        offset = clocks.offset(node, reference)
        first = by_node[node][0].t_ns
        return (0, first + offset.add_ns) if offset is not None else (1, first)

    return min((n for n in candidates if n is not None), key=when)


def _starts(by_node: Mapping[str, Sequence[PacketSeen]]) -> list[str]:
    """Where a packet may have begun: the nodes on which it was first seen to leave a namespace; where it came from outside, those
    that got it as no other let it go. Several may have seen it with one tuple alone: then it is for the clocks to say."""
    origins = [node for node, seen in by_node.items() if seen[0].point is Point.TX]

    def sent(sender: str, receiver: str) -> bool:
        return by_node[sender][-1].flow == by_node[receiver][0].flow

    return origins or [n for n in by_node if not any(sent(m, n) and not sent(n, m) for m in by_node if m != n)]


def hops_of(ordered: Sequence[PacketSeen], clocks: Clocks, identity: Identity) -> tuple[Hop, ...]:
    """The sightings as hops, with times on the first hop's clock where the clocks can be compared."""
    hops = []
    for seen in ordered:
        offset = clocks.offset(seen.node, ordered[0].node)
        pod = identity.pod_in(seen.node, seen.netns)
        hops.append(
            Hop(
                node=seen.node,
                pod=pod.metadata.name if pod else None,
                device=seen.device,
                point=seen.point.value,
                t_ns=seen.t_ns + (offset.add_ns if offset else 0),
                src=seen.flow.source,
                dst=seen.flow.destination,
                t_error_ns=offset.error_ns if offset else None,
                tunnel=str(seen.tunnel) if seen.tunnel else None,
            )
        )
    return tuple(hops)


@dataclass(frozen=True, slots=True)
class Translation:
    """The destination NAT that shows between two hops; `hop` is the index of the last hop before it."""

    before: FiveTuple
    after: FiveTuple
    hop: int
    node: str
    masqueraded: bool


def translation_of(
    ordered: Sequence[PacketSeen], dropped_as: FiveTuple | None, drop_node: str | None, asked: FiveTuple | None = None
) -> Translation | None:
    """Where the destination changed. `dropped_as` is the tuple with which the packet was dropped after its last hop,
    `asked` the one that its socket has, where it was translated before its first."""
    flows = [(seen.flow, seen.node) for seen in ordered]
    if asked is not None and flows:
        masqueraded = (asked.src, asked.sport) != (flows[-1][0].src, flows[-1][0].sport)
        return Translation(asked, flows[0][0], -1, flows[0][1], masqueraded)
    if dropped_as is not None and drop_node is not None:
        flows.append((dropped_as, drop_node))
    for i in range(len(flows) - 1):
        before, after = flows[i][0], flows[i + 1][0]
        if (before.dst, before.dport) != (after.dst, after.dport):
            first, final = flows[0][0], flows[-1][0]  # the node before may have given it another source
            masqueraded = (first.src, first.sport) != (final.src, final.sport)
            return Translation(before, after, i, flows[i + 1][1], masqueraded)
    return None


def learn_crossings(connection: Connection, clocks: Clocks, ordered: Sequence[PacketSeen]) -> None:
    """Feeds the clocks with the packets that crossed between nodes: the first packet there, the answer back."""
    _learn(ordered, clocks)
    answer_nodes = [seen.node for seen in reversed(ordered)]
    by_node: dict[str, list[PacketSeen]] = {}
    for seen in connection.answer:
        by_node.setdefault(seen.node, []).append(seen)
    _learn(
        [s for node in dict.fromkeys(answer_nodes) for s in sorted(by_node.get(node, ()), key=lambda s: s.t_ns)], clocks
    )


def _learn(ordered: Sequence[PacketSeen], clocks: Clocks) -> None:
    for before, after in pairwise(ordered):
        if before.node != after.node:
            clocks.crossed(before.node, before.t_ns, after.node, after.t_ns)


def established(connection: Connection) -> bool | None:
    """Whether the handshake was seen to end; None for what has none."""
    if connection.protocol is not Protocol.TCP:
        return None
    return bool(connection.answer or connection.reply_data or connection.mid_stream)


def handshake_ns(connection: Connection, ordered: Sequence[PacketSeen]) -> int | None:
    """From the SYN at the first device, of several the first, to the SYN-ACK back at it, in ns: what the client waits. It had
    accepted none of those that came before its last SYN. None where one of several may have been dropped after that device."""
    if not ordered or not connection.answer or connection.mid_stream:
        return None
    start = ordered[0]
    sent = [s.t_ns for attempt in connection.attempts for s in attempt if place_of(s) == place_of(start)]
    answers = [a for a in connection.answer if (a.node, a.netns) == (start.node, start.netns)]
    back = [a.t_ns for a in answers if a.t_ns > max(sent)]
    dropped = len(back) > 1 and any(drop.direction is PacketDirection.REPLY for drop in connection.drops)
    return min(back) - min(sent) if back and not dropped else None


def response_ns(connection: Connection) -> int | None:
    """From the first request data into a namespace to the first reply data out of it, at the server's end, in ns."""
    arrivals = {(n, ns): t for (n, ns, _, point), t in connection.request_data.items() if point is Point.RX}
    leavings = {(n, ns): t for (n, ns, _, point), t in connection.reply_data.items() if point is Point.TX}
    both = [(leavings[k] - arrivals[k]) for k in arrivals.keys() & leavings.keys() if leavings[k] > arrivals[k]]
    return min(both) if both else None
