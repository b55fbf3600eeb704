"""Events and a snapshot in, paths out: the path of each connection's first packet, its NAT, its end.

The correlator's clock is the events' own (their times and the agents' ticks), never the reader's: a replay of a bundle
decides as the live run did.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from math import inf

import msgspec

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.context.context import Context
from kubectl_genainet.context.ends import Ends
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import (
    AgentFailed,
    ClusterChanged,
    Event,
    FlowCounters,
    Hello,
    HttpHead,
    IcmpError,
    LostEvents,
    PacketDropped,
    PacketSeen,
    PacketSighting,
    Point,
    Progress,
    Sampled,
    TcpRetransmit,
    Tick,
)
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import ConnectionOutcome, Drop, Flow, Hop, PacketPath, Party, Verdict
from kubectl_genainet.trace.connection import Connection, Direction, Dropped, Place, place_of
from kubectl_genainet.trace.connections import Connections
from kubectl_genainet.trace.exact import ExactHits
from kubectl_genainet.trace.fate import Around, fate_of
from kubectl_genainet.trace.hops import (
    established,
    handshake_ns,
    hops_of,
    in_order,
    learn_crossings,
    response_ns,
    translation_of,
)
from kubectl_genainet.trace.losses import Losses
from kubectl_genainet.trace.nat import nat_of
from kubectl_genainet.trace.sampling import Sampling
from kubectl_genainet.trace.streaming.findings import SLOW_NS, stream_findings
from kubectl_genainet.trace.streaming.http import http_of
from kubectl_genainet.trace.streaming.measure import stream_of
from kubectl_genainet.trace.symptoms import symptoms
from kubectl_genainet.trace.watches import Watches
from kubectl_genainet.why.drop_context import DropContext
from kubectl_genainet.why.explain import explain_drop
from kubectl_genainet.why.remedies import Remedies

SETTLED_NS = 400_000_000  # nothing new for so long: the agents poll every 20 ms, the rest is the way to the client
UNANSWERED_NS = 500_000_000  # beyond the moment when TCP would have sent its SYN again
FIRST_RESEND_NS = 1_000_000_000  # TCP's first retransmission of a SYN (RFC 6298); each next takes twice as long
LOST_TELLS = 4  # so many SYNs of a connection were seen dropped: it is told, though its client may go on trying
EXACT_NS = 1_500_000_000  # the kernel's trace comes by another way than the packets, and its rules are looked up
RULES_NS = 5_000_000_000  # how long a pod's rules are waited for, where a packet died by them
COUNTERS_NS = 30_000_000_000  # how long a node's counters are waited for, where they alone can tell why a packet died
COUNTED_NS = 2_500_000_000  # until the counters tell whether what was lost has arrived after all
HALF_CLOSED_NS = 800_000_000  # one side has said FIN: the other follows, or has more to send
DATAGRAMS_NS = 1_500_000_000  # a flow of datagrams has no end: it is told once it has been silent for so long


class PathCorrelator:
    """Feed it every record of every agent; it yields each connection's path once: when the connection has ended or
    failed, or at the end of the trace.

    `half_seen` counts the connections of which no path is told: they began before every node on their way was watched,
    or so late that nothing can be said of their end. `left_out` counts those that not all nodes followed, being within
    their budgets.
    """

    def __init__(self, snapshot: ClusterSnapshot, servers: set[tuple[str, int]], *, slow_ns: int = SLOW_NS) -> None:
        self.slow_ns = slow_ns
        self.context = Context(snapshot)
        self.identity = self.context.identity
        self.clocks = Clocks()
        self.watches = Watches(self.clocks)
        self.half_seen = self.left_out = 0
        self.sampling = Sampling()
        self.connections = Connections(servers, self.clocks, Ends(snapshot), self._absorbed)
        self.exact = ExactHits()
        self._now: dict[str, int] = {}
        self._open: dict[int, Connection] = {}
        self._ticked: dict[str, int] = {}  # node -> up to when it has told all, its losses and its level too
        self._counted: dict[str, int] = {}  # node -> up to when it has told what it counted
        self._looked_at: dict[str, int] = {}
        self._unfinished: Collection[str] = ()
        self._losses = Losses()
        self._seek_remedies()

    def _seek_remedies(self) -> None:
        engine = self.context.engine
        self._remedies = Remedies(engine, self.identity) if engine is not None else None

    def feed(self, event: Event) -> Iterator[PacketPath]:
        """Takes in one record; yields the paths that have settled by its time."""
        connection = None
        match event:
            case PacketSeen():
                connection = self.connections.packet(event)
            case PacketDropped():
                connection = self.connections.dropped(event)
            case IcmpError():
                connection = self.connections.icmp(event)
            case TcpRetransmit():
                connection = self.connections.retransmit(event)
            case FlowCounters():
                self.connections.counters(event)
            case HttpHead():
                self.connections.head(event)
            case Hello():
                self.clocks.learn(event.node, event.boot_id)
                self.watches.learn(event)
            case Progress() | AgentFailed():
                self.watches.learn(event)
                return
            case NodeReport() | RulesetDump() | NetnsRules():
                self.context.learn(event)
            case ClusterChanged():
                self.context.learn(event)
                self.connections.ends = Ends(event.snapshot)
                self._seek_remedies()
                return
            case RuleHit():
                self.exact.learn(event)
                return
            case Sampled():
                self.sampling.learn(event, self._ticked.get(event.node, 0))
                return
            case LostEvents():
                self._losses.learn(event.node, self._ticked.get(event.node, 0))
                return
            case Tick():
                self._losses.tick(event.node, event.t_ns)
                self._ticked[event.node] = event.t_ns
                self._counted[event.node] = event.counted_ns
            case _:
                return
        if connection is not None and not connection.reported:
            self._open[id(connection)] = connection
        time = getattr(event, "t_ns", 0)
        self._now[event.node] = max(self._now.get(event.node, 0), time)
        if isinstance(event, Tick) or time - self._looked_at.get(event.node, 0) > SETTLED_NS // 4:
            self._looked_at[event.node] = time
            yield from self._settled()

    def _absorbed(self, into: Connection, other: Connection) -> None:
        """Two connections turned out to be one; what has been told is not told again."""
        into.reported = into.reported or other.reported
        other.reported = True
        self._open.pop(id(other), None)

    def finish(self, unfinished: Collection[str] = ()) -> Iterator[PacketPath]:
        """The paths of what had not ended when the stream did; of the nodes that are `unfinished` records are missing."""
        self._unfinished = unfinished
        for connection in list(self._open.values()):
            if self._cut_short(connection):
                self.half_seen += 1
            else:
                yield from self._report(connection)

    def _cut_short(self, connection: Connection) -> bool:
        """Whether the trace ended before anything could be said of the connection's end."""
        if connection.answer or connection.reply_data or connection.drops or connection.icmp or connection.resets:
            return False
        last = max(connection.first, key=lambda seen: seen.t_ns, default=None)
        if last is None:
            return False
        ended = self.watches.ended(last.node) or self._now.get(last.node, 0)
        return ended - last.t_ns < FIRST_RESEND_NS + UNANSWERED_NS and len(connection.attempts) < 2

    def _settled(self) -> Iterator[PacketPath]:
        for connection in list(self._open.values()):
            patience = self._patience(connection)
            if self.exact:
                patience = max(patience, EXACT_NS)
            if any(self._now.get(node, 0) - last <= patience for node, last in connection.last.items()):
                continue  # the way, with the nodes that said nothing, takes longer to find
            way = self._way(connection)
            if not all(self._quiet(connection, node) > patience for node in way) or not self._told_all(connection, way):
                continue
            if not self._waits_for_counters(connection) and self._counted_all(connection):
                yield from self._report(connection)

    def _told_all(self, connection: Connection, way: set[str]) -> bool:
        """Whether the nodes have said what they lost, and left out, until the connection's last record: a node that saw nothing
        of it, until the others' last."""
        latest = max((self.watches.wall_clock(n, t) for n, t in connection.last.items()), default=0)
        for node in way & self._ticked.keys():
            told = self._ticked[node]
            if node in connection.last:
                if told < connection.last[node]:
                    return False
            elif self.watches.wall_clock(node, told) < latest:
                return False
        return True

    def _counted_all(self, connection: Connection) -> bool:
        """Whether the nodes have told what they counted of the connection's data until its last record. One that can't keep up
        is not waited for without end."""
        if connection.protocol is not Protocol.TCP or not (connection.request_data or connection.reply_data):
            return True
        for node, last in connection.last.items():
            told = self._counted.get(node, 0)
            if 0 < told < last and self._now.get(node, 0) - last < COUNTERS_NS:
                return False
        return True

    def _way(self, connection: Connection) -> set[str]:
        """The nodes that may have something to say of the connection: those that did, and those of its addresses."""
        ends = {ip for flow in connection.tuples for ip in (flow.src, flow.dst)}
        nodes = {self.identity.party(ip, None).node for ip in ends}
        return connection.last.keys() | {node for node in nodes if node is not None and self.watches.knows(node)}

    def _quiet(self, connection: Connection, node: str) -> int:
        """For how long, as far as it has reported, the node has had nothing new; where it had nothing yet, by the wall
        clocks since another had. A node that reports late is waited for."""
        now = self._now.get(node, 0)
        if node in connection.last:
            return now - connection.last[node]
        latest = max(self.watches.wall_clock(n, t) for n, t in connection.last.items())
        return self.watches.wall_clock(node, now) - latest

    def _patience(self, connection: Connection) -> float:
        """How long the connection must have been quiet before its fate is told."""
        if self._waits_for_rules(connection):
            return RULES_NS
        if connection.ended:
            return COUNTED_NS if connection.again or connection.drops else SETTLED_NS
        if connection.closing:
            return HALF_CLOSED_NS
        if connection.protocol is not Protocol.TCP:
            return DATAGRAMS_NS
        served = connection.request_data or connection.reply_data or connection.mid_stream
        if any(error.point is not Point.DROP for error in connection.icmp) and not connection.answer:
            return SETTLED_NS
        if served or connection.answer:
            return inf  # it lives: its end, or the trace's, is waited for
        if sum(drop.first_packet for drop in connection.drops) >= LOST_TELLS:
            return SETTLED_NS
        return self._next_attempt(connection) + UNANSWERED_NS

    def _next_attempt(self, connection: Connection) -> int:
        """How long after its last SYN the client sends the next, at the latest: TCP at most doubles the time between two
        (tcp_syn_linear_timeouts keeps it the same at first)."""
        began = [
            min(self.watches.wall_clock(s.node, s.t_ns) for s in attempt) for attempt in connection.attempts if attempt
        ]
        if len(began) < 2:
            return FIRST_RESEND_NS
        return max(FIRST_RESEND_NS, 2 * (began[-1] - began[-2]))

    def _waits_for_rules(self, connection: Connection) -> bool:
        """Whether a packet died in a pod's namespace whose own rules are on their way."""
        dying = (d.event for d in connection.drops if d.event.hook)
        return any(not self.context.rulesets.known(event.node, event.netns) for event in dying)

    def _waits_for_counters(self, connection: Connection) -> bool:
        """Whether no rule explains a drop, and the node has not told since what its connection table counted."""
        dying = [d.event for d in connection.drops if d.event.reason == "NETFILTER_DROP"]
        if not any(self.context.identity.reported_ns.get(e.node, e.t_ns) < e.t_ns for e in dying):
            return False
        if all(self._now.get(e.node, 0) - e.t_ns > COUNTERS_NS for e in dying):
            return False
        if connection.unexplained is None:
            drop = self.path_of(connection).drop
            connection.unexplained = drop is not None and drop.certainty is Certainty.UNKNOWN
        return connection.unexplained

    def _report(self, connection: Connection) -> Iterator[PacketPath]:
        connection.reported = True
        self._open.pop(id(connection), None)
        if not self._wholly_followed(connection):
            self.left_out += 1
        elif self._wholly_watched(connection):
            yield self.path_of(connection)
        else:
            self.half_seen += 1
        connection.slim()

    def _wholly_followed(self, connection: Connection) -> bool:
        """Whether no node left the connection out while it lasted."""
        if not self.sampling:
            return True
        began: dict[str, int] = {}
        for seen in (s for attempt in connection.attempts for s in attempt):
            began[seen.node] = min(seen.t_ns, began.get(seen.node, seen.t_ns))
        # A node that saw nothing may have left it out: its level is asked for as of the other nodes' moments.
        first = min((self.watches.wall_clock(n, t) for n, t in began.items()), default=0)
        spans = []
        for node in self._way(connection):
            ahead = self.watches.wall_clock(node, 0)
            last = connection.last.get(node, self._now.get(node, 0))
            spans.append((node, began.get(node, first - ahead), last))
        clients = next((self.identity.party(flow.src, None).node for flow in connection.tuples), None)
        if clients is not None and self.watches.knows(clients) and clients not in connection.last:
            return False  # seen only behind a translation of its source, under another port
        ports = {port for _, port in self.connections.servers}
        return self.sampling.whole(connection.tuples, () if 0 in ports else ports, spans)

    def _wholly_watched(self, connection: Connection) -> bool:
        """Whether all nodes on its way were watched when it began."""
        if connection.mid_stream:
            return True
        seen: list[PacketSighting] = [s for attempt in connection.attempts for s in attempt] or [
            d.event for d in connection.drops
        ]
        if not seen:
            return True
        first = min(seen, key=lambda s: self.watches.wall_clock(s.node, s.t_ns))
        return self.watches.covered(first.t_ns, first.node, self._way(connection))

    def path_of(self, connection: Connection) -> PacketPath:
        """A connection as a path, from all that is known of it now."""
        first = connection.first
        client = next(iter(connection.tuples), None)
        client_party = self.identity.party(client.src, client.sport) if client else None
        ordered = in_order(first, self.clocks, client_party.node if client_party else None)
        learn_crossings(connection, self.clocks, ordered)
        asked = next((seen.asked for seen in ordered if seen.asked is not None), None)
        original = asked or (ordered[0].flow if ordered else self._as_asked(connection))
        assert original is not None, "a connection has at least the tuple that it was made for"
        around = self._around(connection)
        fate = fate_of(connection, around)
        dropped = fate.drop if fate.drop is not None and fate.drop.first_packet else None
        entered = self._as_it_came_in(ordered, dropped)
        served = ordered[-1].flow if ordered else self._as_served(connection, original)
        final = entered or (dropped.event.flow if dropped else served)
        outside = dropped if entered is None else None
        translation = translation_of(
            ordered, outside.event.flow if outside else None, outside.event.node if outside else None, asked
        )
        opens = connection.protocol is Protocol.TCP and not connection.mid_stream
        nat = nat_of(translation, self.context.rulesets, self.exact, opens=opens) if translation is not None else None
        service = self.identity.service(original)
        backend = self._backend(original, final, service is not None)
        lost = self._lost_records(connection)
        outcome, verdict, waited = fate.outcome, fate.verdict, fate.waited
        if lost and outcome in (ConnectionOutcome.UNANSWERED, ConnectionOutcome.DROPPED) and fate.drop is None:
            outcome, verdict = ConnectionOutcome.UNKNOWN, Verdict.UNKNOWN
            waited = f"{waited}; but records of {lost} were lost meanwhile, so an answer may have been among them"
        t_ns, time = self.watches.earliest(connection.moments)
        path = PacketPath(
            t_ns=t_ns,
            time=time,
            flow=Flow(self.identity.party(original.src, original.sport or None), service, original.protocol),
            backend=backend,
            nat=nat,
            hops=hops_of(ordered, self.clocks, self.identity),
            verdict=verdict,
            outcome=outcome,
            waited=waited,
            drop=self._explain(fate.drop, original, entered) if fate.drop else None,
            recovered_drops=fate.recovered,
            incomplete=bool(lost),
            handshake_ns=handshake_ns(connection, ordered),
            response_ns=response_ns(connection),
            established=established(connection),
            attempts=len(connection.attempts),
            retransmits=connection.retransmits,
        )
        stream = stream_of(connection, around)
        http = http_of(connection.heads, stream, self.watches.wall_clock)
        path = msgspec.structs.replace(path, stream=stream, back=self._way_back(connection), http=http)
        found = (*symptoms(path, connection, self.identity), *stream_findings(path, self.slow_ns))
        return msgspec.structs.replace(path, findings=found)

    def _way_back(self, connection: Connection) -> tuple[Hop, ...]:
        """The hops of the answer: of the first SYN-ACK, else of the first data or datagram back; its last place may be where
        it died."""
        seen: dict[Place, PacketSeen] = {}
        for event in connection.answer or connection.first_reply:
            seen.setdefault(place_of(event), event)
        return hops_of(in_order(list(seen.values()), self.clocks, None), self.clocks, self.identity)

    def _as_asked(self, connection: Connection) -> FiveTuple | None:
        """The tuple that the client used, where its own packets were not seen: the Service's address, if one is known."""
        service = (t for t in connection.tuples if self.identity.service(t) is not None)
        return next(service, next(iter(connection.tuples), None))

    def _as_served(self, connection: Connection, original: FiveTuple) -> FiveTuple:
        """The tuple behind the translation, by the same."""
        return next((t for t in connection.tuples if (t.dst, t.dport) != (original.dst, original.dport)), original)

    def _around(self, connection: Connection) -> Around:
        nodes = [n for n in connection.last if n in self._now] or list(self._now)
        until = min((self.watches.wall_clock(n, self._now[n]) for n in nodes), default=0)
        return Around(self.watches.wall_clock, self.identity.owns, until)

    def _as_it_came_in(self, ordered: list[PacketSeen], dropped: Dropped | None) -> FiveTuple | None:
        """The tuple with which the packet came into the namespace of its destination, where it died after that: what a pod's
        own rules make of it is not what it was sent to."""
        last = ordered[-1] if ordered else None
        if last is None or dropped is None or (last.node, last.netns) != (dropped.event.node, dropped.event.netns):
            return None
        arrived = last.point is Point.RX and self.identity.owns(last.node, last.netns, last.flow.dst)
        return last.flow if arrived and self.identity.pod_in(last.node, last.netns) is not None else None

    def _lost_records(self, connection: Connection) -> str:
        """The nodes on the connection's way that lost records while it was followed; "" for none."""
        seen = [s for attempt in connection.attempts for s in attempt]
        nodes = []
        for node in self._way(connection):
            if node in self._unfinished:
                nodes.append(node)
                continue
            began = min((s.t_ns for s in seen if s.node == node), default=0)
            until = connection.last.get(node, self._now.get(node, 0))
            if self._losses.during(node, began, until):
                nodes.append(node)
        return ", ".join(sorted(nodes))

    def _backend(self, original: FiveTuple, final: FiveTuple, is_service: bool) -> Party | None:
        """The end that the packet was sent to; None where it never got past the Service's address."""
        if is_service and (original.dst, original.dport) == (final.dst, final.dport):
            return None
        return self.identity.party(final.dst, final.dport or None)

    def _explain(self, dropped: Dropped, asked: FiveTuple, entered: FiveTuple | None) -> Drop:
        event, established = dropped.event, not dropped.first_packet
        ruleset, error = self.context.rulesets.of(event.node, event.netns)
        named = self.exact.dropping_rule(ruleset, event.node, event.flow) if ruleset is not None else None
        case = DropContext(
            event,
            established,
            self.identity,
            ruleset,
            error,
            self.context.engine,
            self._remedies,
            named,
            request=event.flow.reversed if dropped.direction is Direction.REPLY else event.flow,
            asked=asked,
            entered=entered,
            earlier=partial(self.context.rulesets.earlier, event.node, event.netns),
        )
        return explain_drop(case)
