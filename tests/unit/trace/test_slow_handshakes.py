"""Where the time of a slow handshake went. A packet that is lost and sent again is not slow."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.events import PacketSeen
from kubectl_genainet.model.results.path import PacketPath
from tests.unit.trace_world import SECOND, SYN_ACK, World

T = 1000 * SECOND


def held(sightings: list[PacketSeen], at: int, for_ns: int) -> list[PacketSeen]:
    """The packet as it was seen if it waited so long before the place number `at`."""
    later = [msgspec.structs.replace(seen, t_ns=seen.t_ns + for_ns) for seen in sightings[at:]]
    return [*sightings[:at], *later]


def slow(path: PacketPath) -> list[str]:
    return [finding.title for finding in path.findings if finding.check == "slow-handshake"]


def test_time_between_nodes_is_told_whatever_their_clocks_say() -> None:
    for skew in (0, 5 * SECOND, -5 * SECOND):
        world = World(skew={"node-2": skew}, boot={"node-2": "another"})
        (path,) = world.tell(world.request(40000, T), held(world.reply(40000, T + 100_000, SYN_ACK), 3, 3 * SECOND))
        assert path.handshake_ns == 3 * SECOND + 150_000
        assert slow(path) == ["the handshake was slow between nodes node-1 and node-2: 3.0 s there and back"]


def test_time_inside_a_node_names_both_places() -> None:
    world = World()
    syn = held(world.request(40000, T), 4, SECOND // 2)
    (path,) = world.tell(syn, world.reply(40000, T + SECOND // 2 + 100_000, SYN_ACK))
    assert slow(path) == ["the handshake was slow: 500 ms from eth0 of node node-2 (rx) to veth of node node-2 (tx)"]


def test_an_end_that_answers_late_is_named() -> None:
    world = World()
    (path,) = world.tell(world.request(40000, T), world.reply(40000, T + SECOND, SYN_ACK))
    (title,) = slow(path)
    assert title.startswith("the handshake was slow: 1000 ms from eth0 of pod default/llm-0 (rx) to eth0 of pod")


def test_syns_that_are_sent_again_meanwhile_hide_nothing() -> None:
    world = World()
    both = [
        part
        for i in range(2)
        for part in (
            world.request(40000, T + i * SECOND, ip_id=7 + i),
            held(world.reply(40000, T + i * SECOND + 100_000, SYN_ACK), 3, 3 * SECOND),
        )
    ]
    (path,) = world.tell(*both)
    assert path.attempts == 2 and path.handshake_ns == 3 * SECOND + 150_000
    assert slow(path) == ["the handshake was slow between nodes node-1 and node-2: at least 2.0 s there and back"]


def test_what_was_lost_and_sent_again_is_not_slow() -> None:
    world = World()
    second = [world.request(40000, T + SECOND, ip_id=8), world.reply(40000, T + SECOND + 100_000, SYN_ACK)]
    (path,) = world.tell(world.request(40000, T)[:3], *second)
    assert slow(path) == [] and path.attempts == 2
    (path,) = World().tell(world.request(40000, T), world.reply(40000, T + 100_000, SYN_ACK)[:3], *second)
    assert slow(path) == [] and path.attempts == 2
    first = world.reply(40000, T + 100_000, SYN_ACK)[:3]  # the server itself sends it again
    (path,) = World().tell(world.request(40000, T), first, world.reply(40000, T + SECOND, SYN_ACK))
    assert slow(path) == [] and path.attempts == 1


def test_a_quick_handshake_has_no_finding() -> None:
    (path,) = World().tell(World().handshake(40000, T))
    assert slow(path) == [] and path.handshake_ns == 150_000


def test_probes_that_were_attached_between_two_syns_make_none_slow() -> None:
    first, second = World().request(40000, T)[2:], World().request(40000, T + SECOND, ip_id=8)
    for answers in ([], World().reply(40000, T + SECOND + 100_000, SYN_ACK)):
        (path,) = World().tell(first, second, answers)
        assert slow(path) == [] and path.attempts == 2
