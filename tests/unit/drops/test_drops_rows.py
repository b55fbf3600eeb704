"""Counts as rows: ends and directions, what explains what; the table that shows them."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from kubectl_genainet.context.account import Account
from kubectl_genainet.context.ends import KnownServers
from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.drops.summary import summary_of
from kubectl_genainet.model.diagnoses import BY_REASON
from kubectl_genainet.model.events import (
    IcmpCount,
    ResetCount,
    RetransmitCount,
)
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.node import Device, NetNs, NodeReport, Route, RulesetDump
from kubectl_genainet.model.packet import OBSERVER, FiveTuple, Protocol
from kubectl_genainet.model.reasons import is_background
from kubectl_genainet.model.results.drops import Agreement, DropOutcome
from kubectl_genainet.render.drops.table import COLUMNS, agreement, details
from kubectl_genainet.render.table import table
from tests.unit.drops.droprows import (
    HOST,
    LLAMA,
    LLAMA_NS,
    NODE,
    REQUEST,
    UI,
    UI_NS,
    VIP,
    dropped,
    error_that_died,
    report,
    rows,
    rules,
    sample,
    sampled,
    snapshot,
    tcp,
)


@pytest.mark.parametrize(
    ("flow", "reply"),
    [
        (REQUEST, False),
        (REQUEST.reversed, True),
        (tcp(UI, 50000, VIP, 80), False),
        (tcp(VIP, 80, UI, 50000), True),
        (tcp("192.0.2.1", 443, "192.0.2.2", 50000), True),  # neither is known: the lower port serves
        (tcp("192.0.2.1", 3000, UI, 3000), False),  # a declared port is surer than an equal number
        (FiveTuple("192.0.2.1", 0, UI, 0, Protocol.ICMP), False),
    ],
)
def test_server_is_known_by_the_api_else_by_its_port(flow: FiveTuple, reply: bool) -> None:
    oriented = KnownServers(snapshot()).orient(flow)
    assert oriented.reply is reply
    assert oriented.request == (flow.reversed if reply else flow)


def test_counts_of_many_client_ports_are_one_row() -> None:
    (row,) = rows(*(dropped(tcp(UI, 40000 + i, LLAMA, 8080)) for i in range(20)))
    assert (row.packets, row.bytes) == (100, 6000)
    assert row.client is not None and row.server is not None and row.service is not None
    assert (row.client.pod, row.server.pod, row.service.name, row.server.port) == (
        "chatbot-ui",
        "my-llama",
        "my-llama-svc",
        8080,
    )


def test_answer_is_a_row_of_its_own_with_the_same_ends() -> None:
    found = rows(dropped(), dropped(REQUEST.reversed, opening=False, packets=2))
    assert [(r.direction, r.packets, r.client.pod if r.client else "") for r in found] == [
        ("request", 5, "chatbot-ui"),
        ("reply", 2, "chatbot-ui"),
    ]


def test_dropped_answer_is_judged_as_the_request_that_it_answers() -> None:
    (row,) = rows(rules(), dropped(REQUEST.reversed, opening=False), admits=False)
    assert row.policy is not None and row.policy.agreement is Agreement.AGREE
    assert "TCP 8080 from default/chatbot-ui" in row.title


def test_mtu_black_hole_needs_both_the_drop_and_the_error_that_was_dropped() -> None:
    big = dropped(REQUEST.reversed, reason="PKT_TOO_BIG", location="ip_forward", opening=False)
    error = error_that_died(REQUEST.reversed, packets=5)
    assert [r.check for r in rows(big)] == ["packet-too-big"]
    assert [r.check for r in rows(big, error)] == ["mtu-blackhole"]
    assert [r.check for r in rows(error)] == ["icmp-dropped"]


def test_answer_to_a_client_that_has_gone_is_no_closed_port() -> None:
    late = dropped(REQUEST.reversed, reason="NO_SOCKET", location="tcp_v4_rcv", netns=UI_NS, opening=False)
    (row,) = rows(late)
    assert (row.check, row.severity, row.outcome) == ("late-answer", Severity.INFO, DropOutcome.DROPPED)
    assert row.title.startswith(
        f"an answer from {LLAMA}:8080 reached pod default/chatbot-ui, where no socket waits for it"
    )


@pytest.mark.parametrize(
    ("reason", "location", "check", "said"),
    [
        ("NEIGH_FAILED", "neigh_invalidate", "neighbour-failed", "gets no answer"),
        (
            "NEIGH_QUEUEFULL",
            "__neigh_event_send",
            "neighbour-failed",
            "more packets wait for it than there is room for",
        ),
        ("NEIGH_CREATEFAIL", "ip_finish_output2", "neighbour-table-full", "the table is full (gc_thresh3)"),
        ("NOT_SPECIFIED", "ip6_forward", "unexplained", "the kernel gives no reason: an IPsec policy"),
        ("IP_OUTNOROUTES", "ip_forward", "no-route", "node node-1 has no route to 10.244.2.3"),
        ("NOT_SPECIFIED", "ip_error+0x12", "no-route", "node node-1 has no route to 10.244.2.3"),
        ("NOT_SPECIFIED", "do_xdp_generic", "ebpf-drop", "an eBPF program dropped it (XDP)"),
        ("TC_INGRESS", "__netif_receive_skb_core", "ebpf-drop", "an eBPF program dropped it (TC_INGRESS)"),
    ],
)
def test_place_that_drops_is_said_in_an_operators_words(reason: str, location: str, check: str, said: str) -> None:
    (row,) = rows(dropped(reason=reason, location=location))
    assert row.check == check
    assert said in row.title
    assert row.evidence[0].statement == f"{reason} in {location}"


def test_resets_and_retransmits_are_evidence_of_a_drop_and_rows_without_one() -> None:
    refused = dropped(reason="NO_SOCKET", location="tcp_v4_rcv", netns=LLAMA_NS)
    sent = ResetCount(
        node="node-1", t_ns=10, netns=LLAMA_NS, flow=REQUEST.reversed, packets=5, sent=True, reason="NO_SOCKET"
    )
    seen = ResetCount(node="node-1", t_ns=10, netns=UI_NS, flow=tcp(VIP, 80, UI, 40000), packets=5, sent=False)
    again = RetransmitCount(
        node="node-1", t_ns=10, netns=UI_NS, flow=tcp(UI, 40000, VIP, 80), packets=2, state="SYN_SENT"
    )
    (row,) = rows(refused, sent, seen, again)
    assert (row.check, row.outcome) == ("closed-port", DropOutcome.REFUSED)
    said = "\n".join(e.statement for e in row.evidence)
    assert "5 TCP resets sent by pod default/my-llama (NO_SOCKET)" in said and "2 in SYN_SENT" in said
    assert [(r.check, r.severity) for r in rows(again)] == [("retransmits", Severity.INFO)]
    assert [r.check for r in rows(seen)] == ["reset-unattributed"]  # nothing says that its sender was watched


def test_reset_without_a_reason_is_told_by_no_tracepoint() -> None:
    """Before Linux 6.10 a kprobe may have seen it."""
    sent = ResetCount(node="node-1", t_ns=10, netns=LLAMA_NS, flow=REQUEST.reversed, packets=1, sent=True)
    (row,) = rows(sent)
    assert (row.check, row.severity) == ("reset-by-kernel", Severity.INFO)
    assert row.evidence[0].statement == "TCP sent a reset; this kernel gives no reasons of resets"


def test_segments_that_nothing_acknowledges_are_a_fault_and_a_loss_that_was_made_good_is_none() -> None:
    lost = RetransmitCount(
        node="node-1", t_ns=10, netns=UI_NS, flow=tcp(UI, 40000, VIP, 80), packets=7, state="ESTABLISHED", in_vain=4
    )
    (row,) = rows(lost)
    assert (row.check, row.severity) == ("unacknowledged", Severity.WARNING)
    assert "nothing acknowledged it" in row.title and "4 segments" in row.evidence[1].statement
    (recovered,) = rows(msgspec.structs.replace(lost, in_vain=0))
    assert (recovered.check, recovered.severity) == ("retransmits", Severity.INFO)


def test_reset_that_nothing_provoked_is_the_applications() -> None:
    sent = ResetCount(
        node="node-1",
        t_ns=10,
        netns=LLAMA_NS,
        flow=REQUEST.reversed,
        packets=3,
        sent=True,
        active=True,
        reason="TCP_ABORT_ON_CLOSE",
    )
    seen = ResetCount(node="node-1", t_ns=10, netns=UI_NS, flow=tcp(VIP, 80, UI, 40000), packets=3, sent=False)
    (row,) = rows(sent, seen)
    assert (row.check, row.pod, row.direction) == ("reset-by-app", "default/my-llama", "reply")
    assert "closed with data that had not been read" in row.title


def test_counters_of_the_node_become_rows_by_how_much_they_grew() -> None:
    found = rows(report(2, listen=7, conntrack_drop=3, conntrack_insert_failed=1))
    assert found == []  # the counters were not reported before: what they counted may be old
    correlator = DropCorrelator(snapshot())
    for event in (
        report(1, listen=5, conntrack_drop=1, conntrack_insert_failed=0),
        report(2, listen=7, conntrack_drop=4, conntrack_insert_failed=1),
    ):
        correlator.feed(event)
    assert {r.check: r.packets for r in Rows(correlator).build()} == {
        "listen-overflow": 2,
        "conntrack-full": 2,
        "conntrack-insert-failed": 1,  # counts as a drop too; what failed is not known without a packet
    }


def test_background_is_counted_apart_and_shown_on_demand() -> None:
    end = dropped(REQUEST, reason="NOT_SPECIFIED", location="tcp_v4_rcv+0x5", opening=False, netns=LLAMA_NS)
    correlator = DropCorrelator(snapshot())
    correlator.feed(end)
    summary = summary_of("all", Rows(correlator).build(), correlator, Account())
    assert (summary.rows, summary.background, summary.findings) == (0, 5, ())
    assert len(rows(end, everything=True)) == 1


def test_syn_without_a_reason_is_no_background() -> None:
    assert is_background(
        "NOT_SPECIFIED", "sk_stream_kill_queues", opening=False, multicast=False
    )  # 6.1, a FIN nobody read
    assert not is_background("NOT_SPECIFIED", "tcp_v4_rcv", opening=True, multicast=False)
    assert not is_background("NOT_SPECIFIED", "ip_error", opening=False, multicast=False)


def test_every_sentence_reads_with_any_place_and_device() -> None:
    for reason, (diagnosis, sentence) in BY_REASON.items():
        text = sentence.format(place="pod default/x", device="eth0")
        assert "{" not in text and not text.endswith("."), reason
        (row,) = rows(dropped(reason=reason, location="somewhere"))
        assert row.check == diagnosis.name


def test_scope_leaves_other_flows_out() -> None:
    found = rows(dropped(), dropped(tcp(UI, 1, "192.0.2.1", 443)), concerns=lambda flow: flow.dst == LLAMA)
    assert [r.server.ip for r in found if r.server] == [LLAMA]


def test_hostile_names_are_escaped_and_the_table_fits() -> None:
    rule = '-A FORWARD -p tcp -m tcp --dport 8080 -m comment --comment "\x1b[31mred\u202e" -j DROP'
    (row,) = rows(rules(rule), sample(), dropped())
    out = io.StringIO()
    console = Console(file=out, width=100, no_color=True, force_terminal=False)
    console.print(table(COLUMNS, [row]))
    console.print(details(row, 100))
    text = out.getvalue()
    assert "\x1b" not in text and "\u202e" not in text and "\\x1b[31mred" in text
    assert max(map(len, text.splitlines())) <= 100
    assert "chatbot-ui" in text and "the policies admit it [assumed]" in text


def test_kernel_and_api_disagree_only_where_an_enforcers_rule_stands_against_the_policies() -> None:
    (row,) = rows(rules("-A FORWARD -p tcp -m tcp --dport 8080 -j DROP"), sample(), dropped())
    enforcers = msgspec.structs.replace(row, check="policy-disagreement")
    assert (row.check, agreement(row)) == ("rule-drop", "the policies admit it")
    assert agreement(enforcers) == "the policies admit it: the kernel and the API disagree"


@pytest.mark.parametrize(("location", "check"), [("ip_forward", "ttl-expired"), ("ip_rcv_core", "bad-header")])
def test_header_error_where_packets_are_forwarded_is_the_ttl(location: str, check: str) -> None:
    (row,) = rows(*sampled("IP_INHDR", location=location))
    assert row.check == check


def test_failed_insertion_of_a_connection_on_its_way_out_is_want_of_a_port_and_no_race() -> None:
    nat = RulesetDump(
        node="node-1",
        t_ns=1,
        source="iptables-nft",
        text="*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -p tcp -j MASQUERADE --to-ports 61000-61009\nCOMMIT\n",
    )
    before, after = report(1, conntrack_insert_failed=0), report(2, conntrack_insert_failed=9)
    outside = tcp(UI, 40000, "192.0.2.7", 443)
    correlator = DropCorrelator(snapshot())
    for event in (before, nat, *sampled("NETFILTER_DROP", flow=outside, hook="POST_ROUTING"), after):
        correlator.feed(event)
    found = Rows(correlator).build()
    assert {r.check for r in found} == {"snat-ports-exhausted"}
    assert all("race" not in r.title for r in found)


def test_neighbour_that_does_not_answer_is_the_next_hop() -> None:
    gateway = Route("10.9.0.0/16", "eth0", "172.18.0.77")
    device = Device(name="eth0", ifindex=2, mtu=1500, addresses=(NODE,))
    host = NetNs(inode=HOST, host=True, devices=(device,), routes=(gateway, Route("172.18.0.0/16", "eth0")))
    told = NodeReport(node="node-1", t_ns=2, namespaces=(host,))
    (row,) = rows(told, *sampled("NEIGH_FAILED", flow=tcp(UI, 40000, "10.9.0.4", 80)))
    assert "who has 172.18.0.77, the next hop towards 10.9.0.4" in row.title
    (row,) = rows(told, *sampled("NEIGH_FAILED", flow=tcp(UI, 40000, "172.18.0.9", 80)))
    assert "who has 172.18.0.9 (ARP" in row.title


def test_mild_reason_is_an_error_where_it_keeps_connections_from_opening() -> None:
    sent = {2: REQUEST, 18: REQUEST.reversed, 24: REQUEST}
    severities = {
        flags: rows(*sampled("OTHERHOST", flow=flow, flags=flags))[0].severity for flags, flow in sent.items()
    }
    assert severities == {2: Severity.ERROR, 18: Severity.ERROR, 24: Severity.INFO}


def test_a_copy_that_a_switch_flooded_is_no_fault_unless_the_sender_waits() -> None:
    flooded = [msgspec.structs.replace(event, node="node-2") for event in sampled("OTHERHOST")]  # its pods are node-1's
    again = RetransmitCount(node="node-1", t_ns=3, netns=UI_NS, flow=REQUEST, packets=1, state="SYN_SENT")
    assert [row.severity for row in rows(*flooded)] == [Severity.INFO]
    assert Severity.ERROR in [row.severity for row in rows(*flooded, again) if row.check == "other-host"]


def test_a_syn_ack_that_came_again_is_no_fault_and_a_second_syn_is() -> None:
    (again,) = rows(*sampled("TCP_INVALID_SYN", flow=REQUEST.reversed, netns=UI_NS, flags=18))
    (second,) = rows(*sampled("TCP_INVALID_SYN", netns=LLAMA_NS, flags=2))
    assert (again.check, again.severity) == ("repeated-segment", Severity.INFO)
    assert (second.check, second.severity) == ("tcp-out-of-place", Severity.ERROR)


@pytest.mark.parametrize(("flags", "towards"), [(2, True), (18, False)])
def test_packets_of_a_handshake_say_themselves_which_end_serves(flags: int, *, towards: bool) -> None:
    flow = tcp(UI, 40000, LLAMA, 51000)  # no object knows either port, and the server's is the higher
    (row,) = rows(*sampled("OTHERHOST", flow=flow if towards else flow.reversed, flags=flags))
    assert row.client is not None and row.server is not None
    assert (row.client.ip, row.server.ip, row.server.port) == (UI, LLAMA, 51000)


def test_segment_without_a_connection_is_no_closed_port() -> None:
    (row,) = rows(*sampled("NO_SOCKET", netns=LLAMA_NS, location="tcp_v4_rcv", flags=24))
    assert row.check == "unknown-connection" and "nothing listens" not in row.title


def test_sender_is_told_of_as_many_as_came_to_it() -> None:
    reject = rules("-A FORWARD -p tcp --dport 8080 -j REJECT --reject-with icmp-port-unreachable")
    icmp = IcmpCount(node="node-1", t_ns=3, netns=UI_NS, flow=REQUEST, packets=2, family=4, type=3, code=3)
    (row,) = rows(reject, dropped(packets=14), sample(), icmp)
    assert any("of 14 packets the sender was told of 2" in e.statement for e in row.evidence)


def test_full_queue_of_half_open_connections_is_a_row() -> None:
    def with_counter(t: int, value: int) -> NodeReport:
        device = Device(name="eth0", ifindex=2, mtu=1500, addresses=(LLAMA,))
        space = NetNs(inode=LLAMA_NS, host=False, devices=(device,), counters={"TCPReqQFullDrop": value})
        return NodeReport(node="node-1", t_ns=t, namespaces=(space,))

    correlator = DropCorrelator(snapshot())
    for event in (with_counter(1, 3), with_counter(2, 134)):
        correlator.feed(event)
    (row,) = Rows(correlator).build()
    assert (row.check, row.packets, row.severity) == ("syn-queue-full", 131, Severity.ERROR)


def test_agents_own_questions_are_no_drops() -> None:
    correlator = DropCorrelator(snapshot())
    asked = FiveTuple(OBSERVER, 50000, "127.0.0.1", 10249, Protocol.TCP)
    for event in (report(), dropped(asked, reason="NO_SOCKET", packets=2)):
        correlator.feed(event)
    built = Rows(correlator).build()
    assert built == [] and summary_of("all", built, correlator, Account()).observers == 2


def test_packet_that_the_other_end_of_a_pair_refuses_is_named() -> None:
    (row,) = rows(*sampled("NOT_SPECIFIED", location="__dev_forward_skb2", flags=24))
    assert row.check == "peer-refused" and "larger than that end's MTU" in row.title


def test_segment_that_a_half_open_connection_has_no_use_for_is_mild() -> None:
    found = rows(*sampled("NOT_SPECIFIED", netns=LLAMA_NS, location="tcp_v4_rcv"))
    assert [(r.check, r.severity) for r in found] == [("repeated-segment", Severity.INFO)]


def test_reason_that_the_kernel_gives_says_more_than_the_place() -> None:
    (row,) = rows(*sampled("TCP_CSUM", netns=LLAMA_NS, location="tcp_v4_rcv"))
    assert row.check == "checksum"


def test_resets_between_two_client_ports_name_no_server_unless_they_answer_a_syn() -> None:
    flow = tcp(UI, 50777, LLAMA, 50001)
    common: dict[str, Any] = {"node": "node-1", "t_ns": 10, "netns": UI_NS, "flow": flow, "packets": 1, "sent": True}
    (row,) = rows(ResetCount(**common, active=True))
    assert row.client is not None and row.server is not None
    assert (row.direction, row.client.ip, row.server.ip) == ("unknown", UI, LLAMA)
    (row,) = rows(ResetCount(**common, opening=True))
    assert row.server is not None and (row.direction, row.server.ip, row.server.port) == ("reply", UI, 50777)


def test_drops_of_another_port_of_the_server_are_no_evidence() -> None:
    """A black hole of one port's connections says nothing of another's."""
    other = tcp(UI, 40001, LLAMA, 9090)
    blocked = error_that_died(other, packets=1)
    big = dropped(reason="PKT_TOO_BIG", location="ip_forward", opening=False)
    checks = {row.check for row in rows(big, blocked)}
    assert checks == {"packet-too-big", "icmp-dropped"}
