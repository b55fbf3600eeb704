"""Events and a snapshot in, DNS exchanges out: who asked whom, where the time went, where a query was seen last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from itertools import pairwise

import msgspec

from kubectl_genainet.context.clocks import Clocks, WallClocks
from kubectl_genainet.context.context import Context
from kubectl_genainet.dns.ends import AlignedSighting, ServerEnds
from kubectl_genainet.dns.join import EXPIRES_NS, SETTLED_NS, Exchanges, Pending, Remembered, Sighting
from kubectl_genainet.dns.losses import DnsLosses
from kubectl_genainet.dns.targets import dns_servers
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.dns import GOOD_RCODES, Question
from kubectl_genainet.model.events import (
    ClusterChanged,
    DnsDropped,
    DnsEnd,
    DnsMessageSeen,
    DnsTransaction,
    Event,
    Hello,
    LostEvents,
    Point,
    Tick,
)
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome, Split
from kubectl_genainet.model.results.path import Drop, Hop
from kubectl_genainet.why.drop_context import DropContext
from kubectl_genainet.why.explain import explain_drop

RETRY_NS = 30_000_000_000  # so long after it was asked in vain the same question from the same socket is a retry
RESOLVER_NS = (
    4_950_000_000,
    5_500_000_000,
)  # after so long a resolver asks again from another (resolv.conf(5), timeout)
PAIR_NS = 5_000_000  # A and AAAA of one lookup leave within so much of each other
REMEMBERED = 10_000
_PAIRS = {"A": "AAAA", "AAAA": "A"}


class DnsCorrelator:
    """Feed it every record of every agent; it yields each query's exchange once, when no more is to come."""

    def __init__(self, snapshot: ClusterSnapshot, *, context: Context | None = None) -> None:
        self.context = context or Context(snapshot)
        self.identity = self.context.identity
        self.clocks, self.walls = Clocks(), WallClocks()
        self.ends = ServerEnds(self.identity, self.clocks)
        self.exchanges = Exchanges(self.ends.home_of)
        self._now: dict[str, int] = {}
        self._losses = DnsLosses()
        self._nodes: dict[str, None] = {}
        self._homes: dict[str, str] = {}
        self._looked_at = 0
        self._recent = Remembered(REMEMBERED)
        self._pairs: OrderedDict[tuple[FiveTuple, str, str], Pending] = OrderedDict()
        self._learn_servers(snapshot)

    def _learn_servers(self, snapshot: ClusterSnapshot) -> None:
        self.exchanges.servers |= dns_servers(snapshot)
        self._homes = {ip: p.spec.node_name for p in snapshot.pods if not p.spec.host_network for ip in p.ips}

    def feed(self, event: Event) -> Iterator[DnsExchange]:
        """Takes in one record; yields the exchanges that are complete by its time."""
        match event:
            case DnsTransaction():
                pending = self.exchanges.transaction(event)
                self._learn_pair(pending)
                self._learn_recent(pending)
                self.ends.learn_served(pending)
            case DnsMessageSeen():
                known = self.exchanges.message(event)
                self._learn_recent(known)
                self.ends.learn_served(known)
            case DnsDropped():
                self._learn_recent(self.exchanges.dropped(event))
            case Hello():
                self.clocks.learn(event.node, event.boot_id)
                self.walls.learn(event)
                self._nodes[event.node] = None
            case NodeReport() | RulesetDump() | NetnsRules():
                self.context.learn(event)
            case ClusterChanged():
                self.context.learn(event, self._now)
                self._learn_servers(event.snapshot)
                return
            case LostEvents():
                self._losses.lost(event)
                return
            case Tick():
                self._losses.tick(event)
            case _:
                return
        node, time = event.node, event.t_ns
        self._now[node] = max(self._now.get(node, 0), time)
        if isinstance(event, Tick) or time - self._looked_at > SETTLED_NS:
            self._looked_at = time
            for pending in self.exchanges.settled(self._now, self._nodes, self._homes):
                yield self._exchange(pending)

    def finish(self) -> Iterator[DnsExchange]:
        """What had not settled when the stream ended."""
        for pending in sorted(self.exchanges.rest(), key=lambda p: p.first_ns):
            yield self._exchange(pending)

    # --- one exchange -----------------------------------------------------------------------------------------------

    def _ordered(self, sights: Sequence[Sighting], reference: str) -> list[AlignedSighting]:
        """In order; the error is None where the clocks can't be compared."""
        placed = []
        for sight in sights:
            offset = self.clocks.offset(sight.node, reference)
            add, error = (offset.add_ns, offset.error_ns) if offset is not None else (0, None)
            placed.append((sight, sight.t_ns + add, error))
        return sorted(placed, key=lambda item: (item[2] is None, item[1]))

    def _reference_node(self, pending: Pending) -> str:
        """The node by whose clock an exchange is told: its client's where that saw the query."""
        nodes = [seen.node for seen in pending.query]
        home = self._homes.get(next(iter(pending.flows)).src, "")
        return home if home in nodes else (nodes[0] if nodes else "")

    def _exchange(self, pending: Pending) -> DnsExchange:
        self._learn_crossings(pending)
        flows = list(pending.flows)
        reference = self._reference_node(pending)
        query, response = self._ordered(pending.query, reference), self._ordered(pending.response, reference)
        first = query[0][0].flow if query else flows[0]
        dropped = (d.flow for d in pending.drops if d.message is not None and not d.message.qr)
        last = next(dropped, query[-1][0].flow if query else flows[-1])
        question = pending.question
        outcome, rcode, latency = self._outcome(pending, query, response)
        why_open = self._losses.why_open(pending) if outcome is QueryOutcome.TIMEOUT else ""
        if why_open:
            outcome = QueryOutcome.OPEN
        recent = list(self._recent.of(first.src, question))
        start = query[0][1] if query else pending.first_ns
        service = self.identity.service(first)
        arrival = self.ends.arrival(query, response)
        reached = service is None or arrival is not None or (first.dst, first.dport) != (last.dst, last.dport)
        client = self.identity.party(first.src, first.sport)
        exchange = DnsExchange(
            client=client,
            asked=self.identity.party(first.dst, first.dport),
            service=service,
            server=self.ends.server(last, arrival) if reached else None,
            transport=first.protocol.value,
            id=pending.key[1],
            name=question.name if question else None,
            type=question.type if question else None,
            outcome=outcome,
            rcode=rcode,
            t_ns=start,
            time=self.walls.time(reference or pending.client_node, start),
            latency_ns=latency,
            split=self._split(pending, query, response),
            upstream=first.src in self.exchanges.servers or self.ends.is_forwarded(client, pending),
            retry=self._is_retry(pending, recent),
            truncated=pending.answer is not None and pending.answer.tc,
            after_truncation=self._after_truncation(pending, recent),
            late_ns=self._late(pending, outcome, start),
            answers=pending.answer.answers if pending.answer else None,
            hops=self._hops(query),
            way_back=self._hops(response),
            last_seen=why_open,
        )
        if outcome is QueryOutcome.TIMEOUT:
            exchange = self._explained(exchange, pending, query, response)
        return exchange

    def _learn_recent(self, pending: Pending | None) -> None:
        if pending is not None:
            self._recent.add(next(iter(pending.flows)).src, pending)

    @staticmethod
    def _is_retry(pending: Pending, recent: list[Pending]) -> bool:
        """Whether the client asked the same before, in vain: from the same socket, or so long ago as resolvers wait."""
        port = next(iter(pending.flows)).sport
        for other in recent:
            age = pending.first_ns - other.first_ns
            if other is pending or other.response or age <= 0:
                continue
            same_socket = next(iter(other.flows)).sport == port and other.key[0] is pending.key[0]
            if (same_socket and age < RETRY_NS) or RESOLVER_NS[0] < age < RESOLVER_NS[1]:
                return True
        return False

    @staticmethod
    def _after_truncation(pending: Pending, recent: list[Pending]) -> bool:
        return pending.key[0] is Protocol.TCP and any(
            other.answer is not None and other.answer.tc and 0 < pending.first_ns - other.first_ns < RETRY_NS
            for other in recent
        )

    def _outcome(
        self,
        pending: Pending,
        query: list[AlignedSighting],
        response: list[AlignedSighting],
    ) -> tuple[QueryOutcome, str | None, int | None]:
        """Outcome, response code, and the time from the query to the response at the place that saw the query first."""
        latency = None
        if query and response:
            start = query[0][0]
            back = [
                s.t_ns
                for s, _, _ in response
                if (s.node, s.netns, s.ifindex) == (start.node, start.netns, start.ifindex)
            ]
            latency = max(back) - start.t_ns if back else None
        arrived = latency is not None or (bool(response) and self._is_home(response[-1][0]))
        lost_back = any(d.message is not None and d.message.qr for d in pending.drops)
        if response and not lost_back and (arrived or not self._home_tells(pending)):
            rcode = pending.answer.rcode if pending.answer else None
            answered = rcode in GOOD_RCODES
            return (QueryOutcome.ANSWERED if answered else QueryOutcome.FAILED), rcode, latency
        age = max(self._now.values(), default=0) - pending.first_ns
        if pending.has(DnsEnd.EXPIRED) or pending.has(DnsEnd.REPEATED) or age >= EXPIRES_NS:
            return QueryOutcome.TIMEOUT, None, None
        return QueryOutcome.OPEN, None, None

    def _is_home(self, sight: Sighting) -> bool:
        return sight.point is Point.RX and self.identity.owns(sight.node, sight.netns, sight.flow.src)

    def _home_tells(self, pending: Pending) -> bool:
        """Whether the client's own node has reported this query."""
        return self._homes.get(next(iter(pending.flows)).src) in pending.nodes

    def _late(self, pending: Pending, outcome: QueryOutcome, start: int) -> int | None:
        came = self.exchanges.late_answer(pending.key) if outcome is QueryOutcome.TIMEOUT else None
        return came - start if came is not None and came > start else None

    def _split(
        self,
        pending: Pending,
        query: list[AlignedSighting],
        response: list[AlignedSighting],
    ) -> Split:
        if not query:
            return Split()
        start = query[0]
        nat = next((i for i in query if i[0].node == start[0].node and i[0].flow.dst != start[0].flow.dst), None)
        arrived = self.ends.arrival(query, response)
        leaving = next(
            (item for item in response if item[0].point is Point.TX and self.ends.owns_server(item[0])), None
        )
        end = response[-1] if response else None
        asked: list[Pending] = []
        if arrived is not None:
            asked = self.exchanges.upstream_of(
                self.ends.home_at(arrived[0]),
                pending,
                arrived[0].t_ns,
                leaving[0].t_ns if leaving is not None else None,
            )
        upstream = None
        if asked and all(p.response for p in asked):
            upstream = max(s.t_ns for p in asked for s in p.response) - min(s.t_ns for p in asked for s in p.query)
        return Split(
            to_nat=_between(start, nat),
            to_server=_between(nat or start, arrived),
            server=_between(arrived, leaving),
            upstream=upstream,
            to_client=_between(leaving, end),
        )

    def _hops(self, placed: list[AlignedSighting]) -> tuple[Hop, ...]:
        hops = []
        for sight, time, error in placed:
            pod = self.identity.pod_in(sight.node, sight.netns)
            hops.append(
                Hop(
                    node=sight.node,
                    pod=pod.metadata.name if pod else None,
                    device=self.identity.device(sight.node, sight.netns, sight.ifindex),
                    point=sight.point.value,
                    t_ns=time,
                    src=sight.flow.source,
                    dst=sight.flow.destination,
                    t_error_ns=error,
                )
            )
        return tuple(hops)

    # --- queries without an answer ----------------------------------------------------------------------------------

    def _explained(
        self,
        exchange: DnsExchange,
        pending: Pending,
        query: list[AlignedSighting],
        response: list[AlignedSighting],
    ) -> DnsExchange:
        drop = self._drop(pending)
        last = exchange.way_back[-1] if exchange.way_back else (exchange.hops[-1] if exchange.hops else None)
        subject = "the response was last seen" if exchange.way_back else "the query was last seen"
        last_place = f"{subject} at {_place(last)}" if last else ""
        if not last_place and pending.drops:
            last_place = f"the query was dropped before any device of node {pending.drops[0].node} saw it"
        arrival = self.ends.arrival(query, response)
        arrived = arrival[0] if arrival is not None else None
        if arrived is not None and not response:
            asked = self.exchanges.upstream_of(self.ends.home_at(arrived), pending, arrived.t_ns, None)
            silent = [p for p in asked if not p.response]
            last_place += ": it reached the server"
            if silent:
                last_place += f", which asked {next(iter(silent[0].flows)).destination} and got no answer"
        race = drop is None and arrived is None and self._lost_race(pending)
        race = race or self._dropped_by_race(pending)
        return msgspec.structs.replace(exchange, last_seen=last_place, drop=drop, race=race)

    def _drop(self, pending: Pending) -> Drop | None:
        if not pending.drops:
            return None
        event = pending.drops[0]
        ruleset, error = self.context.rulesets.of(event.node, event.netns)
        is_response = event.message is not None and event.message.qr
        engines = self.context.in_force.engines(event.node, event.t_ns, event.t_ns)
        return explain_drop(DropContext(event, is_response, self.identity, ruleset, error, engines))

    def _learn_pair(self, pending: Pending) -> None:
        question = pending.question
        if question is not None and question.type in _PAIRS and pending.query:
            key = (next(iter(pending.flows)), question.name.lower(), question.type)
            self._pairs[key] = pending
            self._pairs.move_to_end(key)
            if len(self._pairs) > REMEMBERED:
                self._pairs.popitem(last=False)

    def _partner(self, pending: Pending) -> Pending | None:
        """The other of A and AAAA, asked from the same socket at the same time."""
        question: Question | None = pending.question
        if question is None or question.type not in _PAIRS:
            return None
        other = self._pairs.get((next(iter(pending.flows)), question.name.lower(), _PAIRS[question.type]))
        if other is None or abs(other.first_ns - pending.first_ns) > PAIR_NS:
            return None
        return other

    def _lost_race(self, pending: Pending) -> bool:
        """One of a pair vanished on its client's node between the first device and NAT, the other was answered, and the
        node's count of failed conntrack insertions has grown: __nf_conntrack_confirm found the other's entry."""
        other = self._partner(pending)
        if other is None or not other.response or len(pending.nodes) != 1 or len(pending.flows) != 1:
            return False
        return self._insertions_failed(pending.client_node)

    def _insertions_failed(self, node: str) -> bool:
        host = self.identity.host_of(node)
        return host is not None and self.identity.grown(node, host.inode, "conntrack_insert_failed") > 0

    def _dropped_by_race(self, pending: Pending) -> bool:
        """The same, where the kernel said so itself: dropped by conntrack's confirmation, not by a rule."""
        other = self._partner(pending)
        event = pending.drops[0] if pending.drops else None
        if event is None or other is None or not other.response:
            return False
        frames = {frame.partition("+")[0] for frame in event.stack}
        confirms = frames & {"nf_confirm", "__nf_conntrack_confirm", "nf_conntrack_confirm"}
        return bool(confirms) or (event.hook in ("POST_ROUTING", "INPUT") and self._insertions_failed(event.node))

    def _learn_crossings(self, pending: Pending) -> None:
        if len(pending.nodes) < 2:
            return
        for sights in (pending.query, pending.response):
            by_node: dict[str, list[Sighting]] = {}
            for sight in sights:
                by_node.setdefault(sight.node, []).append(sight)
            order = list(pending.nodes) if sights is pending.query else list(reversed(pending.nodes))
            home = self._homes.get(next(iter(pending.flows)).src, "")
            order.sort(key=lambda n: (n != home) if sights is pending.query else (n == home))
            present = [n for n in order if n in by_node]
            for sender, receiver in pairwise(present):
                sent, received = max(s.t_ns for s in by_node[sender]), min(s.t_ns for s in by_node[receiver])
                self.clocks.crossed(sender, sent, receiver, received)


def _between(a: AlignedSighting | None, b: AlignedSighting | None) -> int | None:
    """ns from one sight to another; None where one is missing or their clocks can't be compared."""
    if a is None or b is None:
        return None
    if a[0].node == b[0].node:
        return b[0].t_ns - a[0].t_ns
    if a[2] is None or b[2] is None:
        return None
    return b[1] - a[1]


def _place(hop: Hop) -> str:
    where = f"pod {hop.pod} on {hop.node}" if hop.pod else f"node {hop.node}"
    return f"{where}, {hop.device or 'unknown device'} ({hop.point})"
