"""A client's port that is used again at once: what a node tells late of the connection before is not the new one's."""

from __future__ import annotations

from kubectl_genainet.model.events import Event, FlowCounters, PacketSeen, Point
from kubectl_genainet.model.results.path import PacketPath
from tests.unit.trace_world import ACK, FIN, HOST, RST, SECOND, World, whole_way

T = 1000 * SECOND
PORT = 40000
ISN = 3_000_000  # of the first connection's client


def connection(world: World, t: int, isn: int, *, replied: bool, last: int = FIN) -> list[PacketSeen]:
    """A connection of 100 bytes asked, and answered where it is `replied`, that the client ends."""
    seen = world.request(PORT, t, seq=isn) + world.reply(PORT, t + 100_000, seq=9000, ack=isn + 1)
    seen += world.request(PORT, t + SECOND, ACK, seq=isn + 1, payload=100)
    if replied:
        seen += world.reply(PORT, t + SECOND + 1_000_000, ACK, seq=9001, ack=isn + 101, payload=200)
    seen += world.reply(PORT, t + SECOND + 2_000_000, FIN, seq=9201, ack=isn + 101)
    return seen + world.request(PORT, t + SECOND + 3_000_000, last, seq=isn + 101)


def counted(world: World, t: int, last: int) -> FlowCounters:
    """What the client's node has counted by then of the first connection's request, behind the translation."""
    return FlowCounters(
        node="node-1",
        t_ns=world.at("node-1", t),
        netns=HOST["node-1"],
        ifindex=2,
        device="eth0",
        point=Point.TX,
        flow=world.ends(PORT)[1],
        packets=4,
        bytes=400,
        hop_ns=(),
        data_bytes=100,
        first_ns=world.at("node-1", last),
        last_ns=world.at("node-1", last),
    )


def told(*, late_from: int) -> list[PacketPath]:
    """Two connections of one port; of the first, the client's node tells what passed from `late_from` on after the other node has
    told of all of the second."""
    world = World()
    first = connection(world, T, ISN, replied=True, last=RST)
    second = connection(world, T + 3 * SECOND, ISN + 50_000_000, replied=True)
    late = [e for e in first if e.node == "node-1" and e.t_ns >= late_from]
    at_once = [e for e in first if e not in late]
    events: list[Event] = [
        *world.begin(),
        *at_once,
        *world.ticks(T + 2 * SECOND, "node-2"),
        *(e for e in second if e.node == "node-2"),
        *world.ticks(T + 6 * SECOND, "node-2"),
        *late,
        counted(world, T + 2 * SECOND, T + SECOND),
        *world.ticks(T + 2 * SECOND + 1, "node-1"),
        *(e for e in second if e.node == "node-1"),
        *world.ticks(T + 9 * SECOND),
    ]
    return world.feed(events) + world.finish()


def check(paths: list[PacketPath]) -> None:
    assert [path.t_ns for path in sorted(paths, key=lambda path: path.t_ns)] == [T, T + 3 * SECOND]
    for path in paths:
        assert [(h.node, h.device, h.point) for h in path.hops] == whole_way()
        assert path.findings == () and not path.incomplete and path.attempts == 1
        assert path.stream is None or path.stream.lasted_ns < 2 * SECOND


def test_what_was_counted_before_the_syn_is_not_of_the_new_connection() -> None:
    check(told(late_from=T + 10 * SECOND))


def test_packets_that_passed_before_the_syn_are_not_of_the_new_connection() -> None:
    check(told(late_from=T + SECOND))
