"""Whether everything that happened to a connection was reported: its nodes watched, followed it, and lost nothing of it."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.events import PacketSighting
from kubectl_genainet.trace.joining.connection import Connection
from kubectl_genainet.trace.watching.node_progress import NodeProgress
from kubectl_genainet.trace.watching.sampling import Sampling
from kubectl_genainet.trace.watching.watches import Watches

CLOCKS_NS = 50_000_000  # so far apart nodes' clocks may be


class Coverage:
    def __init__(self, identity: Identity, watches: Watches, progress: NodeProgress) -> None:
        self._identity, self._watches, self._progress = identity, watches, progress
        self.sampling = Sampling()

    def way(self, connection: Connection) -> set[str]:
        """The nodes that may have something to say of the connection: those that did, and those of its addresses."""
        ends = {ip for flow in connection.tuples for ip in (flow.src, flow.dst)}
        nodes = {self._identity.party(ip, None).node for ip in ends}
        return connection.last.keys() | {node for node in nodes if node is not None and self._watches.knows(node)}

    def _spans(self, connection: Connection) -> Iterator[tuple[str, int, int]]:
        """(node, begin, end) of the time in which each node on the way may have seen the connection, on its clock. A node that
        saw nothing of it may have left it out, or lost it: it is asked for the other nodes' moments. A connection whose start was
        not seen is older than the trace, or was left out when it began: all of the trace is its time."""
        wall = self._watches.wall_clock
        began: dict[str, int] = {}
        for seen in (s for attempt in connection.attempts for s in attempt):
            began[seen.node] = min(seen.t_ns, began.get(seen.node, seen.t_ns))
        first = min((wall(node, t_ns) for node, t_ns in began.items()), default=0)
        last = max((wall(node, t_ns) for node, t_ns in connection.last.items()), default=0)
        for node in self.way(connection):
            ahead = wall(node, 0)
            begin = 0 if connection.mid_stream else began.get(node, first - ahead)
            yield node, begin, connection.last.get(node, last - ahead)

    def wholly_followed(self, connection: Connection, ports: Container[int]) -> bool:
        """Whether no node left the connection out while it lasted; `ports` are those of the filters."""
        if not self.sampling:
            return True
        clients = next((self._identity.party(flow.src, None).node for flow in connection.tuples), None)
        if clients is not None and self._watches.knows(clients) and clients not in connection.last:
            return False  # seen only behind a translation of its source, under another port
        return self.sampling.whole(connection.tuples, () if 0 in ports else ports, self._spans(connection))

    def wholly_watched(self, connection: Connection) -> bool:
        """Whether all nodes on its way were watched when it began (if it is not older than the trace), and around the moment when
        it was reset: a node that was not watched then may have sent the reset."""
        began: list[PacketSighting] = [s for attempt in connection.attempts for s in attempt] or [
            d.event for d in connection.drops
        ]
        first = None if connection.mid_stream else self._first(began)
        reset = self._first(seen for seen, _ in connection.resets)
        moments = [(first.node, first.t_ns)] if first is not None else []
        if reset is not None:
            moments += [(reset.node, reset.t_ns - CLOCKS_NS), (reset.node, reset.t_ns + CLOCKS_NS)]
        way = self.way(connection)
        return all(self._watches.covered(t_ns, node, way) for node, t_ns in moments)

    def _first(self, sightings: Iterable[PacketSighting]) -> PacketSighting | None:
        return min(sightings, key=lambda seen: self._watches.wall_clock(seen.node, seen.t_ns), default=None)

    def lost_records(self, connection: Connection) -> set[str]:
        """The nodes on the connection's way that lost records while it was followed."""
        losses, unfinished = self._progress.losses, self._progress.unfinished
        return {span[0] for span in self._spans(connection) if span[0] in unfinished or losses.during(*span)}
