"""When a connection's path can be reported: nothing new comes, and all nodes on its way have reported up to then."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from kubectl_genainet.context.context import Context
from kubectl_genainet.model.events import PacketSeen, PacketSighting, Point
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.reasons import rules_may_explain
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.trace.joining.connection import Connection
from kubectl_genainet.trace.resets import sender_unseen
from kubectl_genainet.trace.waiting import LOOK_AGAIN, Wait
from kubectl_genainet.trace.watching.coverage import Coverage
from kubectl_genainet.trace.watching.node_progress import NodeProgress
from kubectl_genainet.trace.watching.watches import Watches
from kubectl_genainet.why.explain import lacks_explanation

SETTLED_NS = 400_000_000  # nothing new for so long: the agents poll every 50 ms, the rest is the way to the client
UNANSWERED_NS = 500_000_000  # beyond the moment when TCP would have sent its SYN again
FIRST_RESEND_NS = 1_000_000_000  # TCP's first retransmission of a SYN (RFC 6298); each next takes twice as long
LOST_TELLS = 4  # so many SYNs of a connection were seen dropped: it is told, though its client may go on trying
RULES_NS = 8_000_000_000  # how long rules are waited for, where a packet died by them
COUNTERS_NS = 30_000_000_000  # how long a node's counters are waited for, where they alone can tell why a packet died
COUNTED_NS = 2_500_000_000  # until the counters tell whether what was lost has arrived after all
HALF_CLOSED_NS = 800_000_000  # one side has said FIN: the other follows, or has more to send
NAMESPACES_NS = 5_000_000_000  # how long a node's namespaces are waited for
DATAGRAMS_NS = 1_500_000_000  # a flow of datagrams has no end: it is told once it has been silent for so long


class Settling:
    """`path_of` gives a connection's path as it would be reported now."""

    def __init__(
        self,
        context: Context,
        watches: Watches,
        progress: NodeProgress,
        coverage: Coverage,
        path_of: Callable[[Connection], PacketPath],
    ) -> None:
        self._context, self._watches, self._progress, self._coverage = context, watches, progress, coverage
        self._path_of = path_of

    def waits_for(self, connection: Connection, at_least_ns: int = 0) -> Wait | None:
        """What is waited for before the connection's fate can be told: it was quiet for `at_least_ns`, and nothing more can
        become of it. None: nothing, it has settled."""
        now = self._progress.now
        patience = max(self._patience(connection), at_least_ns)
        for node, last in connection.last.items():
            if now.get(node, 0) - last <= patience:  # the way, with the nodes that said nothing, takes longer to find
                return Wait(node, last + patience)
        way = self._coverage.way(connection)
        latest = max((self._watches.wall_clock(n, t) for n, t in connection.last.items()), default=0)
        if (wait := self._waits_for_silent(connection, way, latest, patience)) is not None:
            return wait
        late = self._waits_for_tick(connection, way, latest) or self._waits_for_counts(connection)
        if late is not None:
            return Wait(late, None)
        if self._waits_for_namespaces(connection, way) or self._waits_for_counters(connection):
            return LOOK_AGAIN
        if self._waits_for_rules(connection) and not all(self._quiet(connection, n, latest) > RULES_NS for n in way):
            return LOOK_AGAIN
        return None

    def cut_short(self, connection: Connection) -> bool:
        """Whether the trace ended before anything could be said of the connection's end."""
        if connection.answer or connection.reply_data or connection.drops or connection.icmp or connection.resets:
            return False
        last = max(connection.first, key=lambda seen: seen.t_ns, default=None)
        if last is None:
            return False
        ended = self._watches.ended(last.node) or self._progress.now.get(last.node, 0)
        return ended - last.t_ns < FIRST_RESEND_NS + UNANSWERED_NS and len(connection.attempts) < 2

    def _waits_for_silent(self, connection: Connection, way: set[str], latest: int, patience: float) -> Wait | None:
        """Whether a node on the way that had nothing to say of it has not reported as far: by the wall clocks since another had.
        A node that reports late is waited for."""
        for node in way - connection.last.keys():
            if self._quiet(connection, node, latest) <= patience:
                return Wait(node, latest + patience - self._watches.wall_clock(node, 0))
        return None

    def _waits_for_tick(self, connection: Connection, way: set[str], latest: int) -> str | None:
        """The node that has not said yet what it lost, and left out, until the connection's last record: one that saw nothing of
        it, until the others' last (`latest`, by the wall clock)."""
        for node in way & self._progress.ticked.keys():
            ticked, last = self._progress.ticked[node], connection.last.get(node)
            if ticked < last if last is not None else self._watches.wall_clock(node, ticked) < latest:
                return node
        return None

    def _waits_for_counts(self, connection: Connection) -> str | None:
        """The node that has not told what it counted of the connection's data until its last record. One that can't keep up is
        not waited for without end."""
        if connection.protocol is not Protocol.TCP or not (connection.request_data or connection.reply_data):
            return None
        for node, last in connection.last.items():
            counted = self._progress.counted.get(node, 0)
            if 0 < counted < last and self._progress.now.get(node, 0) - last < COUNTERS_NS:
                return node
        return None

    def _quiet(self, connection: Connection, node: str, latest: int) -> int:
        """For how long, as far as it has reported, the node has had nothing new; where it had nothing yet, since another had
        (`latest`, by the wall clock)."""
        now = self._progress.now.get(node, 0)
        if node in connection.last:
            return now - connection.last[node]
        return self._watches.wall_clock(node, now) - latest

    def _patience(self, connection: Connection) -> float:
        """How long the connection must have been quiet before its fate is told."""
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
            min(self._watches.wall_clock(s.node, s.t_ns) for s in attempt) for attempt in connection.attempts if attempt
        ]
        if len(began) < 2:
            return FIRST_RESEND_NS
        return max(FIRST_RESEND_NS, 2 * (began[-1] - began[-2]))

    def _waits_for_namespaces(self, connection: Connection, way: set[str]) -> bool:
        """Whether nobody was seen to send its reset, and the nodes have not said since which namespaces they have: one may be
        new."""
        opened = connection.answer or connection.request_data or connection.reply_data or connection.mid_stream
        unseen = sender_unseen(connection, self._context.identity) if opened and not connection.fins else None
        if unseen is None or self._progress.now.get(unseen.node, 0) - unseen.t_ns > NAMESPACES_NS:
            return False
        when = self._watches.wall_clock(unseen.node, unseen.t_ns)
        reported = self._context.identity.reported_ns
        return any(self._watches.wall_clock(node, reported.get(node, 0)) < when for node in way)

    def _waits_for_rules(self, connection: Connection) -> bool:
        """Whether a packet died by rules that are on their way or are read anew: a rule may have been inserted since the last
        reading, before one that would have taken the packet as well. What rules may have caused waits where those that were read
        before do not explain it."""
        rulesets = self._context.rulesets
        drops = [drop.event for drop in connection.drops]
        if any(not rulesets.known(event.node, event.netns) for event in drops if event.hook):
            return True
        dying = [e for e in drops if e.hook or rules_may_explain(e.reason, e.location, opening=e.opening)]
        unread = [e for e in dying if not rulesets.read_since(e.node, e.netns, e.t_ns)]
        return any(event.hook for event in unread) or (bool(unread) and self._unexplained(connection))

    def _unexplained(self, connection: Connection) -> bool:
        """Whether no rule explained the connection's drop when that was first looked at."""
        if connection.unexplained is None:
            drop = self._path_of(connection).drop
            connection.unexplained = drop is not None and lacks_explanation(drop)
            connection.untold = drop is not None and not connection.icmp and (drop.told or "").startswith("icmp")
        return connection.unexplained

    def _waits_for_counters(self, connection: Connection) -> bool:
        """Whether no rule explains a drop, a rule rejects and nobody was told, or a SYN got no answer where it arrived, and the
        node has not told since what its connection table, its limit of ICMP errors and its listening queues counted."""
        unanswered = self._arrived_unanswered(connection)
        dying = [d.event for d in connection.drops if d.event.reason == "NETFILTER_DROP"]
        events: list[PacketSighting] = [*unanswered, *dying]
        if not any(self._context.identity.reported_ns.get(e.node, e.t_ns) < e.t_ns for e in events):
            return False
        if all(self._progress.now.get(e.node, 0) - e.t_ns > COUNTERS_NS for e in events):
            return False
        return bool(unanswered) or self._unexplained(connection) or connection.untold

    def _arrived_unanswered(self, connection: Connection) -> list[PacketSeen]:
        """The last SYN where it reached its destination, if nothing came of it."""
        became = connection.answer or connection.drops or connection.icmp or connection.resets
        if connection.protocol is not Protocol.TCP or connection.mid_stream or became:
            return []
        last = max((s for attempt in connection.attempts for s in attempt), key=lambda s: s.t_ns, default=None)
        return [last] if last and self._context.identity.owns(last.node, last.netns, last.flow.dst) else []
