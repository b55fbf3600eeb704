"""What is told does not depend on when a node's records arrive: a replay, or a busy machine, has another order between them."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_genainet.model.events import Event, LostEvents, Sampled
from kubectl_genainet.model.node import RulesetDump
from tests.unit.trace_world import FIN, SECOND, World

T = 1000 * SECOND
MS = 1_000_000
NO_RULES = "*filter\n:FORWARD ACCEPT [0:0]\nCOMMIT\n"


def records(kinds: list[str]) -> list[Event]:
    """Connections that end in different ways, one each 300 ms, with the ticks of both nodes in between."""
    world, events = World(), list[Event]()
    last = T
    for i, kind in enumerate(kinds):
        start, port, seq = T + i * 300 * MS, 40_000 + i, 5_000 + 100 * i
        if kind == "dropped":
            lost = world.request(port, start, seq=seq)[:4]
            again = world.request(port, start + SECOND, seq=seq, ip_id=8)[:4]
            events += [*lost, world.dropped(lost[-1], "NETFILTER_DROP", "FORWARD")]
            events += [*again, world.dropped(again[-1], "NETFILTER_DROP", "FORWARD")]
        elif kind == "unanswered":
            events += world.request(port, start, seq=seq)
        else:
            events += world.handshake(port, start, seq=seq)
            events += world.reply(port, start + 2 * MS, FIN, seq=9500)
            if kind == "closed":
                events += world.request(port, start + 3 * MS, FIN, seq=seq + 1)
        last = start + SECOND
    events += [tick for t in range(T, last + 12 * SECOND, SECOND) for tick in world.ticks(t)]
    return sorted(events, key=lambda event: getattr(event, "t_ns", 0))


def told(kinds: list[str], order: Iterable[str], extra: Iterable[Event] = (), place: int = 0) -> list[bytes]:
    """The paths of a run that, once both nodes are watched, gets one record more of the node that `order` names next, and the
    rest in the end. The `extra` records stand at `place` in their nodes' streams."""
    world = World()
    streams: dict[str, list[Event]] = {"node-1": [], "node-2": []}
    for event in records(kinds):
        streams[getattr(event, "node", "")].append(event)
    for event in extra:
        streams[getattr(event, "node", "")].insert(place, event)
    arrived = [streams[node].pop(0) for node in order if streams[node]]
    paths = world.feed([*world.begin(), *arrived, *streams["node-1"], *streams["node-2"]]) + world.finish()
    return sorted(msgspec.json.encode(path) for path in paths)


KINDS = st.lists(st.sampled_from(["closed", "half closed", "dropped", "unanswered"]), min_size=1, max_size=5)
ORDERS = st.lists(st.sampled_from(["node-1", "node-2"]), max_size=150)


@settings(max_examples=60, deadline=None)
@given(KINDS, ORDERS)
def test_any_order_between_the_nodes_tells_the_same(kinds: list[str], order: list[str]) -> None:
    assert told(kinds, order) == told(kinds, ["node-1", "node-2"] * 500)


@settings(max_examples=30, deadline=None)
@given(KINDS, ORDERS, st.sampled_from(["node-1", "node-2"]), st.integers(0, 60))
def test_so_do_rules_losses_and_numbers_that_come_in_between(
    kinds: list[str], order: list[str], node: str, place: int
) -> None:
    extra: list[Event] = [
        RulesetDump(node=node, t_ns=T, source="iptables", text=NO_RULES),
        Sampled(node=node, t_ns=T, kept=40_000),
        LostEvents(node=node, probe="packet", count=1, where="ring buffer"),
    ]
    assert told(kinds, order, extra, place) == told(kinds, ["node-1", "node-2"] * 500, extra, place)
