"""From records to paths: joining, attempts, clocks, verdicts, and what is not told."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.model.events import AgentFailed, IcmpError, PacketSeen, Point, Progress, TcpRetransmit
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.results.path import ConnectionOutcome, Verdict
from tests.unit.trace_world import (
    FIN,
    HOST,
    POD,
    RST,
    SECOND,
    SYN,
    SYN_ACK,
    World,
    hop_names,
    shuffled_by_node,
    whole_way,
)

T = 1000 * SECOND
DATA = 24  # PSH, ACK


@pytest.mark.parametrize("family", [4, 6])
def test_connection_is_joined_across_nodes_and_nat(family: int) -> None:
    world = World(family=family)
    (path,) = world.tell(world.handshake(40000, T))
    assert hop_names(path) == whole_way()
    assert path.verdict is Verdict.FORWARDED and path.established is True and path.attempts == 1
    assert path.flow.client.pod == "chat" and path.flow.service is not None and path.flow.service.name == "llm"
    assert path.backend is not None and (path.backend.pod, path.backend.port) == ("llm-0", 8080)
    assert path.nat is not None and path.nat.hop == 1 and path.nat.mode == "unknown"
    assert path.handshake_ns == 150_000
    assert [h.pod for h in path.hops] == ["chat", None, None, None, None, "llm-0"]


def test_order_in_which_the_nodes_report_does_not_matter() -> None:
    world, other = World(), World()
    assert world.tell(world.handshake(40000, T)) == other.tell(shuffled_by_node(other.handshake(40000, T)))


def test_response_time_is_taken_at_the_backend() -> None:
    world = World()
    request = world.request(40000, T + SECOND, DATA, payload=100, seq=1001)
    reply = world.reply(40000, T + SECOND + 300_000_000, DATA, payload=500, seq=9001)
    (path,) = world.tell(world.handshake(40000, T), request, reply)
    # In at its last place, out at its first.
    assert path.response_ns == 300_000_000 - 50_000


@pytest.mark.parametrize("family", [4, 6])
def test_repeated_first_packets_are_attempts_of_one_connection(family: int) -> None:
    world = World(family=family)
    attempts = [world.request(40000, T + i * SECOND, ip_id=(7 + i) if family == 4 else 0) for i in range(3)]
    (path,) = world.tell(*attempts)
    assert path.attempts == 3 and hop_names(path) == whole_way() and path.handshake_ns is None


def test_handshake_is_what_the_client_waits_from_its_first_syn_on() -> None:
    world = World()
    first, second = world.request(40000, T), world.request(40000, T + SECOND, ip_id=8)
    (path,) = world.tell(first, second, world.reply(40000, T + SECOND + 100_000, SYN_ACK))
    assert path.attempts == 2 and path.handshake_ns is not None
    assert SECOND < path.handshake_ns < SECOND + 1_000_000
    again = [*world.reply(40000, T + 100_000, SYN_ACK), *world.reply(40000, T + SECOND + 100_000, SYN_ACK)]
    (path,) = World().tell(first, second, again)  # with the first it would have sent no second SYN
    assert path.handshake_ns is not None and SECOND < path.handshake_ns < SECOND + 1_000_000


def test_attempt_that_was_seen_whole_is_the_path() -> None:
    world = World()
    half = world.request(40000, T)[:2]
    (path,) = world.tell(half, world.request(40000, T + SECOND, ip_id=8))
    assert path.attempts == 2 and hop_names(path) == whole_way()


def test_same_sequence_number_of_another_client_is_another_connection() -> None:
    world = World()
    paths = world.tell(world.handshake(40000, T), world.handshake(50000, T + 1_000_000))
    assert sorted(p.flow.client.port or 0 for p in paths) == [40000, 50000]
    for path in paths:
        assert {h.src for h in path.hops} == {f"10.244.1.2:{path.flow.client.port}"}
        assert hop_names(path) == whole_way() and path.attempts == 1


def test_masqueraded_packet_is_the_same_packet() -> None:
    world = World()
    seen = world.request(40000, T)
    hidden = msgspec.structs.replace(seen[2].flow, src="172.18.0.2", sport=61000)
    seen[2:] = [msgspec.structs.replace(e, flow=hidden) for e in seen[2:]]
    (path,) = world.tell(seen, world.request(40000, T + SECOND, ip_id=9)[:1])
    assert hop_names(path) == whole_way()
    assert path.nat is not None and path.nat.masqueraded and path.hops[-1].src == "172.18.0.2:61000"


def test_connection_older_than_the_trace_is_shown_by_its_first_data() -> None:
    world = World()
    request = world.request(40000, T, DATA, payload=100, seq=5000)
    reply = world.reply(40000, T + 1_000_000, DATA, payload=200, seq=9500)
    (path,) = world.tell(request, reply)
    assert hop_names(path) == whole_way() and path.verdict is Verdict.FORWARDED
    assert path.handshake_ns is None and path.response_ns == 1_000_000 - 50_000


def test_bare_acks_alone_open_nothing() -> None:
    world = World()
    assert world.tell(world.request(40000, T, 16)) == []


def test_stream_older_than_the_trace_is_joined_by_what_comes_back() -> None:
    world = World()
    (path,) = world.tell(world.request(40000, T, 16), world.reply(40000, T, DATA, payload=10))
    assert path.hops == () and path.verdict is Verdict.FORWARDED and path.waited.startswith("still open")
    assert path.flow.service is not None and path.flow.client.pod == "chat"
    assert path.backend is not None and (path.backend.pod, path.backend.port) == ("llm-0", 8080)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def test_first_packet_that_the_kernel_freed_is_dropped_there() -> None:
    world = World()
    seen = world.request(40000, T)[:4]
    (path,) = world.tell(seen, [world.dropped(seen[-1], "NETFILTER_DROP", "FORWARD")])
    assert path.verdict is Verdict.DROPPED and path.drop is not None
    assert (path.drop.reason, path.drop.hook, path.drop.node, path.drop.device) == (
        "NETFILTER_DROP",
        "FORWARD",
        "node-2",
        "eth0",
    )
    assert path.drop.certainty.value == "unknown" and "which one is not known" in path.drop.explanation
    assert path.established is False and path.backend is not None


def test_refusal_by_the_pod_is_rejected() -> None:
    world = World()
    seen = world.request(40000, T)
    rst = world.reply(40000, T + 100_000, RST, seq=0)
    (path,) = world.tell(seen, [world.dropped(seen[-1], "NO_SOCKET", location="tcp_v4_rcv")], rst)
    assert path.verdict is Verdict.REJECTED and path.drop is not None and path.drop.pod == "llm-0"
    assert path.drop.explanation.startswith("nothing listens on TCP port 8080 in pod default/llm-0")
    assert path.drop.certainty.value == "observed"


def test_a_kernel_without_reasons_has_its_refusal_told_as_likely_and_no_more() -> None:
    world = World()
    seen = world.request(40000, T)
    rst = world.reply(40000, T + 100_000, RST, seq=0)
    (path,) = world.tell(seen, [world.dropped(seen[-1], "", location="tcp_v4_rcv")], rst)
    assert path.drop is not None and path.drop.check == "closed-port"
    assert path.drop.explanation.startswith("most likely nothing listens on TCP port 8080 in pod default/llm-0")
    assert path.drop.certainty.value == "assumed"


def test_a_reason_that_follows_from_the_function_is_derived() -> None:
    world = World()
    seen = world.request(40000, T)[:4]
    dropped = msgspec.structs.replace(
        world.dropped(seen[-1], "NEIGH_FAILED", location="arp_error_report"), reason_derived=True
    )
    (path,) = world.tell(seen, [dropped])
    assert path.drop is not None and path.drop.reason == "NEIGH_FAILED"
    assert path.drop.certainty.value == "derived"
    assert path.drop.evidence[0].certainty.value == "derived"
    assert "this kernel gives no reasons" in path.drop.evidence[0].statement


def icmp_error(quoted: FiveTuple, point: Point, reason: str = "") -> IcmpError:
    return IcmpError(
        node="node-2",
        t_ns=T + 90_000,
        netns=HOST["node-2"],
        ifindex=2,
        device="eth0",
        point=point,
        src="172.18.0.3",
        dst=quoted.src,
        family=4,
        type=3,
        code=1,
        mtu=0,
        quoted=quoted,
        hook="OUTPUT",
        reason=reason,
    )


def test_icmp_error_that_its_socket_had_queued_was_not_dropped() -> None:
    world = World()
    seen = world.request(40000, T)[:4]
    told = icmp_error(seen[-1].flow, Point.TX), icmp_error(seen[-1].flow, Point.DROP, "QUEUE_PURGE")
    (path,) = world.tell(seen, [*told])
    assert path.verdict is Verdict.REJECTED and [f.check for f in path.findings] == ["icmp-error"]


@pytest.mark.parametrize(
    ("point", "verdict", "check"),
    [
        (Point.TX, Verdict.REJECTED, "icmp-error"),
        (Point.DROP, Verdict.DROPPED, "icmp-dropped"),
    ],
)
def test_icmp_error_tells_the_sender_unless_it_is_dropped_too(point: Point, verdict: Verdict, check: str) -> None:
    world = World()
    seen = world.request(40000, T)[:4]
    error = icmp_error(seen[-1].flow, point, "NETFILTER_DROP")
    (path,) = world.tell(seen, [error])
    assert path.verdict is verdict and [f.check for f in path.findings] == [check]
    assert "host unreachable" in path.findings[0].title


def test_silence_is_unanswered_and_says_where_the_packet_was_last() -> None:
    world = World()
    (path,) = world.tell(world.request(40000, T)[:5], world.request(40000, T + SECOND, ip_id=9)[:5])
    assert path.verdict is Verdict.UNANSWERED and path.drop is None and path.waited == "no SYN-ACK in 11.0 s"
    (finding,) = path.findings
    assert finding.check == "unanswered" and "last seen on veth of node-2 (tx)" in finding.title


def test_arrival_is_no_answer() -> None:
    world = World()
    (path,) = world.tell(world.request(40000, T), world.request(40000, T + SECOND, ip_id=9))
    assert (path.verdict, path.outcome) == (
        Verdict.UNANSWERED,
        ConnectionOutcome.UNANSWERED,
    ) and path.established is False
    (finding,) = path.findings
    assert finding.title.startswith("no answer: the SYN arrived in pod default/llm-0, which did not answer it")


def test_harmless_frees_are_no_drops() -> None:
    world = World()
    handshake = world.handshake(40000, T)
    ends = [world.dropped(handshake[5], reason) for reason in ("QUEUE_PURGE", "TCP_OLD_DATA", "SOCKET_CLOSE")]
    (path,) = world.tell(handshake, ends)
    assert path.drop is None and path.verdict is Verdict.FORWARDED


def test_later_drops_count_when_the_connection_does_not_recover() -> None:
    def tell(answered: bool) -> tuple[Verdict, str | None, int]:
        world = World()
        data = world.request(40000, T + SECOND, DATA, payload=1400, seq=1001)[:4]
        drop = world.dropped(data[3], "PKT_TOO_BIG", location="ip_forward")
        again = TcpRetransmit(
            node="node-1", t_ns=T + SECOND, netns=POD["node-1"], flow=data[0].flow, state="ESTABLISHED"
        )
        answer = world.reply(40000, T + 2 * SECOND, DATA, payload=10, seq=9001) if answered else []
        (path,) = world.tell(world.handshake(40000, T), data, [drop, again], answer)
        return path.verdict, path.drop.reason if path.drop else None, path.retransmits

    assert tell(answered=False) == (Verdict.DROPPED, "PKT_TOO_BIG", 1)
    assert tell(answered=True) == (Verdict.FORWARDED, None, 1)


def test_reset_after_the_handshake_is_the_applications() -> None:
    world = World()
    data = world.request(40000, T + SECOND, DATA, payload=10, seq=1001)
    (path,) = world.tell(world.handshake(40000, T), data, world.reply(40000, T + 2 * SECOND, RST, seq=9001))
    (finding,) = path.findings
    assert finding.check == "reset-by-app" and "pod default/llm-0 reset the connection" in finding.title


# --- nodes that share no kernel ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ahead", [-400 * SECOND, -1, 3 * SECOND, 10**6 * SECOND])
def test_nodes_with_clocks_of_their_own_give_the_same_path_in_time(ahead: int) -> None:
    world = World(skew={"node-2": ahead}, boot={"node-1": "one", "node-2": "two"})
    told = world.feed([*world.begin(), *world.handshake(40000, T), *world.reply(40000, T + SECOND, FIN)])
    assert told == []
    (path,) = world.feed(world.ticks(T + 2 * SECOND))  # not only when the trace ends
    assert hop_names(path) == whole_way()
    for i, hop in enumerate(path.hops):
        assert hop.t_error_ns is not None and abs(hop.t_ns - (T + 10_000 * i)) <= hop.t_error_ns
        assert (hop.t_error_ns == 0) is (hop.node == "node-1")
    assert path.handshake_ns == 150_000


def test_times_that_can_not_be_compared_are_the_nodes_own() -> None:
    world = World(skew={"node-2": 77 * SECOND}, boot={"node-1": "one", "node-2": "two"})
    (path,) = world.tell(world.request(40000, T), world.request(40000, T + SECOND, ip_id=9))  # one direction only
    assert hop_names(path) == whole_way()  # the client's node comes first
    assert [h.t_error_ns for h in path.hops] == [0, 0, 0, None, None, None]
    assert path.hops[3].t_ns == T + 77 * SECOND + 30_000


# --- what is not told -------------------------------------------------------------------------------------------------


def test_node_that_reports_late_is_waited_for() -> None:
    world = World()
    events: list[PacketSeen] = [*world.handshake(40000, T), *world.reply(40000, T + 1000, FIN)]
    early = [e for e in events if e.node == "node-2"]
    late = [e for e in events if e.node == "node-1"]
    assert world.feed([*world.begin(), *early, *world.ticks(T + 5 * SECOND, "node-2")]) == []
    (path,) = world.feed([*late, *world.ticks(T + 5 * SECOND, "node-1")])
    assert hop_names(path) == whole_way()


def test_node_that_has_failed_is_not_waited_for() -> None:
    world = World()
    events = [e for e in [*world.handshake(40000, T), *world.reply(40000, T + 1000, FIN)] if e.node == "node-1"]
    failed = AgentFailed(node="node-2", message="gone")
    (path,) = world.feed([*world.begin(), failed, *events, *world.ticks(T + 5 * SECOND, "node-1")])
    assert {h.node for h in path.hops} == {"node-1"} and path.verdict is Verdict.FORWARDED


@pytest.mark.parametrize("skew", [0, 50 * SECOND])
def test_connection_that_began_before_every_node_was_watched_is_counted_only(skew: int) -> None:
    boot = {"node-2": "two"} if skew else {}
    world = World(skew={"node-2": skew}, boot=boot, attached={"node-2": T + SECOND})
    early = [e for e in world.handshake(40000, T) if e.node == "node-1"]
    (path,) = world.tell(early, world.handshake(41000, T + 2 * SECOND, seq=2000))
    assert path.flow.client.port == 41000 and world.correlator.half_seen == 1


def test_connection_at_the_end_of_the_trace_is_not_called_unanswered() -> None:
    world = World()
    syn = world.request(40000, T)[:5]
    ended = [Progress(node=n, stage="detached", t_ns=T + SECOND) for n in ("node-1", "node-2")]
    assert world.feed([*world.begin(), *syn, *ended]) + world.finish() == []
    assert world.correlator.half_seen == 1


def test_connection_that_began_after_a_node_ended_is_counted_only() -> None:
    world = World()
    ended = [Progress(node="node-2", stage="detached", t_ns=T - 1)]
    late = [e for e in [*world.handshake(40000, T), *world.reply(40000, T + 1000, FIN)] if e.node == "node-1"]
    assert world.feed([*world.begin(), *late, *ended]) + world.finish() == []
    assert world.correlator.half_seen == 1


def test_flags_are_named() -> None:
    world = World()
    assert [str(world.request(1, T, f)[0].tcp) for f in (SYN, SYN_ACK, FIN, RST)] == [
        "SYN",
        "SYN,ACK",
        "ACK,FIN",
        "ACK,RST",
    ]
