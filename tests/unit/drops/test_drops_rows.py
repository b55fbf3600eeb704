"""Counts as rows: ends and directions, what explains what, the policies beside the kernel; the table that shows them."""

from __future__ import annotations

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from kubectl_genainet.context.account import Account
from kubectl_genainet.context.ends import Ends
from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.drops.summary import summary_of
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.diagnoses import BY_REASON
from kubectl_genainet.model.events import (
    ClusterChanged,
    DropCount,
    EstablishedCount,
    Event,
    IcmpCount,
    IcmpError,
    PacketDropped,
    Point,
    ResetCount,
    RetransmitCount,
    TcpFlags,
    Tick,
)
from kubectl_genainet.model.finding import Certainty, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import Device, NetNs, NetnsRules, NodeReport, Route, RulesetDump
from kubectl_genainet.model.packet import OBSERVER, FiveTuple, Protocol
from kubectl_genainet.model.reasons import is_background
from kubectl_genainet.model.results.drops import Agreement, DropOutcome, DropRow
from kubectl_genainet.proxy import RuleRef
from kubectl_genainet.render.drops.table import COLUMNS, details
from kubectl_genainet.render.table import table
from kubectl_genainet.why.netfilter import told_by

UI, LLAMA, VIP, NODE = "10.244.1.2", "10.244.2.3", "10.96.0.65", "172.18.0.2"
HOST, UI_NS, LLAMA_NS = 1, 2, 3


def pod(name: str, ip: str, node: str, port: int = 8080) -> dict[str, Any]:
    ports = [{"containerPort": port, "protocol": "TCP"}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}", "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "x", "ports": ports}]},
        "status": {"podIP": ip, "podIPs": [{"ip": ip}], "phase": "Running"},
    }


def objects(*, admits: bool = True) -> list[dict[str, Any]]:
    peer = [{"podSelector": {"matchLabels": {"app": "chatbot-ui" if admits else "nobody"}}}]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}},
        pod("chatbot-ui", UI, "node-1", 3000),
        pod("my-llama", LLAMA, "node-1"),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "my-llama-svc", "namespace": "default"},
            "spec": {
                "clusterIP": VIP,
                "clusterIPs": [VIP],
                "type": "ClusterIP",
                "selector": {"app": "my-llama"},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "metadata": {"name": "s", "namespace": "default", "labels": {"kubernetes.io/service-name": "my-llama-svc"}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": [LLAMA], "conditions": {"ready": True}, "nodeName": "node-1"}],
        },
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": "llama-in", "namespace": "default"},
            "spec": {
                "podSelector": {"matchLabels": {"app": "my-llama"}},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": peer, "ports": [{"protocol": "TCP", "port": 8080}]}],
            },
        },
    ]


def snapshot(*, admits: bool = True) -> ClusterSnapshot:
    return ClusterSnapshot(tuple(KubeObject(o) for o in objects(admits=admits)))


def report(t_ns: int = 1, **counters: int) -> NodeReport:
    def space(inode: int, ip: str, *, host: bool = False, **more: Any) -> NetNs:
        device = Device(name="eth0", ifindex=2, mtu=1500, addresses=(ip,))
        return NetNs(inode=inode, host=host, devices=(device,), **more)

    conntrack = {k: v for k, v in counters.items() if k.startswith("conntrack_")}
    return NodeReport(
        node="node-1",
        t_ns=t_ns,
        namespaces=(
            space(HOST, NODE, host=True, counters=conntrack, conntrack_count=10, conntrack_max=100),
            space(UI_NS, UI),
            space(LLAMA_NS, LLAMA, counters={"ListenOverflows": counters["listen"]} if "listen" in counters else {}),
        ),
    )


def tcp(src: str, sport: int, dst: str, dport: int) -> FiveTuple:
    return FiveTuple(src, sport, dst, dport, Protocol.TCP)


REQUEST = tcp(UI, 40000, LLAMA, 8080)


def dropped(
    flow: FiveTuple = REQUEST,
    *,
    reason: str = "NETFILTER_DROP",
    netns: int = HOST,
    packets: int = 5,
    location: str = "nft_do_chain",
    opening: bool = True,
    answering: bool = False,
) -> DropCount:
    return DropCount(
        node="node-1",
        t_ns=10,
        netns=netns,
        flow=flow,
        packets=packets,
        reason=reason,
        location=location,
        bytes=60 * packets,
        opening=opening,
        answering=answering,
    )


def sample(flow: FiveTuple = REQUEST, *, hook: str = "FORWARD") -> PacketDropped:
    return PacketDropped(
        node="node-1",
        t_ns=9,
        netns=HOST,
        ifindex=2,
        device="eth0",
        skb=1,
        flow=flow,
        length=60,
        payload=0,
        ip_id=1,
        reason="NETFILTER_DROP",
        location="nft_do_chain+0x1",
        hook=hook,
    )


def rows(*events: Event, admits: bool = True, **options: Any) -> list[DropRow]:
    correlator = DropCorrelator(snapshot(admits=admits), **options)
    for event in (report(), *events):
        correlator.feed(event)
    built = Rows(correlator)
    built.is_final = True
    return built.build()


def rules(*lines: str) -> RulesetDump:
    text = "\n".join(
        ("*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]", *lines, "COMMIT", "")
    )
    return RulesetDump(node="node-1", t_ns=1, source="iptables-nft", text=text)


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
    oriented = Ends(snapshot()).orient(flow)
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


def test_sample_gives_hook_and_rule_and_a_foreign_rule_disagrees_with_the_policies() -> None:
    rule = '-A FORWARD -s 10.244.1.2/32 -p tcp -m tcp --dport 8080 -m comment --comment "old test" -j DROP'
    (row,) = rows(rules(rule), sample(), dropped())
    assert row.drop is not None and row.policy is not None
    assert (row.check, row.outcome, row.drop.hook) == ("rule-drop", DropOutcome.DROPPED, "FORWARD")
    assert row.drop.rule is not None and "old test" in row.drop.rule
    assert (row.policy.agreement, row.policy.causes) == (Agreement.API_ADMITS, ())


def test_rule_that_rejects_is_told_from_one_that_drops() -> None:
    rule = "-A FORWARD -p tcp -m tcp --dport 8080 -j REJECT --reject-with tcp-reset"
    (row,) = rows(rules(rule), sample(), dropped())
    assert row.drop is not None
    assert (row.check, row.outcome, row.drop.told) == ("rejected-by-rule", DropOutcome.REJECTED, "tcp-reset")


@pytest.mark.parametrize(
    ("to", "verdict", "check", "said"),
    [
        (
            (VIP, 8081),
            "REJECT",
            "no-such-port",
            "Service default/my-llama-svc (10.96.0.65) has no port 8081/TCP; it has 80/TCP",
        ),
        (("10.96.7.7", 80), "DROP", "kube-proxy-drop", "kube-proxy's rule on node-1 drops it: unallocated"),
        (("203.0.113.9", 80), "DROP", "kube-proxy-drop", "kube-proxy's rule on node-1 drops it: unallocated"),
    ],
)
def test_what_kube_proxy_itself_refuses_is_no_matter_of_policies(
    to: tuple[str, int], verdict: str, check: str, said: str
) -> None:
    flow = tcp(UI, 40000, *to)
    chains = [
        ":KUBE-SERVICES - [0:0]",
        "-A FORWARD -m conntrack --ctstate NEW -j KUBE-SERVICES",
        f'-A KUBE-SERVICES -d {to[0]}/32 -p tcp -m tcp --dport {to[1]} -m comment --comment "unallocated" -j {verdict}',
    ]
    (row,) = rows(rules(*chains), sample(flow), dropped(flow))
    assert (row.check, row.title, row.policy) == (check, said, None)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("-A FORWARD -j REJECT", "icmp-port-unreachable"),
        ("-A FORWARD -j REJECT --reject-with icmp-host-prohibited", "icmp-host-prohibited"),
        ("tcp dport 80 reject with tcp reset", "tcp reset"),
        ("-A FORWARD -j DROP", None),
    ],
)
def test_how_a_rule_answers_is_read_from_it(text: str, told: str | None) -> None:
    assert told_by(RuleRef("filter", "FORWARD", 1, text)) == told


def test_drop_without_a_known_rule_names_causes_and_says_that_none_is_known() -> None:
    (row,) = rows(rules(), sample(), dropped())
    assert row.policy is not None
    assert row.policy.agreement is Agreement.API_ADMITS
    assert [c.split(":")[0] for c in row.policy.causes] == [
        "the policy enforcer on node-1 lags behind the API, or has stopped",
        "another enforcer",
    ]


def test_drop_that_policies_ask_for_agrees() -> None:
    (row,) = rows(rules(), sample(), dropped(), admits=False)
    assert row.policy is not None
    assert (row.policy.verdict, row.policy.agreement, row.policy.policies) == (
        "deny",
        Agreement.AGREE,
        ("default/llama-in",),
    )
    assert "isolated for ingress by default/llama-in" in row.title


def test_dropped_answer_is_judged_as_the_request_that_it_answers() -> None:
    (row,) = rows(rules(), dropped(REQUEST.reversed, opening=False), admits=False)
    assert row.policy is not None and row.policy.agreement is Agreement.AGREE
    assert "TCP 8080 from default/chatbot-ui" in row.title


def test_ebpf_drop_names_the_kind_of_data_plane() -> None:
    (row,) = rows(dropped(reason="TC_EGRESS", location="tcf_classify"), admits=False)
    assert (row.check, row.severity) == ("ebpf-drop", Severity.ERROR)
    assert "eBPF data plane decides here" in row.title and row.policy is not None
    assert row.policy.agreement is Agreement.AGREE


def test_mtu_black_hole_needs_both_the_drop_and_the_error_that_was_dropped() -> None:
    big = dropped(REQUEST.reversed, reason="PKT_TOO_BIG", location="ip_forward", opening=False)
    error = IcmpCount(
        node="node-1",
        t_ns=10,
        netns=HOST,
        flow=REQUEST.reversed,
        packets=5,
        family=4,
        type=3,
        code=4,
        reason="NETFILTER_DROP",
    )
    assert [r.check for r in rows(big)] == ["packet-too-big"]
    assert [r.check for r in rows(big, error)] == ["mtu-blackhole"]
    assert [r.check for r in rows(error)] == ["icmp-dropped"]


def test_dropped_icmp_error_names_the_rule_for_its_type_and_no_other() -> None:
    def error(netns: int = HOST) -> IcmpError:
        return IcmpError(
            node="node-1",
            t_ns=9,
            netns=netns,
            ifindex=2,
            device="eth0",
            point=Point.DROP,
            src=NODE,
            dst=LLAMA,
            family=4,
            type=3,
            code=4,
            mtu=1300,
            quoted=REQUEST.reversed,
            hook="OUTPUT",
            reason="NETFILTER_DROP",
            location="nft_do_chain+0x1",
        )

    counted = IcmpCount(
        node="node-1",
        t_ns=10,
        netns=HOST,
        flow=REQUEST.reversed,
        packets=5,
        family=4,
        type=3,
        code=4,
        reason="NETFILTER_DROP",
    )
    dump = rules(
        "-A OUTPUT -p icmp -m icmp --icmp-type 8 -j DROP",
        "-A OUTPUT -p icmp -m icmp --icmp-type 3/3 -j DROP",
        "-A OUTPUT -p tcp -j DROP",
        '-A OUTPUT -p icmp -m icmp --icmp-type 3/4 -m comment --comment "no icmp" -j DROP',
    )
    (row,) = rows(error(), counted, dump)
    assert (row.check, row.packets) == ("icmp-dropped", 5)
    assert row.drop is not None and row.drop.rule is not None
    assert row.drop.rule.startswith("filter OUTPUT rule 4:")
    assert row.title.endswith("is dropped in OUTPUT on node-1: node-1 drops it by a rule: no icmp")
    big = dropped(REQUEST.reversed, reason="PKT_TOO_BIG", location="ip_forward", opening=False)
    (row,) = rows(big, error(), counted, dump)
    said = [e for e in row.evidence if e.statement.startswith("the ICMP error is dropped by filter OUTPUT rule 4:")]
    assert [e.certainty.value for e in said] == ["derived"]


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
    assert [r.check for r in rows(seen)] == ["reset-from-outside"]


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


def test_drop_where_connections_are_confirmed_is_the_race_if_insertions_failed_and_no_rule_drops() -> None:
    lost = FiveTuple(UI, 40000, LLAMA, 53, Protocol.UDP)
    seen = (dropped(lost, opening=False), sample(lost, hook="POST_ROUTING"), rules("-A FORWARD -j ACCEPT"))
    (row,) = [r for r in rows(*seen, report(2, conntrack_insert_failed=1)) if r.drop is not None]
    assert row.check == "netfilter-drop"  # the first report had no such counter: it may be old
    counted = (report(1, conntrack_insert_failed=0), *seen, report(2, conntrack_insert_failed=1))
    correlator = DropCorrelator(snapshot())
    for event in counted:
        correlator.feed(event)
    built = Rows(correlator).build()
    (row,) = [r for r in built if r.drop is not None]
    assert row.check == "conntrack-race"
    counters = sum(r.packets for r in built if r.drop is None)
    assert (row.packets, counters) == (5, 1)  # the node counts the flow's packet too: the total has it once
    assert summary_of("all", built, correlator, Account()).packets == {"dropped": 5}
    assert "insert_failed grew by 1" in "\n".join(e.statement for e in row.evidence)


def test_connection_against_the_policies_counts_only_once_they_have_settled() -> None:
    def accepted(seconds: float) -> EstablishedCount:
        flow = tcp(UI, 0, LLAMA, 8080)
        return EstablishedCount(node="node-1", t_ns=int(seconds * 1e9), netns=LLAMA_NS, flow=flow, packets=1)

    (row,) = rows(accepted(1), accepted(8), admits=False)
    assert (row.check, row.packets) == ("policy-not-enforced", 1)
    assert row.policy is not None and row.policy.agreement is Agreement.API_ISOLATES
    assert rows(accepted(8), admits=True) == []
    changed = ClusterChanged(objects=objects(admits=False))
    tick = Tick(node="node-1", t_ns=int(7e9))
    assert rows(tick, changed, accepted(8), admits=True) == []
    assert len(rows(tick, changed, accepted(13), admits=True)) == 1


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
    assert "chatbot-ui" in text and "the policies admit it: the kernel and the API disagree [assumed]" in text


# --- what a drop is, beyond the kernel's word for it ------------------------------------------------------------------


def sampled(reason: str, **rest: Any) -> list[Event]:
    """A count and its sample, of one packet."""
    values: dict[str, Any] = {"flow": REQUEST, "netns": HOST, "location": "f", "hook": "", "flags": 2} | rest
    tcp = None if values["flow"].protocol is not Protocol.TCP else TcpFlags(1, 0, values["flags"])
    packet = msgspec.structs.replace(
        sample(values["flow"], hook=values["hook"]),
        reason=reason,
        netns=values["netns"],
        location=values["location"],
        tcp=tcp,
    )
    count = dropped(
        values["flow"],
        reason=reason,
        netns=values["netns"],
        location=values["location"],
        opening=values["flags"] == 2,
        answering=values["flags"] == 18,
        packets=1,
    )
    return [packet, count]


def test_rule_that_takes_only_invalid_packets_is_named_as_such() -> None:
    invalid = rules("-A FORWARD -m conntrack --ctstate INVALID -j DROP", "-A FORWARD -j ACCEPT")
    (row,) = rows(invalid, *sampled("NETFILTER_DROP", flow=REQUEST.reversed, hook="FORWARD", flags=24))
    assert row.check == "conntrack-invalid" and row.drop is not None and row.policy is None
    assert row.drop.rule is not None and "INVALID" in row.drop.rule and row.drop.certainty is Certainty.DERIVED


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


def test_rules_of_a_pods_own_namespace_are_read_for_what_dies_in_it() -> None:
    own = rules("-A INPUT -p tcp --dport 8080 -j DROP")
    nodes = rules("-A INPUT -j ACCEPT")
    died = sampled("NETFILTER_DROP", netns=LLAMA_NS, hook="INPUT")
    (row,) = rows(nodes, NetnsRules(node="node-1", t_ns=2, netns=LLAMA_NS, dumps=(own,)), *died)
    assert row.check == "rule-drop" and row.drop is not None and "--dport 8080 -j DROP" in (row.drop.rule or "")
    assert row.title.startswith("pod default/my-llama drops it by a rule")
    (row,) = rows(nodes, *died)
    assert row.check == "netfilter-drop" and "the rules of pod default/my-llama were not read" in row.title


def test_port_that_the_pod_itself_redirects_to_is_its_proxys() -> None:
    own = RulesetDump(
        node="node-1",
        t_ns=1,
        source="iptables-nft",
        text="*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j REDIRECT --to-ports 15006\nCOMMIT\n",
    )
    redirected = tcp(UI, 40000, LLAMA, 15006)
    died = sampled("NO_SOCKET", flow=redirected, netns=LLAMA_NS, location="tcp_v4_rcv")
    (row,) = rows(NetnsRules(node="node-1", t_ns=2, netns=LLAMA_NS, dumps=(own,)), *died)
    assert row.check == "redirect-without-listener" and "targetPort" not in row.title
    assert row.drop is not None and "REDIRECT --to-ports 15006" in (row.drop.rule or "")


def test_port_that_a_pod_of_the_target_redirects_to_is_the_targets_whenever_its_rules_come() -> None:
    own = RulesetDump(
        node="node-1",
        t_ns=1,
        source="iptables-nft",
        text="*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING -p tcp -j REDIRECT --to-ports 15006\nCOMMIT\n",
    )
    read = NetnsRules(node="node-1", t_ns=2, netns=LLAMA_NS, dumps=(own,))
    died = [
        event
        for port in (15006, 9999)  # the other has nothing to do with the target
        for event in sampled("NO_SOCKET", flow=tcp(UI, 40000, LLAMA, port), netns=LLAMA_NS, location="tcp_v4_rcv")
    ]
    of_target: dict[str, Any] = {"concerns": lambda flow: flow.dport == 8080, "pods": lambda: {LLAMA}}
    for events in ((read, *died), (*died, read)):
        (row,) = rows(*events, **of_target)
        assert row.check == "redirect-without-listener" and row.server is not None and row.server.port == 15006
    assert rows(*died, **of_target) == []


def test_mild_reason_is_an_error_where_it_keeps_connections_from_opening() -> None:
    sent = {2: REQUEST, 18: REQUEST.reversed, 24: REQUEST}
    severities = {
        flags: rows(*sampled("OTHERHOST", flow=flow, flags=flags))[0].severity for flags, flow in sent.items()
    }
    assert severities == {2: Severity.ERROR, 18: Severity.ERROR, 24: Severity.INFO}


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


def test_reset_is_from_outside_only_when_the_other_nodes_have_counted_too() -> None:
    reset = ResetCount(node="node-1", t_ns=10, netns=UI_NS, flow=REQUEST.reversed, packets=1, sent=False, reason="")
    correlator = DropCorrelator(snapshot())
    for event in (report(), reset):
        correlator.feed(event)
    built = Rows(correlator)
    assert built.build() == []
    built.is_final = True
    assert [row.check for row in built.build()] == ["reset-from-outside"]


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


def test_rule_that_is_gone_is_found_in_what_was_read_before() -> None:
    before, now = rules("-A FORWARD -p tcp --dport 8080 -j DROP"), rules("-A FORWARD -j ACCEPT")
    (row,) = rows(before, now, *sampled("NETFILTER_DROP", hook="FORWARD"))
    assert row.check == "rule-drop" and row.title.endswith("(the rule is gone now)")


def test_rule_of_a_device_is_told_from_the_stacks() -> None:
    (row,) = rows(rules("-A FORWARD -j ACCEPT"), *sampled("NETFILTER_DROP", hook="INGRESS"))
    assert row.check == "device-rule-drop" and "ingress of eth0" in row.title
