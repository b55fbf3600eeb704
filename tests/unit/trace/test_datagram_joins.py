"""Which sightings of datagrams are one flow, where neither their payload nor an IP id nor their sk_buff tells."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.events import PacketSeen
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import PacketPath, Verdict
from tests.unit.trace_world import BACKEND, SECOND, SYN_ACK, World

T = 1000 * SECOND
MS = 1_000_000
OUT, ENTERED = 1, 2  # of World.request: into the client's node, out of it


def datagram(seen: PacketSeen, *, skb: int, cpu: int = 0, flow: FiveTuple | None = None) -> PacketSeen:
    as_udp = msgspec.structs.replace(flow or seen.flow, protocol=Protocol.UDP)
    return msgspec.structs.replace(seen, flow=as_udp, tcp=None, sig=77, payload=8, skb=skb, ip_id=0, cpu=cpu)


def masqueraded(world: World, port: int, t: int, *, skb: int, cpu: int) -> list[PacketSeen]:
    """A datagram whose both ends the client's node translates, and whose sk_buff it replaces."""
    before, after = [], []
    sender = FiveTuple("10.244.1.0", 30000 + port % 1000, BACKEND, 8080, Protocol.UDP)
    for number, seen in enumerate(world.request(port, t)):
        if number <= OUT:
            before.append(datagram(seen, skb=skb, cpu=cpu))
        else:
            after.append(datagram(seen, skb=skb + 1, cpu=cpu, flow=sender))
    return [*before, *after]


def backends(paths: list[PacketPath]) -> dict[int, str | None]:
    return {p.flow.client.port or 0: p.backend.pod if p.backend is not None else None for p in paths}


def test_a_replaced_buffer_is_followed_by_its_cpu() -> None:
    world = World(family=4)
    events = [
        e
        for i, port in enumerate((40001, 40002, 40003))
        for e in masqueraded(world, port, T + i * MS, skb=10 * i, cpu=i)
    ]
    paths = world.tell(events)
    assert backends(paths) == {40001: "llm-0", 40002: "llm-0", 40003: "llm-0"}
    assert all(len(p.hops) == 6 and p.verdict is Verdict.FORWARDED for p in paths)


def test_a_buffer_that_was_replaced_is_not_taken_for_a_later_packets() -> None:
    """The address of a replaced sk_buff is free, though it was never seen to leave."""
    world = World(family=4)
    first = masqueraded(world, 40001, T, skb=5, cpu=0)
    second = masqueraded(world, 40002, T + MS, skb=4, cpu=0)  # leaves in the buffer that the first came in with
    paths = world.tell(first, second)
    assert backends(paths) == {40001: "llm-0", 40002: "llm-0"} and all(len(p.hops) == 6 for p in paths)


def test_many_flows_of_one_client_are_told_by_their_ports() -> None:
    world = World(family=6)
    events = []
    for i in range(30):
        events += [datagram(e, skb=100 + i) for e in world.request(40000 + i, T + i * MS)]
    paths = world.tell(events)
    assert sorted(backends(paths)) == [40000 + i for i in range(30)] and all(len(p.hops) == 6 for p in paths)


def test_a_port_used_again_for_another_address_is_another_flow() -> None:
    world = World(family=4)
    world.correlator.connections.servers |= {("10.244.2.9", 8080)}
    asked = [datagram(e, skb=1) for e in world.request(40001, T)]
    answered = [datagram(e, skb=2) for e in world.reply(40001, T + MS, SYN_ACK)]
    (first,) = world.feed([*world.begin(), *asked, *answered, *world.ticks(T + 9 * SECOND)])
    flow = FiveTuple(asked[0].flow.src, 40001, "10.244.2.9", 8080, Protocol.UDP)
    again = [datagram(e, skb=3, flow=flow) for e in world.request(40001, T + 10 * SECOND)]
    (second,) = [*world.feed([*again, *world.ticks(T + 20 * SECOND)]), *world.finish()]
    assert first.backend is not None and first.backend.pod == "llm-0"
    assert second.backend is not None and second.backend.ip == "10.244.2.9"
