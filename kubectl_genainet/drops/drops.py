"""Counts and samples in, rows out: who could not reach whom, where it ended, why, and what the policies say of it.

As with paths, the clock is the events' own: a replay of a bundle says what the live run said.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from kubectl_genainet.context.clocks import WallClocks
from kubectl_genainet.context.context import Context
from kubectl_genainet.context.ends import KnownServers
from kubectl_genainet.context.in_force import FOLLOWED_NS, SEEN_NS
from kubectl_genainet.context.judging import denied_directions
from kubectl_genainet.drops.clients import is_agents_own
from kubectl_genainet.drops.groups import EventGroup, GroupKey, GroupKind, is_request, kind_of, without_sample
from kubectl_genainet.drops.senders import Counting
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import (
    ClusterChanged,
    DropCount,
    EstablishedCount,
    Event,
    Hello,
    IcmpCount,
    IcmpError,
    PacketDropped,
    Point,
    ResetCount,
    RetransmitCount,
    Tally,
)
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol, is_multicast
from kubectl_genainet.model.reasons import function_of, is_background
from kubectl_genainet.policy import DirectionResult, PolicyEngine
from kubectl_genainet.why.drop_context import DropContext
from kubectl_genainet.why.redirect import redirecting_rule

MAX_GROUPS = 20_000
COUNTED_LATE_NS = 1_500_000_000  # until the kernel's counts are read


class DropCorrelator:
    """Feed it every record of every agent; `groups` are what is known now. `everything` keeps what is harmless too. What dies in
    one of `pods`, addresses behind a target's ports, concerns the target also on a port that the pod's own rules redirect to:
    these rules may come after the drop."""

    def __init__(
        self,
        snapshot: ClusterSnapshot,
        concerns: Callable[[FiveTuple], bool] = lambda _: True,
        *,
        everything: bool = False,
        context: Context | None = None,
        pods: Callable[[], Collection[str]] = tuple,
    ) -> None:
        self._pods = pods
        self.context = context or Context(snapshot)
        self.identity = self.context.identity
        self.concerns = concerns
        self.everything = everything
        self.walls = WallClocks()
        self.counting = Counting(self.walls)
        self.background = self.forgotten = self.observers = 0
        self._groups: dict[GroupKey, EventGroup] = {}
        self._opened: set[tuple[str, str, int]] = set()  # (client, server, port) of handshakes
        self._now: dict[str, int] = {}
        self._in_force: dict[str, int] = {}
        # By node those that the objects do not admit, as long as these may have changed unseen.
        self._passed: dict[str, deque[EstablishedCount]] = defaultdict(deque)
        self._judge_by(snapshot)

    def _judge_by(self, snapshot: ClusterSnapshot) -> None:
        self.ends = KnownServers(snapshot)
        self._in_force = dict(self._now)
        for node, events in self._passed.items():
            self._passed[node] = deque(event for event in events if self._denied(event))

    def feed(self, event: Event) -> None:
        """Takes in one record."""
        self.counting.feed(event)
        match event:
            case Hello():
                self.walls.learn(event)
            case PacketDropped():
                self._sample(event)
            case IcmpError():
                self._icmp_sample(event)
            case DropCount() | IcmpCount() | ResetCount() | RetransmitCount() | EstablishedCount():
                self._count(event)
            case NodeReport() | RulesetDump() | NetnsRules():
                self.context.learn(event)
            case ClusterChanged():
                self.context.learn(event, self._now)
                self._judge_by(event.snapshot)
                return
            case _:
                pass
        node = getattr(event, "node", "")
        self._now[node] = max(self._now.get(node, 0), getattr(event, "t_ns", 0))
        self._in_force.setdefault(node, self._now[node])
        self._count_passed(node)

    def _group(
        self,
        kind: GroupKind,
        node: str,
        netns: int,
        flow: FiveTuple,
        reason: str,
        location: str,
        is_request: bool | None = None,
    ) -> EventGroup | None:
        """`is_request`: whether the packets themselves say that they go to the server; None where they do not."""
        concerned = self.concerns(flow)
        may_be_redirected = kind is GroupKind.DROP and flow.dst in self._pods()
        if not (concerned or may_be_redirected) or is_agents_own(flow, self.identity.pod_in(node, netns)):
            return None
        reply = self._is_reply(flow) if is_request is None else not is_request
        oriented, reply = reply is not None, bool(reply)
        client, server = (flow.dst, flow.src) if reply else (flow.src, flow.dst)
        port = flow.sport if reply else flow.dport
        key = GroupKey(kind, client, server, port, flow.protocol, reply, node, netns, reason, function_of(location))
        group = self._groups.get(key)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:
                self.forgotten += 1
                return None
            group = self._groups[key] = EventGroup(
                len(self._groups) + 1, key, flow, oriented=oriented, concerned=concerned
            )
        if is_request is not None and len(self._opened) < MAX_GROUPS:
            self._opened.add((client, server, port))
        return group

    def _is_reply(self, flow: FiveTuple) -> bool | None:
        """Whether the packet goes back to the client, by the API's objects or by a handshake between its ends; None where neither
        tells: the ports alone do not."""
        oriented = self.ends.orient(flow)
        if oriented.sure or not (flow.sport or flow.dport):
            return oriented.reply
        if (flow.src, flow.dst, flow.dport) in self._opened:
            return False
        if (flow.dst, flow.src, flow.sport) in self._opened:
            return True
        return None

    def _is_background(self, flow: FiveTuple, reason: str, location: str, *, opening: bool) -> bool:
        return not self.everything and is_background(
            reason, function_of(location), opening=opening, multicast=is_multicast(flow.dst)
        )

    def _sample(self, event: PacketDropped) -> None:
        if self._is_background(event.flow, event.reason, event.location, opening=event.opening):
            return
        says = not event.tcp.is_ack if event.tcp is not None and event.tcp.syn else None
        group = self._group(GroupKind.DROP, event.node, event.netns, event.flow, event.reason, event.location, says)
        if group is not None and (group.sample is None or (event.opening and not group.opening)):
            group.sample = event

    def _icmp_sample(self, event: IcmpError) -> None:
        kind = GroupKind.ICMP_DROPPED if event.point is Point.DROP else GroupKind.ICMP
        reason = f"{event.type}/{event.code} {event.reason}".strip()
        group = self._group(kind, event.node, event.netns, event.quoted, reason, "")
        if group is not None and group.error is None:
            group.error = event

    def _count(self, event: Tally) -> None:
        if is_agents_own(event.flow, self.identity.pod_in(event.node, event.netns)):
            self.observers += event.packets
            return
        kind, reason, location = kind_of(event)
        if isinstance(event, DropCount) and self._is_background(
            event.flow, event.reason, event.location, opening=event.opening
        ):
            if self.concerns(event.flow):
                self.background += event.packets
            return
        if isinstance(event, EstablishedCount):
            if self._against_policy(event):
                self._passed[event.node].append(event)
            return
        self._add(event, kind, reason, location)

    def _count_passed(self, node: str) -> None:
        """Those of which it is known by now that no change of the objects came with them."""
        passed = self._passed[node]
        while passed and self._now[node] - passed[0].t_ns > SEEN_NS:
            event = passed.popleft()
            group = self._add(event, *kind_of(event))
            if group is not None:
                group.denied = self._denied(event)

    def _add(self, event: Tally, kind: GroupKind, reason: str, location: str) -> EventGroup | None:
        group = self._group(kind, event.node, event.netns, event.flow, reason, location, is_request(event))
        if group is None:
            return None
        if realtime_ns := self.walls.realtime_ns(event.node, event.t_ns):
            group.by_second[realtime_ns // 1_000_000_000] += event.packets
        if not group.packets:
            group.since_ns, group.first_ns = self.counting.before(event.node), event.t_ns
        group.packets += event.packets
        group.last_ns = event.t_ns
        group.event = group.event or event
        if isinstance(event, DropCount):
            group.bytes += event.bytes
            group.opening = group.opening or event.opening
        if isinstance(event, RetransmitCount):
            group.states[event.state] += event.packets
            group.in_vain += event.in_vain
        return group

    def _against_policy(self, event: EstablishedCount) -> bool:
        """Whether a connection between two pods came about that the policies, in force for a while, do not admit.

        Only where source and destination are pods' addresses: what a masqueraded address stands for is not known.
        """
        if event.t_ns - self._in_force.get(event.node, event.t_ns) < FOLLOWED_NS:
            return False
        return bool(self._denied(event))

    def _denied(self, event: EstablishedCount) -> tuple[tuple[str, DirectionResult], ...]:
        snapshot, engine = self.identity.snapshot, self.context.engine
        if engine is None or snapshot.pod_at(event.flow.src) is None or snapshot.pod_at(event.flow.dst) is None:
            return ()
        return tuple(denied_directions(event.flow, engine))

    def engines_for(self, group: EventGroup) -> tuple[PolicyEngine | None, ...]:
        """The policies that may have been in force when the group's last packet was counted."""
        since_ns = max(group.first_ns, group.last_ns - COUNTED_LATE_NS)
        return self.context.in_force.engines(group.node, since_ns, group.last_ns)

    @property
    def now(self) -> Mapping[str, int]:
        """How far each node has reported, on its own clock."""
        return self._now

    @property
    def groups(self) -> list[EventGroup]:
        """Groups that have been counted, the largest first."""
        return sorted(self._counted(), key=lambda g: (-g.packets, g.id))

    def _counted(self) -> Iterator[EventGroup]:
        return (g for g in self._groups.values() if g.packets and (g.concerned or self._is_redirected(g)))

    def _is_redirected(self, group: EventGroup) -> bool:
        """Whether the packets died on a port of the pod that its own rules redirect to, as a sidecar has it."""
        pod = self.identity.pod_in(group.node, group.netns)
        if pod is None or group.flow.dst not in pod.ips:
            return False
        ruleset, _ = self.context.rulesets.of(group.node, group.netns)
        return redirecting_rule(ruleset, group.flow.dport) is not None

    @property
    def timeline(self) -> dict[GroupKind, Counter[int]]:
        """Packets by the second of 1970, of each kind."""
        kinds: dict[GroupKind, Counter[int]] = defaultdict(Counter)
        for group in self._counted():
            kinds[group.kind].update(group.by_second)
        return kinds

    def context_of(self, group: EventGroup) -> DropContext:
        """The drop as `explain` wants it."""
        event = group.sample or without_sample(group)
        ruleset, error = self.context.rulesets.of(group.node, group.netns)
        is_opening = event.opening or group.opening
        established = group.reply or (group.flow.protocol is Protocol.TCP and not is_opening)
        return DropContext(
            event,
            established,
            self.identity,
            ruleset,
            error,
            self.engines_for(group),
            request=event.flow.reversed if group.reply else event.flow,
            earlier=partial(self.context.rulesets.earlier, group.node, group.netns),
        )

    def context_of_error(self, group: EventGroup) -> DropContext | None:
        """An ICMP error that was dropped itself, as a packet of its own; None where no sample of it came. Policies have
        nothing to say of it: connection tracking relates it to the connection that it is about."""
        error = group.error
        if error is None:
            return None
        protocol = Protocol.ICMP if error.family == 4 else Protocol.ICMPV6
        packet = PacketDropped(
            node=error.node,
            t_ns=error.t_ns,
            netns=error.netns,
            ifindex=error.ifindex,
            device=error.device,
            skb=0,
            flow=FiveTuple(error.src, 0, error.dst, 0, protocol),
            length=0,
            payload=0,
            ip_id=0,
            reason=error.reason,
            location=error.location,
            hook=error.hook,
        )
        ruleset, why = self.context.rulesets.of(group.node, group.netns)
        return DropContext(packet, True, self.identity, ruleset, why, (), icmp=(error.type, error.code))
