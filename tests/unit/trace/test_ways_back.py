"""What comes back: its hops, where it died, whether the sender was told; and ends that have an owner only within a namespace."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.agent.probes.decode import hook_of
from kubectl_genainet.model.events import Event, Point
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import ConnectionOutcome
from kubectl_genainet.render.trace.wide import ways_back
from tests.unit.trace_world import HOST, POD, RST, SECOND, World

T = 1000 * SECOND
MS = 1_000_000
DATA = 24  # PSH, ACK
REJECT = "-A FORWARD -p tcp -j REJECT --reject-with icmp-port-unreachable"


def test_first_data_has_a_way_of_its_own_that_ends_where_it_died() -> None:
    world = World()
    asked = world.request(40000, T + MS, DATA, payload=100, seq=1001)
    back = world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001)[:2]
    died = world.dropped(back[-1], "NETFILTER_DROP", "FORWARD", location="nft_do_chain")
    world.feed([*world.begin(), *world.handshake(40000, T), *asked, *back, died, *world.ticks(T + 9 * SECOND)])
    (path,) = world.finish()
    assert (path.outcome, path.drop_direction) == (ConnectionOutcome.DROPPED, "reply")
    assert [hop.node for hop in path.back] == ["node-2"] * 3 + ["node-1"] * 3
    assert [(hop.node, hop.device) for hop in path.back_data] == [("node-2", "eth0"), ("node-2", "veth")]
    assert ways_back(path).endswith("; data: llm-0 →eth0 · node-2 ←veth")


def test_a_way_back_whose_begin_was_not_seen_says_so() -> None:
    world = World()
    answer = [e for e in world.reply(40000, T + MS) if e.node == "node-1"]
    world.feed([*world.begin(), *world.request(40000, T), *answer, *world.ticks(T + 9 * SECOND)])
    (path,) = world.finish()
    assert ways_back(path).startswith("… · node-1 ←eth0→veth")


def over_loopback(node: str, space: int) -> list[Event]:
    """A connection from 127.0.0.1 to itself, refused."""
    world = World()
    flow = FiveTuple("127.0.0.1", 40000, "127.0.0.1", 9000, Protocol.TCP)
    syn = msgspec.structs.replace(world.request(40000, T)[0], node=node, netns=space, device="lo", flow=flow)
    arrived = msgspec.structs.replace(syn, point=Point.RX, t_ns=syn.t_ns + 1000)
    reset = world.reply(40000, T + MS, RST, seq=0)[0]
    refused = msgspec.structs.replace(reset, node=node, netns=space, device="lo", flow=flow.reversed)
    return [syn, arrived, world.dropped(arrived, "NO_SOCKET", location="tcp_v4_rcv"), refused]


@pytest.mark.parametrize(("space", "owner"), [(POD["node-1"], ("chat", "node-1")), (HOST["node-1"], (None, "node-1"))])
def test_loopback_is_the_pods_or_the_nodes_whose_namespace_it_is(space: int, owner: tuple[str | None, str]) -> None:
    world = World()
    world.correlator.connections.servers = {("127.0.0.1", 9000)}
    events = [*world.begin(), *over_loopback("node-1", space), *world.ticks(T + 9 * SECOND)]
    (path,) = [*world.feed(events), *world.finish()]
    client, backend = path.flow.client, path.backend
    assert backend is not None and (client.ip, backend.ip) == ("127.0.0.1", "127.0.0.1")
    assert (client.pod, client.node) == (backend.pod, backend.node) == owner


def counted_by_the_host(t_ns: int, held_back: int) -> NodeReport:
    host, *pods = World.namespaces("node-2")
    host = msgspec.structs.replace(host, counters={"IcmpOutRateLimitHost": held_back})
    return NodeReport(node="node-2", t_ns=t_ns, namespaces=(host, *pods))


@pytest.mark.parametrize(("held_back", "findings"), [(3, ["icmp-limited"]), (0, [])])
def test_an_error_that_nobody_saw_was_held_back_only_where_the_counter_says_so(
    held_back: int, findings: list[str]
) -> None:
    world = World()
    text = f"*filter\n:FORWARD ACCEPT [0:0]\n{REJECT}\nCOMMIT\n"
    rules = RulesetDump(node="node-2", t_ns=1, source="iptables-nft", text=text)
    seen = world.request(40000, T)[:4]
    died = world.dropped(seen[-1], "NETFILTER_DROP", "FORWARD", location="reject_tg")
    begun = [e for e in world.begin() if not (isinstance(e, NodeReport) and e.node == "node-2")]
    before: list[Event] = [*begun, rules, counted_by_the_host(T - SECOND, 0), *seen, died]
    assert world.feed([*before, *world.ticks(T + 5 * SECOND)]) == []  # the counters are waited for
    after: list[Event] = [counted_by_the_host(T + 5 * SECOND, held_back), *world.ticks(T + 6 * SECOND)]
    (path,) = [*world.feed(after), *world.finish()]
    assert path.outcome is ConnectionOutcome.DROPPED and path.drop is not None
    assert path.drop.told == "icmp-port-unreachable"
    assert [f.check for f in path.findings if f.check.startswith("icmp")] == findings


@pytest.mark.parametrize(
    ("inner", "hook"),
    [("br_nf_forward", "FORWARD"), ("br_nf_pre_routing", "PRE_ROUTING"), ("br_nf_post_routing", "POST_ROUTING")],
)
def test_a_bridges_packets_meet_the_hook_that_the_bridge_calls(inner: str, hook: str) -> None:
    stack = (
        "nft_do_chain+0x1",
        "nf_hook_slow+0x3",
        f"{inner}+0x5",
        "nf_hook_slow+0x3",
        "br_handle_frame",
        "ip_rcv+0x1",
    )
    assert hook_of(stack) == hook
