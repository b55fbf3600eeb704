"""Joins what the nodes saw of DNS queries: across nodes and NAT, with the drop that ended one, with the query upstream.

What joins is the transaction id, the question, the ports, and a tuple that both saw. As in trace.paths the clock is
the events' own.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from kubectl_genainet.model.dns import DnsMessage, Question
from kubectl_genainet.model.events import DnsDropped, DnsEnd, DnsMessageSeen, DnsTransaction, Point
from kubectl_genainet.model.packet import FiveTuple, Protocol

SETTLED_NS = 400_000_000  # the agents poll every 50 ms, the rest is the way to the client
EXPIRES_NS = 5_000_000_000  # as the agent gives up
SWEEP_NS = 2_000_000_000  # until all agents have looked for what they give up
PATIENCE_NS = 10_000_000_000  # until the agents' last word on a query is in
MEMORY = 5_000  # questions asked upstream, and responses to nothing open, that are remembered

QueryKey = tuple[Protocol, int, str, str]
SNAT_NS = 50_000_000  # so long after its first sight a query may take its node's address


@dataclass(frozen=True, slots=True)
class Sighting:
    """A message at a place of a node."""

    node: str
    t_ns: int
    netns: int
    ifindex: int
    point: Point
    flow: FiveTuple  # from client to server


@dataclass(slots=True)
class Pending:
    """One query, as it becomes known. `nodes` are those that have had their say."""

    key: QueryKey
    nodes: dict[str, DnsEnd | None] = field(default_factory=dict)
    flows: dict[FiveTuple, None] = field(default_factory=dict)
    query: list[Sighting] = field(default_factory=list)
    response: list[Sighting] = field(default_factory=list)
    asked: DnsMessage | None = None
    answer: DnsMessage | None = None
    drops: list[DnsDropped] = field(default_factory=list)
    first_ns: int = 0
    last_ns: int = 0

    @property
    def question(self) -> Question | None:
        return (self.asked and self.asked.question) or (self.answer and self.answer.question) or None

    @property
    def client_node(self) -> str:
        return min(self.query, key=lambda s: s.t_ns).node if self.query else ""

    def has(self, end: DnsEnd) -> bool:
        return end in self.nodes.values()


def key_of(flow: FiveTuple, number: int, messages: Iterable[DnsMessage | None]) -> QueryKey:
    """`flow` is from client to server."""
    question = next((m.question for m in messages if m is not None and m.question is not None), None)
    name, kind = (question.name.lower(), question.type) if question else ("", "")
    return (flow.protocol, number, name, kind)


class Remembered:
    """The last queries for each (client's address, name, type), of so many of these as have room."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._asked: OrderedDict[tuple[str, str, str], deque[Pending]] = OrderedDict()

    def add(self, client: str, pending: Pending) -> None:
        question = pending.question
        if question is None:
            return
        key = (client, question.name.lower(), question.type)
        items = self._asked.setdefault(key, deque(maxlen=64))
        if not any(p is pending for p in items):
            items.append(pending)
        self._asked.move_to_end(key)
        if len(self._asked) > self._room:
            self._asked.popitem(last=False)

    def of(self, client: str, question: Question | None) -> Iterable[Pending]:
        """Oldest first; nothing for a query whose question was not read."""
        return self._asked.get((client, question.name.lower(), question.type), ()) if question is not None else ()


class Exchanges:
    """Feed it the events; `settled` gives the queries of which nothing more is to come.

    `home_of` says whose an address is: a node's name stands for all of the node's own addresses.
    """

    def __init__(self, home_of: Callable[[str], str]) -> None:
        self._home_of = home_of
        self.servers: set[str] = set()  # addresses that answer, or should
        self._open: dict[QueryKey, list[Pending]] = {}
        self.count = 0
        self.unmatched = 0  # responses whose query was not seen
        self.malformed = 0
        self._late: OrderedDict[QueryKey, int] = OrderedDict()  # responses to nothing open, by when they were last seen
        self._asked_upstream = Remembered(MEMORY)

    def __len__(self) -> int:
        return sum(map(len, self._open.values()))

    # --- taking in --------------------------------------------------------------------------------------------------

    def transaction(self, event: DnsTransaction) -> Pending:
        """One node's word on a query."""
        key = key_of(event.flows[0], event.id, (event.asked, event.answer))
        pending = self._find(key, event.node, event.flows, event.query[0].t_ns)
        pending = pending or self._masqueraded(key, event) or self._new(key)
        earlier = bool(pending.query) and event.query[0].t_ns < pending.first_ns and event.node in pending.nodes
        flows = dict.fromkeys(event.flows)
        pending.flows = {**flows, **pending.flows} if earlier else {**pending.flows, **flows}
        pending.nodes[event.node] = event.end
        for places, into in ((event.query, pending.query), (event.response, pending.response)):
            into.extend(Sighting(event.node, p.t_ns, p.netns, p.ifindex, p.point, event.flows[p.flow]) for p in places)
        pending.asked = pending.asked or event.asked
        pending.answer = pending.answer or event.answer
        self._touch(pending, event.query[0].t_ns, event.t_ns)
        self._count_malformed(event.asked, event.answer)
        self._remember(pending)
        return pending

    def _nothing_open(self, key: QueryKey, t_ns: int) -> None:
        """A response to no open query: seen at each hop, counted once."""
        before = self._late.pop(key, None)
        self._late[key] = t_ns
        if before is None or t_ns - before > EXPIRES_NS:
            self.unmatched += 1
        if len(self._late) > MEMORY:
            self._late.popitem(last=False)

    def late_answer(self, key: QueryKey) -> int | None:
        """When the response to a query came that had timed out before; None where none was seen."""
        came = self._late.pop(key, None)
        if came is not None:
            self.unmatched -= 1  # its query was seen
        return came

    def message(self, event: DnsMessageSeen) -> Pending | None:
        """A message over TCP, or one over UDP that belongs to nothing that the probe knows."""
        message = event.message
        if message.error and not message.questions:
            self.malformed += 1
            return None
        flow = event.flow.reversed if message.qr else event.flow
        key = key_of(flow, event.id, (message,))
        pending = self._find(key, "", (flow,), event.t_ns)
        if pending is None and (message.qr or flow.protocol is not Protocol.TCP):
            self._nothing_open(key, event.t_ns)
            return None
        pending = pending or self._new(key)
        pending.nodes.setdefault(event.node, None)
        pending.flows[flow] = None
        sight = Sighting(event.node, event.t_ns, event.netns, event.ifindex, event.point, flow)
        if message.qr:
            pending.response.append(sight)
            pending.answer = pending.answer or message
        else:
            pending.query.append(sight)
            pending.asked = pending.asked or message
        self._touch(pending, event.t_ns, event.t_ns)
        self._count_malformed(message)
        self._remember(pending)
        return pending

    def dropped(self, event: DnsDropped) -> Pending | None:
        """A DNS message that the kernel freed; the query may have been seen before, or not."""
        if event.message is None:
            return None
        flow = event.flow.reversed if event.message.qr else event.flow
        key = key_of(flow, event.id, (event.message,))
        pending = self._find(key, "", (flow,), event.t_ns)
        if pending is None:
            if event.message.qr:
                return None
            pending = self._new(key)
            pending.asked = event.message
        pending.flows[flow] = None
        pending.drops.append(event)
        self._touch(pending, event.t_ns, event.t_ns)
        return pending

    def _count_malformed(self, *messages: DnsMessage | None) -> None:
        self.malformed += any(m is not None and bool(m.error) for m in messages)

    def _touch(self, pending: Pending, first: int, last: int) -> None:
        pending.first_ns = min(pending.first_ns or first, first)
        pending.last_ns = max(pending.last_ns, last)

    def _new(self, key: QueryKey) -> Pending:
        pending = Pending(key)
        self._open.setdefault(key, []).append(pending)
        self.count += 1
        return pending

    def _find(self, key: QueryKey, node: str, flows: Iterable[FiveTuple], t_ns: int) -> Pending | None:
        """The query that these tuples belong to: of several that are alike (repetitions), the nearest in time."""
        matching = [
            p
            for p in self._open.get(key, ())
            if (not node or node not in p.nodes) and (any(f in p.flows for f in flows) or self._same_client(p, flows))
        ]
        return min(matching, key=lambda p: abs(p.first_ns - t_ns)) if matching else None

    @staticmethod
    def _same_client(pending: Pending, flows: Iterable[FiveTuple]) -> bool:
        return any((a.src, a.sport) == (b.src, b.sport) for a in pending.flows for b in flows)

    def _masqueraded(self, key: QueryKey, event: DnsTransaction) -> Pending | None:
        """The same query before or after source NAT gave it another port on this node: one lies within the other."""
        mine = event.flows[0]
        for pending in self._open.get(key, ()):
            other = next(iter(pending.flows))
            if event.node not in pending.nodes or not pending.query or mine.src == other.src:
                continue
            if all((f.dst, f.dport) != (mine.dst, mine.dport) for f in pending.flows):
                continue
            spans = sorted(((event.query[0].t_ns, event.t_ns), (pending.first_ns, pending.last_ns)))
            answered = bool(event.response) and bool(pending.response)
            inside = spans[1][1] <= spans[0][1] if answered else not (event.response or pending.response)
            if inside and spans[1][0] - spans[0][0] < SNAT_NS:
                return pending
        return None

    # --- giving out -------------------------------------------------------------------------------------------------

    def settled(self, now: dict[str, int], expected: Iterable[str], client_node: dict[str, str]) -> Iterator[Pending]:
        """The queries that are complete by `now` (a time for each node). `expected` are the nodes that report, and
        `client_node` says on which node an address is."""
        nodes = set(expected)
        slowest = min((now[n] for n in nodes if n in now), default=0)
        quickest = max(now.values(), default=0)
        for key in list(self._open):
            waiting = []
            for pending in self._open[key]:
                patient = quickest - pending.first_ns < PATIENCE_NS
                if not patient or self._is_settled(pending, slowest, nodes, client_node):
                    yield pending
                else:
                    waiting.append(pending)
            if waiting:
                self._open[key] = waiting
            else:
                del self._open[key]

    def rest(self) -> Iterator[Pending]:
        """All that is left, at the end of the stream."""
        everything = [p for items in self._open.values() for p in items]
        self._open.clear()
        yield from everything

    @staticmethod
    def _is_settled(pending: Pending, time: int, expected: set[str], client_node: dict[str, str]) -> bool:
        """`time` is that of the node that lags most: what any of them saw before has been told."""
        if not pending.response:
            return time - pending.first_ns > EXPIRES_NS + SWEEP_NS
        age = time - pending.last_ns
        if pending.key[0] is Protocol.TCP:
            return age > SETTLED_NS
        home = client_node.get(next(iter(pending.flows)).src)
        if home in expected and home not in pending.nodes:
            return False  # its client's node will tell what came of it
        return age > SETTLED_NS

    def _remember(self, pending: Pending) -> None:
        """What a DNS server asks itself may be on behalf of a query that it got."""
        flows = list(pending.flows)
        self.servers.add(flows[-1].dst)
        home = self._home_of(flows[0].src)
        if flows[0].src in self.servers or home != flows[0].src:
            self._asked_upstream.add(home, pending)

    def upstream_of(self, home: str, pending: Pending, start: int, end: int | None) -> list[Pending]:
        """What the server asked for the same question between the two times of its node."""
        known = self._asked_upstream.of(home, pending.question)
        return [
            p
            for p in known
            if p is not pending and p.query and start <= p.first_ns and (end is None or p.first_ns <= end)
        ]
