"""Whether whoever sent a reset would have been seen to send it: not seen is not "not sent".

Counts come when an agent empties its tables. A reset that one node counted as received may not be counted as sent yet by the
other, may have been counted before a recording's range began, or may have been lost.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from kubectl_genainet.context.clocks import WallClocks
from kubectl_genainet.context.identity import Identity
from kubectl_genainet.drops.groups import EventGroup
from kubectl_genainet.model.events import (
    RESETS_NOT_COUNTED,
    SOME_RESETS_NOT_COUNTED,
    AgentFailed,
    Event,
    LostEvents,
    Progress,
    ResetCount,
    Tick,
)
from kubectl_genainet.model.results.path import Party

_OF_SAMPLES = ("ring buffer", "event budget")  # losses there are none of counts
_OTHER_PROBES = ("packet", "connections", "dns", "exact", "http")


def may_have_sent(other: EventGroup, received: EventGroup) -> bool:
    """Whether the resets that were received may be these. What their own receiver sent to where they came from went the other
    way: as TCP answers a segment of a connection that a reset from elsewhere has ended."""
    if not isinstance(other.event, ResetCount) or not other.event.sent:
        return False
    sent, came = other.flow, received.flow
    return came.src == came.dst or (sent.src, sent.dst) != (came.dst, came.src)


@dataclass(slots=True)
class _NodeCounts:
    """What is known of one node's counting; times on its own clock."""

    begun_ns: int | None = None
    ended_ns: int | None = None
    counted_ns: int = 0
    is_cut: bool = False  # its agent failed, or its watch has a hole
    misses_resets: bool = False  # its kernel does not tell of each that it sends
    lost_ns: list[int] = field(default_factory=list)  # when it said that it had lost counts


class Counting:
    """Learns from every record until when each node has reported what it counted."""

    def __init__(self, walls: WallClocks) -> None:
        self._walls = walls
        self._nodes: dict[str, _NodeCounts] = defaultdict(_NodeCounts)

    def feed(self, event: Event) -> None:
        match event:
            case Progress(stage="attached"):
                node = self._nodes[event.node]
                node.is_cut = node.is_cut or node.begun_ns is not None
                node.begun_ns = event.t_ns
            case Progress(stage="detached"):
                self._nodes[event.node].ended_ns = event.t_ns
            case Progress(stage="missing") if event.detail.endswith((RESETS_NOT_COUNTED, SOME_RESETS_NOT_COUNTED)):
                self._nodes[event.node].misses_resets = True
            case Tick():
                self._nodes[event.node].counted_ns = max(event.counted_ns, self._nodes[event.node].counted_ns)
            case AgentFailed():
                self._nodes[event.node].is_cut = True
            case LostEvents() if event.where not in _OF_SAMPLES and event.probe not in _OTHER_PROBES:
                self._nodes[event.node].lost_ns.append(self._nodes[event.node].counted_ns)
            case _:
                pass

    def before(self, node: str) -> int:
        """What the node counts now happened after this time, on its clock."""
        known = self._nodes[node]
        return max(known.counted_ns, known.begun_ns or 0)

    def why_incomplete(self, node: str, since: int, until: int) -> str:
        """Why the node may not have reported everything that it counted between two moments, by the wall clock; "" where it
        has."""
        known = self._nodes.get(node)
        if known is None or known.begun_ns is None:
            return f"node {node} was not watched"
        if known.is_cut:
            return f"the watch of node {node} was interrupted"
        if known.misses_resets:
            return f"the kernel of node {node} does not tell of every reset that it sends"
        if known.lost_ns:
            return f"node {node} lost counts"
        if self._wall(node, known.begun_ns) > since:
            return f"node {node} was watched from a moment later on"
        if self._wall(node, max(known.counted_ns, known.ended_ns or 0)) < until:
            return f"the watch of node {node} ended before it had counted"
        return ""

    def _ahead(self, node: str) -> int:
        return (self._walls.realtime_ns(node, 1) or 1) - 1

    def _wall(self, node: str, t_ns: int) -> int:
        return t_ns + self._ahead(node)

    def happened(self, group: EventGroup) -> tuple[int, int]:
        """Between which moments the group's first packet was, by the wall clock."""
        ended = self._nodes[group.node].ended_ns
        until = group.first_ns if ended is None else min(group.first_ns, ended)
        return self._wall(group.node, min(group.since_ns, until)), self._wall(group.node, until)

    def on(self, node: str, wall: int) -> int:
        """A moment of the wall clock on the node's own."""
        return wall - self._ahead(node)


def why_unseen(group: EventGroup, identity: Identity, counting: Counting) -> str | None:
    """Why nobody may have been seen to send a reset that was received; "" where its sender would have been seen, None where it
    is from an address at which no agent looks."""
    service = identity.service(group.flow.reversed)
    addresses = {ip for ip, _ in identity.endpoints(service)} if service is not None else {group.flow.src}
    senders = [party for party in (identity.party(ip, None) for ip in sorted(addresses)) if party.pod or party.node]
    if not senders:
        return None
    since, until = counting.happened(group)
    reasons = (_why_unseen_at(sender, since, until, identity, counting) for sender in senders)
    return next(filter(None, reasons), "")


def _why_unseen_at(sender: Party, since: int, until: int, identity: Identity, counting: Counting) -> str:
    name = f"pod {sender.namespace}/{sender.pod}" if sender.pod else f"node {sender.node}"
    homes = identity.homes(sender.ip)
    if not homes:
        return f"no agent has reported the network namespace of {name}"
    reasons = {node: counting.why_incomplete(node, since, until) for node, _ in homes}
    for node, netns in homes:
        if reasons[node]:
            continue
        if identity.followed(node, netns, counting.on(node, since), counting.on(node, until)):
            return ""
        reasons[node] = f"the network namespace of {name} may not have been followed at that moment"
    return next(iter(reasons.values()))
