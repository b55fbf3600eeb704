"""Events and a snapshot in, paths out: the path of each connection's first packet, its NAT, its end.

The correlator's clock is the events' own (their times and the agents' ticks), never the reader's: a replay of a bundle
decides as the live run did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from itertools import islice

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.context.context import Context
from kubectl_genainet.context.ends import KnownServers
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import (
    AgentFailed,
    ClusterChanged,
    Event,
    FlowCounters,
    Hello,
    Http2Streams,
    HttpHead,
    IcmpError,
    LostEvents,
    PacketDropped,
    PacketSeen,
    Progress,
    Sampled,
    TcpRetransmit,
    Tick,
)
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.results.path import OpenStream, PacketPath
from kubectl_genainet.trace.build import PathBuilder
from kubectl_genainet.trace.exact import ExactHits
from kubectl_genainet.trace.joining.connection import Connection
from kubectl_genainet.trace.joining.connections import Connections
from kubectl_genainet.trace.settling import SETTLED_NS, Settling
from kubectl_genainet.trace.streaming.findings import SLOW_NS
from kubectl_genainet.trace.waiting import OpenConnections
from kubectl_genainet.trace.watching.coverage import Coverage
from kubectl_genainet.trace.watching.node_progress import NodeProgress
from kubectl_genainet.trace.watching.watches import Watches

EXACT_NS = 1_500_000_000  # the kernel's trace comes by another way than the packets, and its rules are looked up
LOOK_NS = SETTLED_NS // 4  # between two looks at what has settled, on a node's clock
LASTS_NS = 2_000_000_000  # a connection with data that goes on for so long is a stream
OTHER_PROBES = ("dns", "drops", "exact", "http")  # which a path's fate does not rest on
MOST_LOOKED_AT = 200  # open connections, the oldest, for those that last: a view asks several times a second


class PathCorrelator:
    """Feed it every record of every agent; it yields each connection's path once: when the connection has ended or
    failed, or at the end of the trace.

    `half_seen` counts the connections of which no path is reported: they began before every node on their way was watched,
    or so late that nothing can be said of their end. `left_out` counts those that not all nodes followed, being within
    their budgets, `forgotten` those that were let go before they were over, as there was no room for more.
    """

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        servers: set[tuple[str, int]],
        *,
        slow_ns: int = SLOW_NS,
        context: Context | None = None,
    ) -> None:
        self.context = context or Context(snapshot)
        self.identity = self.context.identity
        self.half_seen = self.left_out = 0
        self.exact = ExactHits()
        self._clocks = Clocks()
        self._watches = Watches(self._clocks)
        self._progress = NodeProgress()
        self._coverage = Coverage(self.identity, self._watches, self._progress)
        self.sampling = self._coverage.sampling
        self.connections = Connections(servers, self._clocks, KnownServers(snapshot), self._absorbed, self._let_go)
        self._builder = PathBuilder(
            self.context, self._clocks, self._watches, self._progress, self._coverage, self.exact, slow_ns
        )
        self._settling = Settling(self.context, self._watches, self._progress, self._coverage, self._builder.path_of)
        self._open = OpenConnections()
        self._looked_at: dict[str, int] = {}

    def feed(self, event: Event) -> Iterable[PacketPath]:
        """Takes in one record; gives the paths that have settled by its time."""
        match event:
            case PacketSeen():  # most records are
                self._of(self.connections.packet(event))
            case PacketDropped():
                self._of(self.connections.dropped(event))
            case IcmpError():
                self._of(self.connections.icmp(event))
            case TcpRetransmit():
                self._of(self.connections.retransmit(event))
            case FlowCounters():
                self.connections.counters(event)
            case HttpHead():
                self.connections.head(event)
            case Http2Streams():
                self.connections.streams(event)
            case Tick():
                self._progress.tick(event)
                self._open.ticked(event.node)
            case NodeReport() | RulesetDump() | NetnsRules():
                self.context.learn(event)
            case Hello():
                self._clocks.learn(event.node, event.boot_id)
                self._watches.learn(event)
                self._open.look_at_all()
            case _:
                self._learn(event)
                return ()
        return self._settled_by(event.node, event.t_ns, at_once=isinstance(event, Tick))

    def _of(self, connection: Connection | None) -> None:
        """There was a record of the connection."""
        if connection is not None and not connection.reported:
            self._open.add(connection)

    def _learn(self, event: Event) -> None:
        """Takes in a record that tells nothing of how far its node has reported."""
        match event:
            case Progress() | AgentFailed():
                self._watches.learn(event)
                self._open.look_at_all()
            case ClusterChanged():
                self.context.learn(event, self._progress.now)
                self.connections.ends = KnownServers(event.snapshot)
                self._builder.seek_remedies()
                self._open.look_at_all()
            case RuleHit():
                self.exact.learn(event)
            case Sampled():
                self.sampling.learn(event, self._progress.ticked.get(event.node, 0))
            case LostEvents() if event.probe not in OTHER_PROBES:
                self._progress.lost(event.node)
            case _:
                pass

    def _absorbed(self, into: Connection, other: Connection) -> None:
        """Two connections turned out to be one; what has been told is not told again."""
        into.reported = into.reported or other.reported
        other.reported = True
        self._open.remove(other)
        if into.reported:
            self.connections.index.reported(into)
        else:
            self._open.add(into)

    def _let_go(self, connection: Connection) -> None:
        """Its end will be taken for another connection's: what it would be told as is not known."""
        connection.reported = True
        self._open.remove(connection)

    @property
    def forgotten(self) -> int:
        return self.connections.index.forgotten

    def finish(self, unfinished: Collection[str] = ()) -> Iterator[PacketPath]:
        """The paths of what had not ended when the stream did; of the nodes that are `unfinished` records are missing."""
        self._progress.unfinished = unfinished
        for connection in list(self._open):
            if self._settling.cut_short(connection):
                self.half_seen += 1
            else:
                yield from self._report(connection)

    def open_streams(self, most: int) -> list[OpenStream]:
        """The connections that go on and carry data, the longest first."""
        lasting = list(islice((c for c in self._open if c.counts and not c.closing), MOST_LOOKED_AT))
        streams = [stream for c in lasting if (stream := self._builder.open_stream(c)) is not None]
        streams = [open_stream for open_stream in streams if open_stream.stream.lasted_ns >= LASTS_NS]
        return sorted(streams, key=lambda open_stream: -open_stream.stream.lasted_ns)[:most]

    def _settled_by(self, node: str, t_ns: int, *, at_once: bool) -> Iterable[PacketPath]:
        """The paths that have settled, now that the node has reported up to this time; it is not looked at every record."""
        self._progress.heard(node, t_ns)
        if not at_once and t_ns - self._looked_at.get(node, 0) <= LOOK_NS:
            return ()
        self._looked_at[node] = t_ns
        return self._settled(node)

    def _settled(self, node: str) -> Iterator[PacketPath]:
        at_least_ns = EXACT_NS if self.exact else 0
        for connection in self._open.due(node, self._progress.now[node]):
            wait = self._settling.waits_for(connection, at_least_ns)
            if wait is None:
                yield from self._report(connection)
            else:
                self._open.wait(connection, wait)

    def _report(self, connection: Connection) -> Iterator[PacketPath]:
        connection.reported = True
        self._open.remove(connection)
        self.connections.index.reported(connection)
        ports = {port for _, port in self.connections.servers}
        if not self._coverage.wholly_followed(connection, ports):
            self.left_out += 1
        elif self._coverage.wholly_watched(connection):
            yield self._builder.path_of(connection)
        else:
            self.half_seen += 1
        connection.slim()
