"""Where agents follow fewer connections than there are, those that are told were followed by all nodes from begin to end."""

from __future__ import annotations

from itertools import pairwise

from kubectl_genainet.model.events import Event, Sampled
from kubectl_genainet.model.packet import ALL_KEPT, FiveTuple, Protocol, followed
from kubectl_genainet.trace.watching.sampling import Sampling
from tests.unit.trace_world import ACK, FIN, SECOND, World

T = 1000 * SECOND
PORTS = range(40000, 40400)


def flow(port: int) -> FiveTuple:
    return FiveTuple("10.244.1.2", port, "10.96.0.10", 80, Protocol.TCP)


def test_fewer_are_part_of_more_in_both_directions() -> None:
    kept = [{p for p in PORTS if followed(flow(p), ALL_KEPT >> half)} for half in range(6)]
    assert kept[0] == set(PORTS)
    for more, fewer in pairwise(kept):
        assert fewer < more and len(more) / 3 < len(fewer) < len(more) / 1.5
    assert all(followed(flow(p).reversed, 8192) == followed(flow(p), 8192) for p in PORTS)
    assert followed(FiveTuple("a", 0, "b", 0, Protocol.ICMP), 5)


def test_share_that_is_followed_is_the_one_that_was_set() -> None:
    for share in (0.7, 0.3, 0.05):
        kept = sum(followed(flow(p), int(share * ALL_KEPT)) for p in range(20_000, 60_000))
        assert abs(kept / 40_000 - share) < 0.01


def test_number_holds_from_the_last_moment_it_was_known_not_to() -> None:
    sampling = Sampling()
    assert not sampling and sampling.fewest == ALL_KEPT
    for at, since, level in ((3, 2, 4), (9, 8, 1)):
        sampling.learn(Sampled(node="node-1", t_ns=at, level=level), since)
    assert [sampling.kept("node-1", begin, end) for begin, end in ((0, 1), (1, 2), (5, 7), (8, 8), (10, 20))] == [
        ALL_KEPT,
        ALL_KEPT >> 4,
        ALL_KEPT >> 4,
        ALL_KEPT >> 4,
        ALL_KEPT >> 1,
    ]
    assert sampling.kept("node-2", 0, 99) == ALL_KEPT and sampling.fewest == ALL_KEPT >> 4


def test_connections_that_one_node_left_out_are_counted_and_not_told() -> None:
    world = World()
    level = Sampled(node="node-2", t_ns=T + SECOND, kept=20_000)
    events: list[Event] = [*world.begin(), *world.ticks(T - SECOND)]
    for i, port in enumerate(PORTS):
        start = T + i * 1_000_000
        here = followed(flow(port), 20_000)
        seen = [
            *world.handshake(port, start, seq=5000 + i),
            *world.reply(port, start + 200_000, FIN, seq=9500),
            *world.request(port, start + 300_000, FIN, seq=5500),
        ]
        events += [e for e in seen if here or e.node == "node-1"]
    paths = world.feed([*events, level, *world.ticks(T + 2 * SECOND)]) + world.finish()
    assert {p.flow.client.port for p in paths} == {p for p in PORTS if followed(flow(p), 20_000)}
    assert all(len(p.hops) == 6 and not p.findings for p in paths)
    assert world.correlator.left_out == len(PORTS) - len(paths)


def test_connection_whose_start_was_left_out_is_counted_and_not_told() -> None:
    """Its client's node follows more from a moment on, while it lasts: it is not older than the trace."""
    world = World()
    fewer, all_again = (
        Sampled(node="node-1", t_ns=T + at * SECOND, kept=kept) for at, kept in ((1, 20_000), (3, ALL_KEPT))
    )
    left_out, kept = (
        next(port for port in PORTS if followed(flow(port), 20_000) is wanted) for wanted in (False, True)
    )
    late = T + 4 * SECOND
    rest = [
        [
            *world.request(port, late, ACK, seq=1001, payload=100),
            *world.reply(port, late + 200_000, FIN, seq=9001, payload=200),
            *world.request(port, late + 300_000, FIN, seq=1101),
        ]
        for port in (left_out, kept)
    ]
    events = [*world.begin(), *world.ticks(T), fewer, *world.ticks(T + 2 * SECOND), all_again]
    paths = world.feed([*events, *(event for seen in rest for event in seen), *world.ticks(T + 6 * SECOND)])
    assert [path.flow.client.port for path in paths + world.finish()] == [kept]
    assert world.correlator.left_out == 1
