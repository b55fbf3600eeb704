"""A client whose node gives its packets another source: the whole way, both ways, is one connection's, told as the client's."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from kubectl_genainet.model.events import FlowCounters, PacketDropped, PacketSeen, Point
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.path import Verdict
from tests.unit.trace_world import ACK, FIN, NODES, POD, SECOND, World, hop_names, whole_way

T = 20 * SECOND
HIDDEN = (NODES["node-1"], 61000)
PAYLOAD = {"request": 100, "reply": 200}


def hidden(flow: FiveTuple) -> FiveTuple:
    """The tuple behind the source NAT, of a packet of either direction."""
    if flow.sport == 40000:
        return msgspec.structs.replace(flow, src=HIDDEN[0], sport=HIDDEN[1])
    return msgspec.structs.replace(flow, dst=HIDDEN[0], dport=HIDDEN[1])


def masqueraded(seen: Iterable[PacketSeen]) -> list[PacketSeen]:
    """What node-1 sends out, and gets back, has its own address."""
    outside = ("node-1", "eth0", POD["node-1"])

    def behind(e: PacketSeen) -> bool:
        return e.node != outside[0] or (e.device == outside[1] and e.netns != outside[2])

    return [msgspec.structs.replace(e, flow=hidden(e.flow)) if behind(e) else e for e in seen]


def counted(seen: Iterable[PacketSeen], size: int) -> list[FlowCounters]:
    """What each place counted of the direction."""
    return [
        FlowCounters(
            node=e.node,
            t_ns=e.t_ns + 1000,
            netns=e.netns,
            ifindex=e.ifindex,
            device=e.device,
            point=e.point,
            flow=e.flow,
            packets=3,
            bytes=size + 120,
            data_bytes=size,
            first_ns=e.t_ns,
            last_ns=e.t_ns,
        )
        for e in seen
    ]


@pytest.fixture(params=[{}, {"node-2": "two"}], ids=["one-kernel", "two-kernels"])
def world(request: pytest.FixtureRequest) -> World:
    return World(boot=request.param)


def test_hops_before_and_behind_it_are_one_way_in_both_directions(world: World) -> None:
    (path,) = world.tell(masqueraded(world.request(40000, T)), masqueraded(world.reply(40000, T + 100_000)))
    assert path.verdict is Verdict.FORWARDED and path.flow.client.pod == "chat"
    assert path.nat is not None and path.nat.masqueraded
    assert hop_names(path) == whole_way()
    assert [hop.src for hop in path.hops] == ["10.244.1.2:40000"] * 2 + ["172.18.0.2:61000"] * 4
    assert [hop.dst for hop in path.back] == ["172.18.0.2:61000"] * 4 + ["10.244.1.2:40000"] * 2


def test_bytes_are_the_clients_on_both_sides_of_it(world: World) -> None:
    asked = masqueraded(world.request(40000, T + 300_000, ACK, seq=1001, payload=100, skb=2))
    told = masqueraded(world.reply(40000, T + 600_000, ACK, seq=9001, payload=200, skb=3))
    ends = masqueraded(
        [
            *world.request(40000, T + 900_000, FIN, seq=1101, skb=4),
            *world.reply(40000, T + 1_200_000, FIN, seq=9201, skb=5),
        ]
    )
    counts = [*counted(asked, PAYLOAD["request"]), *counted(told, PAYLOAD["reply"])]
    (path,) = world.tell(
        masqueraded(world.request(40000, T)),
        masqueraded(world.reply(40000, T + 100_000)),
        asked,
        told,
        ends,
        counts,
    )
    assert path.stream is not None
    assert (path.stream.request_bytes, path.stream.reply_bytes) == (PAYLOAD["request"], PAYLOAD["reply"])
    assert [hop.node for hop in path.back_data] == ["node-2"] * 3 + ["node-1"] * 3


def test_a_drop_behind_it_is_told_as_the_clients_with_its_way_until_there(world: World) -> None:
    """Four SYNs die on the server's node, where only the node's address is known."""
    events: list[PacketSeen | PacketDropped] = []
    for attempt in range(4):
        seen = masqueraded(world.request(40000, T + (2**attempt - 1) * SECOND, ip_id=attempt + 1, skb=attempt + 1))[:4]
        events += [*seen, world.dropped(seen[-1], "NETFILTER_DROP", hook="FORWARD")]
    (path,) = world.tell(events)
    assert path.verdict is Verdict.DROPPED and path.flow.client.pod == "chat" and path.attempts == 4
    assert path.drop is not None and (path.drop.node, path.drop.reason) == ("node-2", "NETFILTER_DROP")
    assert hop_names(path) == whole_way()[:4]
    assert path.flow.service is not None and path.flow.service.name == "llm"


def test_an_answer_that_nothing_translates_comes_from_the_servers_node(world: World) -> None:
    """All its sightings have one tuple, on both nodes."""
    straight = [msgspec.structs.replace(e, flow=world.ends(40000)[1]) for e in world.request(40000, T)]
    back = [msgspec.structs.replace(e, flow=world.ends(40000)[1].reversed) for e in world.reply(40000, T + 100_000)]
    (path,) = world.tell(straight, back)
    assert path.nat is None and [hop.node for hop in path.hops] == ["node-1"] * 3 + ["node-2"] * 3
    assert [hop.node for hop in path.back] == ["node-2"] * 3 + ["node-1"] * 3


def test_a_drop_of_the_answer_in_front_of_it_is_told_as_the_clients(world: World) -> None:
    """The SYN-ACK dies on its way back, before its destination is put right again."""
    seen = masqueraded(world.request(40000, T))
    answer = masqueraded(world.reply(40000, T + 100_000))[:4]
    assert answer[-1].point is Point.RX and answer[-1].flow.dst == HIDDEN[0]
    (path,) = world.tell(seen, answer, [world.dropped(answer[-1], "NETFILTER_DROP", hook="PREROUTING")])
    assert path.verdict is Verdict.DROPPED and path.flow.client.pod == "chat"
    assert path.drop is not None and path.drop.node == "node-1" and path.drop_direction == "reply"
    assert [hop.node for hop in path.back] == ["node-2"] * 3 + ["node-1"]
