"""Connections that go on: what a live view shows of them, and what is left of them at the end."""

from __future__ import annotations

from kubectl_genainet.model.events import Event, FlowCounters
from kubectl_genainet.model.results.path import OpenStream
from kubectl_genainet.render.trace.streams import LongStreams, open_line
from tests.unit.trace.test_connection_life import DATA, counted, exchange, fins
from tests.unit.trace_world import SECOND, World

T = 1000 * SECOND
MS = 1_000_000


def streaming(world: World, port: int, last: int) -> list[Event]:
    """A reply that goes on until `last`, as its server's and its client's devices counted it."""
    reply = world.reply(port, T + 2 * MS, DATA, payload=500, seq=9001)
    grown: list[FlowCounters] = [
        counted(seen, data_bytes=9000, last_ns=seen.t_ns + last - T - 2 * MS) for seen in (reply[0], reply[-1])
    ]
    asked = world.request(port, T + MS, DATA, payload=100, seq=1001)
    return [*exchange(world, port, T), counted(asked[-1]), *grown]


def live(world: World, events: list[Event], until: int) -> list[OpenStream]:
    world.feed([*world.begin(), *events, *world.ticks(until)])
    return world.correlator.open_streams(5)


def test_a_stream_that_goes_on_is_told_with_its_ends_and_how_long_it_is_quiet() -> None:
    world = World()
    (one,) = live(world, streaming(world, 40000, T + 5 * SECOND), T + 9 * SECOND)
    assert (one.flow.client.pod, one.flow.service and one.flow.service.name) == ("chat", "llm")
    assert one.backend is not None and one.backend.pod == "llm-0"
    assert (one.stream.reply_bytes, one.stream.ended) == (9000, "open")
    assert one.quiet_ns is not None and 3.9 * SECOND < one.quiet_ns < 4.1 * SECOND
    assert "quiet for 4." in open_line(one).plain


def test_a_stream_that_has_ended_or_has_only_begun_is_no_row() -> None:
    world = World()
    over = [*streaming(world, 40000, T + 5 * SECOND), *fins(world, 40000, T + 6 * SECOND)]
    assert live(world, over, T + 9 * SECOND) == []
    begun = World()
    assert live(begun, streaming(begun, 40000, T + 5 * MS), T + SECOND) == []


def test_rows_are_the_longest_streams_and_no_more_than_asked_for() -> None:
    world = World()
    events = [e for port in range(40000, 40004) for e in streaming(world, port, T + 5 * SECOND)]
    world.feed([*world.begin(), *events, *world.ticks(T + 9 * SECOND)])
    assert len(world.correlator.open_streams(2)) == 2


def test_a_final_line_says_how_the_stream_ended() -> None:
    world = World()
    (path,) = world.tell(streaming(world, 40000, T + 5 * SECOND), fins(world, 40000, T + 6 * SECOND))
    longest = LongStreams()
    for _ in range(12):
        longest.add(path)
    lines = [text.plain for text in longest.lines()]
    assert len(lines) == 11 and lines[-1] == "… and 2 shorter streams"
    assert "chat → svc/llm:80 → llm-0" in lines[0] and "ended by the server (fin)" in lines[0]
