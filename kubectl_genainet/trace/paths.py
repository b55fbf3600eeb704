"""Events and a snapshot in, paths out: the path of each connection's first packet, its NAT, its end.

The correlator's clock is the events' own (their times and the agents' ticks), never the reader's: a replay of a bundle
decides as the live run did.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_genainet.context.clocks import Clocks
from kubectl_genainet.context.context import Context
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import (
    AgentFailed,
    ClusterChanged,
    Event,
    FlowCounters,
    Hello,
    IcmpError,
    PacketDropped,
    PacketSeen,
    Point,
    Progress,
    Seen,
    TcpRetransmit,
    Tick,
)
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import Drop, Flow, Nat, PacketPath, Party, Verdict
from kubectl_genainet.proxy import attribute_nat
from kubectl_genainet.trace.connections import Connection, Connections, Direction, Dropped
from kubectl_genainet.trace.exact import ExactHits
from kubectl_genainet.trace.hops import Translation, hops_of, in_order, learn_crossings, translation_of
from kubectl_genainet.trace.symptoms import symptoms
from kubectl_genainet.trace.watches import Watches
from kubectl_genainet.why.case import Case
from kubectl_genainet.why.explain import explain_drop
from kubectl_genainet.why.remedies import Remedies

SETTLED_NS = 400_000_000  # nothing new for so long: the agents poll every 20 ms, the rest is the way to the client
UNANSWERED_NS = 1_500_000_000  # longer than TCP's first retransmission (1 s): a lost SYN is seen twice
EXACT_NS = 1_500_000_000  # the kernel's trace comes by another way than the packets, and its rules are looked up
RESPONSE_NS = 5_000_000_000  # how long a response is waited for before the path is shown without it


class PathCorrelator:
    """Feed it every record of every agent; it yields each connection's path once, when it has settled.

    `half_seen` counts the connections of which no path is told: they began before every node on their way was watched,
    or so late that nothing can be said of their end.
    """

    def __init__(self, snapshot: ClusterSnapshot, servers: set[tuple[str, int]]) -> None:
        self.context = Context(snapshot)
        self.identity = self.context.identity
        self.clocks = Clocks()
        self.watches = Watches(self.clocks)
        self.half_seen = 0
        self.connections = Connections(servers, self.clocks)
        self.exact = ExactHits()
        self._now: dict[str, int] = {}
        self._open: dict[int, Connection] = {}
        self._looked_at: dict[str, int] = {}
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
                self._seek_remedies()
                return
            case RuleHit():
                self.exact.learn(event)
                return
            case Tick():
                pass
            case _:
                return
        if connection is not None and not connection.reported:
            self._open[id(connection)] = connection
        time = getattr(event, "t_ns", 0)
        self._now[event.node] = max(self._now.get(event.node, 0), time)
        if isinstance(event, Tick) or time - self._looked_at.get(event.node, 0) > SETTLED_NS // 4:
            self._looked_at[event.node] = time
            yield from self._settled()

    def finish(self) -> Iterator[PacketPath]:
        """The paths that had not settled when the stream ended."""
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
        return ended - last.t_ns < UNANSWERED_NS and len(connection.attempts) < 2

    def _settled(self) -> Iterator[PacketPath]:
        for connection in list(self._open.values()):
            patience = self._patience(connection)
            if self.exact:
                patience = max(patience, EXACT_NS)
            if all(self._quiet(connection, node) > patience for node in self._way(connection)):
                yield from self._report(connection)

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

    @staticmethod
    def _patience(connection: Connection) -> int:
        if any(d.first_packet for d in connection.drops) or connection.ended or connection.reply_data:
            return SETTLED_NS
        if connection.answer and not connection.request_data:
            return UNANSWERED_NS
        return RESPONSE_NS if connection.request_data else UNANSWERED_NS

    def _report(self, connection: Connection) -> Iterator[PacketPath]:
        connection.reported = True
        self._open.pop(id(connection), None)
        if self._wholly_watched(connection):
            yield self.path_of(connection)
        else:
            self.half_seen += 1

    def _wholly_watched(self, connection: Connection) -> bool:
        """Whether all nodes on its way were watched when it began."""
        if connection.mid_stream:
            return True
        seen: list[Seen] = [s for attempt in connection.attempts for s in attempt] or [
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
        original = ordered[0].flow if ordered else client
        assert original is not None, "a connection has at least the tuple that it was made for"
        dropped = next((d for d in connection.drops if d.first_packet), None)
        final = dropped.event.flow if dropped else (ordered[-1].flow if ordered else original)
        translation = translation_of(
            ordered, dropped.event.flow if dropped else None, dropped.event.node if dropped else None
        )
        service = self.identity.service(original)
        backend = self._backend(original, final, service is not None)
        verdict = self._verdict(connection, ordered, dropped)
        told = dropped or self._telling_drop(connection)
        path = PacketPath(
            flow=Flow(self.identity.party(original.src, original.sport or None), service, original.protocol),
            backend=backend,
            nat=self._nat(translation),
            hops=hops_of(ordered, self.clocks, self.identity),
            verdict=verdict,
            drop=self._explain(told) if told else None,
            handshake_ns=self._handshake(connection, ordered),
            response_ns=self._response(connection),
            established=self._established(connection),
            attempts=len(connection.attempts),
            retransmits=connection.retransmits,
        )
        return msgspec.structs.replace(path, findings=tuple(symptoms(path, connection, self.identity)))

    def _backend(self, original: FiveTuple, final: FiveTuple, is_service: bool) -> Party | None:
        """The end that the packet was sent to; None where it never got past the Service's address."""
        if is_service and (original.dst, original.dport) == (final.dst, final.dport):
            return None
        return self.identity.party(final.dst, final.dport or None)

    def _nat(self, translation: Translation | None) -> Nat | None:
        if translation is None:
            return None
        before, after = translation.before, translation.after
        ruleset, _ = self.context.rulesets.of(translation.node)
        observed = self.exact.translation(ruleset, translation.node, before) if ruleset is not None else None
        found = observed or (attribute_nat(ruleset, before, after) if ruleset is not None else None)
        certainty = Certainty.OBSERVED if observed else Certainty.DERIVED if found else Certainty.UNKNOWN
        return Nat(
            mode=found.mode if found else "unknown",
            service_chain=found.service_chain if found else None,
            endpoint_chain=found.endpoint_chain if found else None,
            certainty=certainty,
            hop=translation.hop,
            before=before.destination,
            after=after.destination,
            masqueraded=translation.masqueraded,
        )

    def _verdict(self, connection: Connection, ordered: list[PacketSeen], dropped: Dropped | None) -> Verdict:
        refused = any(direction is Direction.REPLY for _, direction in connection.resets) and not connection.answer
        told = any(error.point is not Point.DROP for error in connection.icmp)
        if dropped is not None or (connection.icmp and not connection.answer):
            return Verdict.REJECTED if refused or told else Verdict.DROPPED
        if refused:
            return Verdict.REJECTED
        if self._telling_drop(connection) is not None:
            return Verdict.DROPPED
        if connection.answer or connection.reply_data:
            return Verdict.FORWARDED
        last = ordered[-1] if ordered else None
        if last is not None and self.identity.owns(last.node, last.netns, last.flow.dst):
            return Verdict.FORWARDED
        return Verdict.UNKNOWN

    @staticmethod
    def _telling_drop(connection: Connection) -> Dropped | None:
        """A drop of a later packet that the connection did not recover from: the same place, again and again, or for
        want of an answer."""
        telling = [d for d in connection.drops if not d.first_packet and d.event.reason != "NOT_SPECIFIED"]
        if not telling:
            return None
        answered = bool(connection.reply_data)
        return telling[0] if not answered or len(telling) > 2 else None

    def _explain(self, dropped: Dropped) -> Drop:
        ruleset, error = self.context.rulesets.of(dropped.event.node)
        event, established = dropped.event, not dropped.first_packet
        named = self.exact.dropping_rule(ruleset, event.node, event.flow) if ruleset is not None else None
        case = Case(event, established, self.identity, ruleset, error, self.context.engine, self._remedies, named)
        return explain_drop(case)

    @staticmethod
    def _established(connection: Connection) -> bool | None:
        if connection.protocol is not Protocol.TCP:
            return None
        return bool(connection.answer or connection.reply_data or connection.mid_stream)

    @staticmethod
    def _handshake(connection: Connection, ordered: list[PacketSeen]) -> int | None:
        """From the SYN at the first device to the SYN-ACK back at it, in ns."""
        if not ordered or not connection.answer or connection.mid_stream or len(connection.attempts) > 1:
            return None
        start = ordered[0]
        back = [a.t_ns for a in connection.answer if (a.node, a.netns) == (start.node, start.netns)]
        return min(back) - start.t_ns if back else None

    @staticmethod
    def _response(connection: Connection) -> int | None:
        """From the first request data into a namespace to the first reply data out of it, at the server's end, in ns."""
        arrivals = {(n, ns): t for (n, ns, _, point), t in connection.request_data.items() if point == "rx"}
        leavings = {(n, ns): t for (n, ns, _, point), t in connection.reply_data.items() if point == "tx"}
        both = [(leavings[k] - arrivals[k]) for k in arrivals.keys() & leavings.keys() if leavings[k] > arrivals[k]]
        return min(both) if both else None
