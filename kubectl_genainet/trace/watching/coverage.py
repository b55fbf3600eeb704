"""Whether everything that happened to a connection was reported: its nodes watched, followed it, and lost nothing of it."""

from __future__ import annotations

from collections.abc import Container, Iterator

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.events import PacketSighting
from kubectl_genainet.trace.joining.connection import Connection
from kubectl_genainet.trace.watching.node_progress import NodeProgress
from kubectl_genainet.trace.watching.sampling import Sampling
from kubectl_genainet.trace.watching.watches import Watches


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
        saw nothing of it may have left it out, or lost it: it is asked for the other nodes' moments."""
        wall = self._watches.wall_clock
        began: dict[str, int] = {}
        for seen in (s for attempt in connection.attempts for s in attempt):
            began[seen.node] = min(seen.t_ns, began.get(seen.node, seen.t_ns))
        first = min((wall(node, t_ns) for node, t_ns in began.items()), default=0)
        last = max((wall(node, t_ns) for node, t_ns in connection.last.items()), default=0)
        for node in self.way(connection):
            ahead = wall(node, 0)
            yield node, began.get(node, first - ahead), connection.last.get(node, last - ahead)

    def wholly_followed(self, connection: Connection, ports: Container[int]) -> bool:
        """Whether no node left the connection out while it lasted; `ports` are those of the filters."""
        if not self.sampling:
            return True
        clients = next((self._identity.party(flow.src, None).node for flow in connection.tuples), None)
        if clients is not None and self._watches.knows(clients) and clients not in connection.last:
            return False  # seen only behind a translation of its source, under another port
        return self.sampling.whole(connection.tuples, () if 0 in ports else ports, self._spans(connection))

    def wholly_watched(self, connection: Connection) -> bool:
        """Whether all nodes on its way were watched when it began."""
        if connection.mid_stream:
            return True
        seen: list[PacketSighting] = [s for attempt in connection.attempts for s in attempt] or [
            d.event for d in connection.drops
        ]
        if not seen:
            return True
        first = min(seen, key=lambda s: self._watches.wall_clock(s.node, s.t_ns))
        return self._watches.covered(first.t_ns, first.node, self.way(connection))

    def lost_records(self, connection: Connection) -> str:
        """The nodes on the connection's way that lost records while it was followed; "" for none."""
        losses, unfinished = self._progress.losses, self._progress.unfinished
        nodes = {span[0] for span in self._spans(connection) if span[0] in unfinished or losses.during(*span)}
        return ", ".join(sorted(nodes))
