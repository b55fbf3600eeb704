"""A connection is followed to its end: what became of it, what it carried, and which sightings are one connection."""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest

from kubectl_genainet.model.events import (
    Event,
    FlowCounters,
    LostEvents,
    PacketSeen,
    TcpRetransmit,
)
from kubectl_genainet.model.node import NetnsRules, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import ConnectionOutcome, PacketPath, Verdict
from tests.unit.trace_world import BACKEND, CLIENT, FIN, HOST, POD, RST, SECOND, SERVICE, World

T = 1000 * SECOND
DATA = 24  # PSH, ACK
MS = 1_000_000


def fins(world: World, port: int, t: int) -> list[PacketSeen]:
    return [*world.reply(port, t, FIN, seq=9900), *world.request(port, t + 50_000, FIN, seq=1900)]


def exchange(world: World, port: int, t: int) -> list[PacketSeen]:
    """Handshake, a request, the first of its reply."""
    return [
        *world.handshake(port, t),
        *world.request(port, t + MS, DATA, payload=100, seq=1001),
        *world.reply(port, t + 2 * MS, DATA, payload=500, seq=9001),
    ]


def counted(seen: PacketSeen, **rest: Any) -> FlowCounters:
    """What the place of a sighting counted of its flow."""
    times = {"first_ns": seen.t_ns, "last_ns": seen.t_ns}
    values: dict[str, Any] = {"data_bytes": seen.payload, "packets": 10, "bytes": 10_000} | times | rest
    return FlowCounters(
        node=seen.node,
        t_ns=max(seen.t_ns, values["last_ns"]),
        netns=seen.netns,
        ifindex=seen.ifindex,
        device=seen.device,
        point=seen.point,
        flow=seen.flow,
        **values,
    )


def test_syn_with_data_that_is_sent_again_without_opens_one_connection() -> None:
    """TCP Fast Open, where something on the way takes SYNs with data."""
    world = World()
    lost = world.request(40000, T, payload=20)[:3]
    (path,) = world.tell(lost, exchange(world, 40000, T + SECOND), fins(world, 40000, T + 2 * SECOND))
    assert (path.attempts, path.outcome) == (2, ConnectionOutcome.ANSWERED)


def test_lost_syn_that_was_sent_again_decides_nothing() -> None:
    world = World()
    lost = world.request(40000, T)[:3]
    again = [*world.request(40000, T + SECOND, ip_id=8), *world.reply(40000, T + SECOND + MS)]
    (path,) = world.tell(lost, [world.dropped(lost[-1], "QDISC_DROP")], again, fins(world, 40000, T + 2 * SECOND))
    assert (path.verdict, path.outcome, path.drop) == (Verdict.FORWARDED, ConnectionOutcome.ANSWERED, None)
    assert path.attempts == 2 and path.recovered_drops == 1


def test_dropped_syn_ack_is_the_way_back() -> None:
    world = World()
    events: list[Event] = []
    for i in range(2):
        back = world.reply(40000, T + i * SECOND + MS, ip_id=20 + i)[:2]
        events += [*world.request(40000, T + i * SECOND, ip_id=7 + i), *back]
        events.append(world.dropped(back[-1], "NETFILTER_DROP", "FORWARD", location="nft_do_chain"))
        duplicate = world.request(40000, T + i * SECOND, ip_id=7 + i)[-1]
        events.append(world.dropped(duplicate, "NOT_SPECIFIED", location="tcp_v4_rcv"))
    (path,) = world.tell(events)
    assert path.outcome is ConnectionOutcome.DROPPED and path.drop is not None
    assert (path.drop.reason, path.drop.node, path.drop.hook) == ("NETFILTER_DROP", "node-2", "FORWARD")
    assert [h.device for h in path.back] == ["eth0", "veth"]
    assert (path.drop_direction, path.back_data) == ("reply", ())


def test_answer_from_an_address_that_was_not_asked_is_no_closed_port() -> None:
    world = World()
    back = [
        msgspec.structs.replace(e, flow=e.flow if e.flow.src == BACKEND else world.ends(40000)[1].reversed)
        for e in world.reply(40000, T + MS)
    ]
    refused = world.dropped(back[-1], "NO_SOCKET", location="tcp_v4_rcv")
    reset = [
        msgspec.structs.replace(e, flow=world.ends(40000)[1]) for e in world.request(40000, T + 2 * MS, RST, seq=1)
    ]
    (path,) = world.tell(world.request(40000, T), back, [refused], reset)
    assert (
        path.outcome is ConnectionOutcome.RESET and path.drop is not None and path.drop.check == "reply-not-translated"
    )
    assert f"the client had asked {SERVICE}:80" in path.drop.explanation
    assert "nothing listens" not in path.drop.explanation


def test_reset_in_the_middle_of_the_reply_is_a_failure_and_one_after_its_end_is_none() -> None:
    world, other = World(), World()
    reset = world.reply(40000, T + 3 * SECOND, RST, seq=9501)
    (path,) = world.tell(exchange(world, 40000, T), reset)
    assert (path.outcome, path.verdict) == (ConnectionOutcome.RESET, Verdict.RESET)
    assert [f.check for f in path.findings] == ["reset-by-app"] and "midway" in path.findings[0].title
    late = other.request(40000, T + 4 * SECOND, RST, seq=1101)
    (path,) = other.tell(exchange(other, 40000, T), other.reply(40000, T + 3 * SECOND, FIN, seq=9501), late)
    assert path.outcome is ConnectionOutcome.ANSWERED and path.findings == ()


def test_check_of_a_port_that_is_reset_at_once_is_no_failure() -> None:
    world = World()
    (path,) = world.tell(world.handshake(40000, T), world.request(40000, T + MS, RST, seq=1001))
    assert path.outcome is ConnectionOutcome.ANSWERED and path.findings == ()


def resent(world: World, port: int, t: int, segments: int = 1) -> TcpRetransmit:
    flow = world.ends(port)[1].reversed
    return TcpRetransmit(node="node-2", t_ns=t, netns=POD["node-2"], flow=flow, state="ESTABLISHED", segments=segments)


@pytest.mark.parametrize(
    ("counted_ns", "where"),
    [
        (T + 9 * SECOND, "lost between eth0 of node node-2 (tx) and eth0 of node node-1 (rx) (500 of 9000 bytes "),
        (T, "where is not known, as not all nodes have counted since"),
    ],
)
def test_reply_that_dies_on_the_wire_is_unanswered_after_its_first_byte(counted_ns: int, where: str) -> None:
    world = World()
    reply = world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001)
    sent = [counted(e, data_bytes=9000, last_ns=T + 5 * MS) for e in reply[:3]]
    got = [msgspec.structs.replace(counted(e), packets=40) for e in reply[3:]]  # what came was sent in larger pieces
    again = [resent(world, 40000, T + i * SECOND, segments=2) for i in range(1, 4)]
    ticks = [msgspec.structs.replace(tick, counted_ns=world.at(tick.node, counted_ns)) for tick in world.ticks(T)]
    (path,) = world.tell(exchange(world, 40000, T), sent, got, again, ticks)
    assert (path.outcome, path.verdict, path.retransmits) == (ConnectionOutcome.UNANSWERED, Verdict.UNANSWERED, 6)
    (finding,) = [f for f in path.findings if f.check == "stopped-arriving"]
    assert where in finding.title


def test_losses_that_were_made_good_decide_nothing() -> None:
    world = World()
    reply = world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001)
    got = [counted(e, data_bytes=90_000, last_ns=T + 9 * SECOND) for e in reply]
    again = [resent(world, 40000, T + i * SECOND) for i in range(1, 4)]
    drops = [world.dropped(reply[1], "QDISC_DROP") for _ in range(3)]
    (path,) = world.tell(exchange(world, 40000, T), drops, again, got, fins(world, 40000, T + 10 * SECOND))
    assert path.outcome is ConnectionOutcome.ANSWERED and path.drop is None and path.recovered_drops == 3


def test_counters_that_come_after_the_end_are_waited_for_where_something_was_lost() -> None:
    world = World()
    reply = world.reply(40000, T + 2 * MS, DATA, payload=500, seq=9001)
    again = [resent(world, 40000, T + i * SECOND) for i in range(1, 4)]
    drops = [world.dropped(reply[1], "NETFILTER_DROP", "FORWARD")]
    late = [counted(e, data_bytes=90_000, last_ns=T + 9 * SECOND) for e in reply]
    ended = [*world.begin(), *exchange(world, 40000, T), *drops, *again, *fins(world, 40000, T + 10 * SECOND)]
    assert world.feed([*ended, *world.ticks(T + 11 * SECOND)]) == []
    (path,) = world.feed([*late, *world.ticks(T + 19 * SECOND)])  # the rules that dropped may be new, too
    assert path.outcome is ConnectionOutcome.ANSWERED and path.drop is None


# --- what a connection carried ----------------------------------------------------------------------------------------


def streamed(world: World) -> PacketPath:
    """A reply with data every 50 ms, 20 s in all."""
    begin = T + 500 * MS
    request = world.request(40000, T + MS, DATA, payload=300, seq=1001)
    reply = world.reply(40000, begin, DATA, payload=500, seq=9001)
    gaps = (0,) * 62 + (200,)  # element 62: [49152, 57344) µs
    common = {"data_bytes": 20_000, "last_ns": T + 20 * SECOND, "silence_at_ns": T + 8 * SECOND}
    records = [counted(e, **common, silence_ns=60 * MS, gaps=gaps) for e in reply]
    events: list[Event] = [*world.handshake(40000, T), *request, *reply, *records, *(counted(e) for e in request)]
    (path,) = world.tell(events, fins(world, 40000, T + 21 * SECOND))
    return path


def test_stream_is_measured_where_it_leaves_the_server() -> None:
    path = streamed(World())
    stream = path.stream
    assert stream is not None and (stream.request_bytes, stream.reply_bytes) == (300, 20_000)
    assert stream.first_reply_ns == 499 * MS - 50_000  # in at its last place, out at its first
    assert stream.gap_p50_ns == 57_344_000 and (stream.ended, stream.ended_by) == ("fin", "server")
    assert abs(stream.lasted_ns - 21 * SECOND) < MS and path.findings == ()


# --- which sightings are one connection -------------------------------------------------------------------------------


def datagram(world: World, seen: PacketSeen, port: int, skb: int) -> PacketSeen:
    flow = msgspec.structs.replace(seen.flow, protocol=Protocol.UDP, sport=port)
    return msgspec.structs.replace(seen, flow=flow, tcp=None, sig=77, payload=8, skb=skb, ip_id=0)


def test_datagrams_with_equal_payloads_are_flows_by_their_tuples() -> None:
    world = World()
    events = []
    for i in range(40):  # the same few sk_buffs again and again
        events += [datagram(world, e, 40000 + i, skb=i % 3) for e in world.request(40000 + i, T + i * 1000_000)]
    paths = world.tell(events)
    assert sorted(p.flow.client.port or 0 for p in paths) == [40000 + i for i in range(40)]
    assert all(len(p.hops) == 6 and p.verdict is Verdict.FORWARDED for p in paths)
    assert all(p.backend is not None and p.backend.pod == "llm-0" for p in paths)


def through_another_node(world: World, port: int) -> list[PacketSeen]:
    """A NodePort's datagram by way of node-1, which translates both ends at once."""
    before = FiveTuple("192.0.2.9", port, "172.18.0.2", 31000, Protocol.UDP)
    after = FiveTuple("172.18.0.2", 61000 + port % 100, BACKEND, 8080, Protocol.UDP)
    seen = world.request(port, T)
    tuples = [None, before, after, after, after, after]
    return [
        msgspec.structs.replace(datagram(world, e, port, skb=port), flow=flow, device="eth0" if i == 1 else e.device)
        for i, (e, flow) in enumerate(zip(seen, tuples, strict=True))
        if flow is not None
    ]


@pytest.mark.parametrize("boot", [{}, {"node-2": "two"}])
def test_both_ends_translated_at_once_are_one_connection_in_any_order_of_nodes(boot: dict[str, str]) -> None:
    for order in ("node-1", "node-2"):
        world = World(boot=boot)
        both: list[PacketSeen] = [e for port in (40001, 40002) for e in through_another_node(world, port)]
        both.sort(key=lambda e: e.node != order)
        paths = world.tell(both)
        assert len(paths) == 2
        assert sorted(p.flow.client.port or 0 for p in paths) == [40001, 40002]
        assert all(len(p.hops) == 5 and p.nat is not None and p.nat.masqueraded for p in paths)


def test_nodes_own_client_has_a_service_and_a_translation() -> None:
    world = World()
    asked = FiveTuple("172.18.0.2", 50000, SERVICE, 80, Protocol.TCP)
    seen = [
        msgspec.structs.replace(
            e, flow=FiveTuple("172.18.0.2", 50000, BACKEND, 8080, Protocol.TCP), asked=asked if i == 0 else None
        )
        for i, e in enumerate(world.request(50000, T)[2:])
    ]
    (path,) = world.tell(seen, world.request(50000, T + 9 * SECOND)[:0])
    assert path.flow.service is not None and path.flow.service.name == "llm" and path.flow.client.node == "node-1"
    assert path.nat is not None and (path.nat.hop, path.nat.before) == (-1, f"{SERVICE}:80")
    assert path.backend is not None and path.backend.pod == "llm-0"


def test_port_that_the_pods_own_rules_chose_is_not_the_backend() -> None:
    world = World()
    seen = world.request(40000, T)
    inside = msgspec.structs.replace(seen[-1].flow, dport=15006)
    died = msgspec.structs.replace(world.dropped(seen[-1], "NO_SOCKET", location="tcp_v4_rcv"), flow=inside)
    reset = world.reply(40000, T + MS, RST, seq=0)
    (path,) = world.tell(seen, [died], reset)
    assert path.backend is not None and path.backend.port == 8080 and path.outcome is ConnectionOutcome.REFUSED
    assert path.drop is not None and path.drop.check == "redirect-without-listener"
    assert "port 15006" in path.drop.explanation and [f.check for f in path.findings] == []
    assert path.drop.rule is None and "the rules of pod default/llm-0 were not read" in path.drop.explanation


def test_packet_for_the_proxys_own_port_was_not_redirected_there() -> None:
    world = World()
    direct = [e for e in world.request(40000, T) if (e.flow.dst, e.flow.dport) == (BACKEND, 8080)]
    seen = [msgspec.structs.replace(e, flow=msgspec.structs.replace(e.flow, dport=15006)) for e in direct]
    died = world.dropped(seen[-1], "NO_SOCKET", location="tcp_v4_rcv")
    rules = pods_rules(T - SECOND, REDIRECT)
    (path,) = world.feed([*world.begin(), rules, *seen, died, *world.ticks(T + 9 * SECOND)]) or world.finish()
    assert path.drop is not None and (path.drop.check, path.drop.rule) == ("closed-port", None)
    assert "redirect" not in path.drop.explanation


def redirected(world: World) -> list[Event]:
    """A SYN that the pod's own rules sent to a port where nothing listens."""
    seen = world.request(40000, T)
    died = world.dropped(seen[-1], "NO_SOCKET", location="tcp_v4_rcv")
    inside = msgspec.structs.replace(died, flow=msgspec.structs.replace(died.flow, dport=15006))
    return [*seen, inside, *world.reply(40000, T + MS, RST, seq=0)]


def pods_rules(read_ns: int, rule: str) -> NetnsRules:
    text = f"*nat\n:PREROUTING ACCEPT [0:0]\n{rule}COMMIT\n" if rule else ""
    dump = RulesetDump(node="node-2", t_ns=read_ns, source="iptables-nft", text=text)
    return NetnsRules(node="node-2", t_ns=read_ns, netns=POD["node-2"], dumps=(dump,))


REDIRECT = "-A PREROUTING -p tcp -j REDIRECT --to-ports 15006\n"


@pytest.mark.parametrize("read_before", [None, ""], ids=["never", "before"])
def test_rule_of_a_redirect_is_waited_for_until_the_pods_rules_are_read(read_before: str | None) -> None:
    world = World()
    first = [pods_rules(T - SECOND, read_before)] if read_before is not None else []
    assert world.feed([*world.begin(), *first, *redirected(world), *world.ticks(T + 7 * SECOND)]) == []
    told = world.feed([pods_rules(T + 7 * SECOND, REDIRECT), *world.ticks(T + 7 * SECOND + 100 * MS)])
    (path,) = told
    assert path.drop is not None and "REDIRECT --to-ports 15006" in (path.drop.rule or "")


@pytest.mark.parametrize(
    ("rules", "why"),
    [
        ([], "the rules of pod default/llm-0 were not read"),
        ([pods_rules(T - SECOND, "")], "none that was read in pod default/llm-0 redirects to the port"),
    ],
    ids=["unread", "none"],
)
def test_rule_of_a_redirect_that_does_not_come_is_not_waited_for_for_ever(rules: list[Event], why: str) -> None:
    world = World()
    (path,) = world.feed([*world.begin(), *rules, *redirected(world), *world.ticks(T + 9 * SECOND)])
    assert path.drop is not None and path.drop.rule is None and why in path.drop.explanation


def test_closed_port_waits_for_no_rules() -> None:
    world = World()
    seen = world.request(40000, T)
    died = world.dropped(seen[-1], "NO_SOCKET", location="tcp_v4_rcv")
    reset = world.reply(40000, T + MS, RST, seq=0)
    (path,) = world.feed([*world.begin(), *seen, died, *reset, *world.ticks(T + 4 * SECOND)])
    assert path.drop is not None and path.drop.check == "closed-port"


def test_rule_that_is_gone_when_rules_are_read_again_is_still_the_redirects() -> None:
    world = World()
    rules = [pods_rules(T - SECOND, REDIRECT), *redirected(world), pods_rules(T + MS, "")]
    (path,) = world.feed([*world.begin(), *rules, *world.ticks(T + 4 * SECOND)])
    assert path.drop is not None and "REDIRECT --to-ports 15006" in (path.drop.rule or "")


def test_answers_to_a_traced_pod_are_no_connections() -> None:
    world = World()
    world.correlator.connections.servers = {(CLIENT, 0)}
    answer = FiveTuple("10.96.0.99", 53, CLIENT, 45000, Protocol.UDP)
    seen = msgspec.structs.replace(datagram(world, world.request(1, T)[0], 1, 5), flow=answer)
    assert world.tell([seen]) == []


def test_missing_answer_is_not_judged_where_records_were_lost() -> None:
    world = World()
    loss = LostEvents(node="node-2", probe="packet", count=9, where="ring buffer")
    told = world.feed([*world.begin(), *world.request(40000, T), loss, *world.ticks(T + 10 * SECOND)])
    (path,) = [*told, *world.finish()]
    assert (
        path.outcome is ConnectionOutcome.UNKNOWN and path.incomplete and "records of node-2 were lost" in path.waited
    )


def outline(paths: Iterable[PacketPath]) -> list[str]:
    """What must not depend on the order in which the nodes' records arrive."""
    return sorted(
        repr((p.flow, p.backend, [(h.node, h.device, h.point) for h in p.hops], p.outcome, p.drop and p.drop.reason))
        for p in paths
    )


@pytest.mark.parametrize("seed", range(30))
def test_order_of_the_nodes_records_changes_nothing(seed: int) -> None:
    def records(world: World) -> list[Any]:
        drop: list[Any] = [*world.request(41000, T + SECOND, seq=2000)[:4]]
        drop.append(world.dropped(world.request(41000, T + SECOND, seq=2000)[3], "NETFILTER_DROP", "FORWARD"))
        ports = [e for port in (40001, 40002) for e in through_another_node(world, port)]
        events: list[Any] = [*exchange(world, 40000, T), *fins(world, 40000, T + 3 * SECOND), *drop, *ports]
        return sorted(events, key=lambda e: e.t_ns)

    world, shuffled = World(), World()
    expected = outline(world.tell(records(world)))
    rnd = random.Random(seed)
    by_node = {node: [e for e in records(shuffled) if e.node == node] for node in HOST}
    mixed: list[Any] = []
    while any(by_node.values()):
        node = rnd.choice([n for n, left in by_node.items() if left])
        mixed.append(by_node[node].pop(0))
    assert outline(shuffled.tell(mixed)) == expected and len(expected) == 4
