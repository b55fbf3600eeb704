"""Each DNS exchange once, where the node's source NAT gives a query another port and so makes two of it.

A masqueraded query leaves the node as one of the node's own: the same id and question, to the same server, begun a moment
later. What looks like the node's own is therefore held back until the exchange that it may be a part of is known.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.model.events import DnsEnd, DnsTransaction, Event, Point
from kubectl_genainet.model.node import NodeReport

SNAT_NS = 50_000_000  # so long after its first sight a query may take its node's address
HELD_NS = 2_000_000_000  # the agent looks every second for exchanges without a response
HELD = 8192  # exchanges at most; beyond that the oldest goes on, unchecked

_Key = tuple[int, str, str, str]


def _key(event: DnsTransaction) -> _Key:
    question = event.asked.question if event.asked is not None else None
    return event.id, question.name if question else "", question.type if question else "", event.flows[-1].dst


def _is_part(inner: DnsTransaction, outer: DnsTransaction) -> bool:
    """Whether the first is the second after source NAT: it begins a moment later and ends no later, for another client."""
    a, b = outer.flows[0], inner.flows[0]
    within = 0 <= inner.query[0].t_ns - outer.query[0].t_ns < SNAT_NS
    ends = inner.end is outer.end and (not outer.response or inner.response[-1].t_ns <= outer.response[-1].t_ns)
    return within and ends and (a.src, a.sport) != (b.src, b.sport)


@dataclass(slots=True)
class _Kept:
    event: DnsTransaction
    since: int  # the session's time when it came
    done: bool = False


class _Shelf:
    """Exchanges by what both halves have in common, oldest first."""

    def __init__(self) -> None:
        self._by_key: defaultdict[_Key, list[_Kept]] = defaultdict(list)
        self._order: deque[_Kept] = deque()

    def add(self, event: DnsTransaction, now: int) -> None:
        kept = _Kept(event, now)
        self._by_key[_key(event)].append(kept)
        self._order.append(kept)

    def alike(self, event: DnsTransaction) -> list[_Kept]:
        return self._by_key.get(_key(event), [])

    def old(self, now: int) -> Iterator[DnsTransaction]:
        """Takes out what has been here for long, or has no room any more; yields what was not done with."""
        while self._order and (len(self._order) > HELD or now - self._order[0].since > HELD_NS):
            kept = self._order.popleft()
            key = _key(kept.event)
            self._by_key[key].remove(kept)
            if not self._by_key[key]:
                del self._by_key[key]
            if not kept.done:
                yield kept.event


class ExchangesOnce:
    """Feed it every record of one agent's session; it gives them back, those of the node itself a little later."""

    def __init__(self) -> None:
        self._hosts: frozenset[int] = frozenset()
        self._now = 0
        self._nodes = _Shelf()
        self._pods = _Shelf()  # without a response: these come before or after their other half

    def feed(self, event: Event) -> Iterator[Event]:
        """Takes in one record; yields what may be counted now."""
        self._now = max(self._now, getattr(event, "t_ns", 0))
        if isinstance(event, NodeReport):
            self._hosts = frozenset(n.inode for n in event.namespaces if n.host)
        if not isinstance(event, DnsTransaction):
            yield event
        elif self._is_nodes(event):
            if not any(_is_part(event, kept.event) for kept in self._pods.alike(event)):
                self._nodes.add(event, self._now)
        else:
            for kept in self._nodes.alike(event):
                kept.done = kept.done or _is_part(kept.event, event)
            if event.end is not DnsEnd.ANSWERED:
                self._pods.add(event, self._now)
            yield event
        yield from self._nodes.old(self._now)
        for _ in self._pods.old(self._now):
            pass

    def _is_nodes(self, event: DnsTransaction) -> bool:
        return bool(event.query) and event.query[0].point is Point.TX and event.query[0].netns in self._hosts
