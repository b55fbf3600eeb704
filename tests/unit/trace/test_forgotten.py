"""As many connections are held as there is room for; those let go before their end are counted, and said."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.events import PacketSeen
from kubectl_genainet.model.results.path import Verdict
from kubectl_genainet.render.trace.summary import account
from kubectl_genainet.trace.joining import index
from kubectl_genainet.trace.summary import SummaryBuilder
from tests.unit.trace_world import ACK, FIN, SECOND, World

ROOM = 20


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(index, "MAX_CONNECTIONS", ROOM)
    world = World()
    world.feed(world.begin())
    return world


def opened(world: World, port: int, begun: int = SECOND) -> list[PacketSeen]:
    """A connection that was answered, and goes on."""
    syn = {"seq": 1000 * port, "skb": port}
    sent = world.request(port, begun + 300_000, ACK, seq=1000 * port + 1, payload=100, skb=port)
    answered = world.reply(port, begun + 100_000, ack=1000 * port + 1, skb=port)
    return [*world.request(port, begun, **syn), *answered, *sent]


def ended(world: World, port: int, begun: int) -> list[PacketSeen]:
    """The same, with the FINs of both sides."""
    fin = world.request(port, begun + 500_000, FIN, seq=1000 * port + 101, skb=port)
    answered = world.reply(port, begun + 600_000, FIN, ack=1000 * port + 102, skb=port)
    return [*opened(world, port, begun), *fin, *answered]


def test_the_oldest_open_connection_makes_room_and_is_counted(world: World) -> None:
    for port in range(40000, 40000 + ROOM + 1):
        world.feed(opened(world, port))
    told = world.finish()
    assert sorted(path.flow.client.port or 0 for path in told) == list(range(40001, 40001 + ROOM))
    assert (world.correlator.forgotten, len(world.correlator.connections.index)) == (1, ROOM)


def test_what_comes_later_of_one_that_was_let_go_is_one_connection_whose_start_was_not_seen(world: World) -> None:
    for port in range(40000, 40000 + ROOM + 1):
        world.feed(opened(world, port))
    world.feed(world.request(40000, 2 * SECOND, ACK, seq=40_000_101, payload=100, skb=1))
    world.feed(world.reply(40000, 3 * SECOND, ACK, payload=100, skb=2))
    (again,) = [path for path in world.finish() if path.flow.client.port == 40000]
    assert again.handshake_ns is None and again.verdict is Verdict.FORWARDED
    assert world.correlator.forgotten == 2  # it needed room in its turn


def test_connections_that_are_over_make_room_first_and_nothing_is_lost(world: World) -> None:
    told = world.feed(opened(world, 40000))
    for number, port in enumerate(range(40001, 40001 + 2 * ROOM)):
        begun = (2 + 2 * number) * SECOND
        told += world.feed([*ended(world, port, begun), *world.ticks(begun + SECOND)])
    assert [path.flow.client.port for path in told] == list(range(40001, 40001 + 2 * ROOM))
    assert [path.flow.client.port for path in world.finish()] == [40000]
    assert world.correlator.forgotten == 0


def test_one_that_was_told_before_its_end_is_counted(world: World) -> None:
    """Its client may go on to send its SYN: that is told as another connection then."""
    told = []
    for number, port in enumerate(range(40000, 40000 + ROOM + 1)):
        begun = (1 + 40 * number) * SECOND
        told += world.feed([*world.request(port, begun, seq=port, skb=port), *world.ticks(begun + 35 * SECOND)])
    assert {path.verdict for path in told} == {Verdict.UNANSWERED} and len(told) == ROOM + 1
    assert world.correlator.forgotten == ROOM // 10


def test_a_summary_says_how_many_were_let_go(world: World) -> None:
    summary = SummaryBuilder("svc/llm").build(world.correlator.identity, forgotten=2)
    assert "; 2 connections let go before the end for want of room: what came of" in account(summary)
    assert "let go" not in account(SummaryBuilder("svc/llm").build(world.correlator.identity))
