"""What is made of sightings: the conntrack race and a slow server told apart, retries, truncation, source NAT, two clocks."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.dns import stats as dns_stats
from kubectl_genainet.dns import summary as dns_summary
from kubectl_genainet.dns.resolv import assumed_resolv_conf, split_search
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.dns import parse_resolv_conf
from kubectl_genainet.model.events import (
    DnsDropped,
    DnsEnd,
    DnsMessageSeen,
    DnsTransaction,
    LostEvents,
    PacketSeen,
    Point,
    TcpFlags,
    Tick,
)
from kubectl_genainet.model.finding import Certainty
from kubectl_genainet.model.history import LEFT_OUT
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.results.exchange import QueryOutcome
from kubectl_genainet.render.dns.table import account
from tests.unit.dns.two_nodes import (
    MS,
    NODE_IP,
    NS,
    SERVER,
    SNAPSHOT,
    UPSTREAM,
    at_client,
    at_server,
    flow,
    message,
    place,
    pod,
    report,
    run,
)


def test_time_is_split_by_hop() -> None:
    (exchange,), summary = run(
        at_client(1, 100, DnsEnd.ANSWERED, response=103), at_server(1, 100.4, DnsEnd.ANSWERED, response=102.5)
    )
    assert exchange.outcome is QueryOutcome.ANSWERED
    assert exchange.latency_ns == 3 * MS
    split = exchange.split
    assert (split.to_nat, split.to_server, split.server, split.to_client) == (
        100_000,
        300_000,
        2_100_000,
        500_000,
    )
    assert exchange.server is not None
    assert exchange.server.pod == "dns"
    assert summary.queries.queries == summary.queries.answered == 1


def test_clocks_that_cannot_be_compared_give_no_times_between_nodes() -> None:
    (exchange,), _ = run(
        at_client(1, 100, DnsEnd.ANSWERED, response=103, nat=False),
        at_server(1, 7, DnsEnd.EXPIRED),
        boots=("one", "two"),
    )
    assert exchange.latency_ns == 3 * MS
    assert exchange.split.to_server is None


def test_one_of_a_pair_lost_before_nat_with_failed_insertions_is_the_race() -> None:
    lost = at_client(2, 100.1, DnsEnd.EXPIRED, "AAAA", nat=False)
    exchanges, summary = run(
        at_client(1, 100, DnsEnd.ANSWERED, response=101),
        report("node-1", failed=1),
        lost,
        at_server(1, 100.4, DnsEnd.ANSWERED, response=100.9),
    )
    assert [(e.type, e.outcome, e.race) for e in exchanges] == [
        ("A", QueryOutcome.ANSWERED, False),
        ("AAAA", QueryOutcome.TIMEOUT, True),
    ]
    (finding,) = [f for f in summary.findings if f.check.startswith("dns-c") or f.check == "dns-timeout"]
    assert finding.check == "dns-conntrack-race"
    assert finding.remedy is not None
    assert "single-request-reopen" in finding.remedy.yaml


def test_race_is_no_rules_drop_where_the_kernel_shows_the_packet_it_freed() -> None:
    drop = DnsDropped(
        node="node-1",
        t_ns=int(100.3 * MS),
        netns=NS["node-1"],
        ifindex=3,
        device="eth0",
        skb=7,
        flow=flow(dst=SERVER),
        length=40,
        payload=40,
        ip_id=1,
        reason="NETFILTER_DROP",
        location="nf_hook_slow",
        stack=("nf_hook_slow", "ip_output"),
        hook="POST_ROUTING",
        id=2,
        message=message("AAAA"),
    )
    pair = (at_client(1, 100, DnsEnd.ANSWERED, response=101), at_client(2, 100.1, DnsEnd.EXPIRED, "AAAA", nat=False))
    exchanges, summary = run(*pair, drop, report("node-1", failed=1))
    assert [(e.type, e.race, e.drop is not None) for e in exchanges] == [("A", False, False), ("AAAA", True, True)]
    (finding,) = [f for f in summary.findings if f.severity.value == "error"]
    assert finding.check == "dns-conntrack-race"
    assert "NETFILTER_DROP in POST_ROUTING on node node-1" in [e.statement for e in finding.evidence]
    _, without = run(*pair, drop)
    assert [f.check for f in without.findings if f.severity.value == "error"] == ["dns-dropped"]


def test_one_of_a_pair_that_reached_the_server_is_a_silent_server_not_the_race() -> None:
    exchanges, summary = run(
        at_client(1, 100, DnsEnd.ANSWERED, response=101),
        report("node-1", failed=1),
        at_client(2, 100.1, DnsEnd.EXPIRED, "AAAA"),
        at_server(2, 100.5, DnsEnd.EXPIRED, "AAAA"),
    )
    lost = exchanges[-1]
    assert (lost.outcome, lost.race) == (QueryOutcome.TIMEOUT, False)
    assert "it reached the server" in lost.last_seen
    assert [f.check for f in summary.findings] == ["dns-timeout"]


def test_without_failed_insertions_a_lost_pair_is_no_race() -> None:
    exchanges, _ = run(
        at_client(1, 100, DnsEnd.ANSWERED, response=101), at_client(2, 100.1, DnsEnd.EXPIRED, "AAAA", nat=False)
    )
    assert not any(e.race for e in exchanges)


@pytest.mark.parametrize(
    ("probe", "node", "outcome"),
    [
        ("dns", "node-1", QueryOutcome.OPEN),
        ("dns", "node-2", QueryOutcome.OPEN),
        ("all", "node-1", QueryOutcome.OPEN),  # of a client that is slow
        ("drops", "node-1", QueryOutcome.TIMEOUT),
        ("dns", "node-3", QueryOutcome.TIMEOUT),
    ],
)
def test_that_no_answer_was_seen_says_nothing_where_records_were_lost(
    probe: str, node: str, outcome: QueryOutcome
) -> None:
    lost = LostEvents(node=node, probe=probe, count=1, where="ring buffer")
    (exchange,), summary = run(
        Tick(node=node, t_ns=90 * MS),
        lost,
        Tick(node=node, t_ns=1090 * MS),
        at_client(1, 100, DnsEnd.EXPIRED),
        at_server(1, 100.4, DnsEnd.EXPIRED),
    )
    assert exchange.outcome is outcome
    assert (f"records of {node} were lost meanwhile" in exchange.last_seen) is (outcome is QueryOutcome.OPEN)
    assert [f.check for f in summary.findings] == (["dns-timeout"] if outcome is QueryOutcome.TIMEOUT else [])
    before = (Tick(node=node, t_ns=10 * MS), lost, Tick(node=node, t_ns=50 * MS))
    (earlier,), _ = run(*before, at_client(1, 100, DnsEnd.EXPIRED), at_server(1, 100.4, DnsEnd.EXPIRED))
    assert earlier.outcome is QueryOutcome.TIMEOUT


def test_repetition_is_a_timeout_and_a_retry() -> None:
    exchanges, summary = run(at_client(1, 100, DnsEnd.REPEATED), at_client(1, 2100, DnsEnd.ANSWERED, response=2101))
    assert [(e.outcome, e.retry) for e in exchanges] == [(QueryOutcome.TIMEOUT, False), (QueryOutcome.ANSWERED, True)]
    assert (summary.queries.timeouts, summary.queries.retries) == (1, 1)


def test_new_lookup_of_the_same_name_is_no_retry() -> None:
    exchanges, _ = run(
        at_client(1, 100, DnsEnd.EXPIRED), at_client(2, 1100, DnsEnd.ANSWERED, response=1101, sport=4001)
    )
    assert [e.retry for e in exchanges] == [False, False]


def test_response_to_no_query_is_counted_once_and_not_at_each_hop() -> None:
    def seen(t: float, point: Point, number: int = 7) -> DnsMessageSeen:
        return DnsMessageSeen(
            node="node-1",
            t_ns=int(t * MS),
            netns=NS["node-1"],
            ifindex=4,
            point=point,
            flow=flow().reversed,
            id=number,
            message=message(qr=True),
        )

    _, summary = run(seen(100, Point.RX), seen(100.1, Point.TX), seen(100.2, Point.RX, 8))
    assert (summary.queries.queries, summary.unmatched) == (0, 2)


def test_names_beyond_the_bounds_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(number: int) -> DnsTransaction:
        name = message(name=f"n{number}.example.")
        seen = at_client(number, 100.0 * number, DnsEnd.ANSWERED, response=100.0 * number + 1)
        return msgspec.structs.replace(seen, asked=name, answer=msgspec.structs.replace(name, qr=True))

    monkeypatch.setattr(dns_stats, "MAX_GROUPS", 3)
    monkeypatch.setattr(dns_summary, "MAX_LISTED", 2)
    _, summary = run(*(asked(number) for number in range(1, 6)))
    assert (summary.queries.queries, summary.not_grouped) == (5, 2)
    assert (len(summary.names), len(summary.lookups), summary.unlisted) == (2, 2, 1 + 3)
    told = str(account(summary))
    assert "2 queries without a row of their own" in told and "4 more rows of names not listed" in told


def test_truncated_answer_and_its_retry_over_tcp() -> None:
    def tcp(t: float, point: Point, *, qr: bool = False) -> DnsMessageSeen:
        there = flow(sport=5000, protocol=Protocol.TCP)
        return DnsMessageSeen(
            node="node-1",
            t_ns=int(t * MS),
            netns=NS["node-1"],
            ifindex=4,
            point=point,
            flow=there.reversed if qr else there,
            id=9,
            message=message(qr=qr),
        )

    exchanges, summary = run(
        at_client(1, 100, DnsEnd.ANSWERED, response=101, tc=True), tcp(102, Point.RX), tcp(104, Point.TX, qr=True)
    )
    assert [(e.transport, e.truncated, e.after_truncation) for e in exchanges] == [
        ("UDP", True, False),
        ("TCP", False, True),
    ]
    assert exchanges[1].latency_ns == 2 * MS
    assert (summary.queries.truncated, summary.queries.tcp_retries) == (1, 1)


def test_tcp_connection_without_an_answer_is_a_finding() -> None:
    syn = PacketSeen(
        node="node-1",
        t_ns=100 * MS,
        netns=NS["node-1"],
        ifindex=4,
        device="veth1",
        skb=0,
        length=0,
        payload=0,
        ip_id=0,
        flow=flow(sport=5000, protocol=Protocol.TCP),
        tcp=TcpFlags(1, 0, 2),
        point=Point.RX,
    )
    _, summary = run(syn)
    assert [f.check for f in summary.findings] == ["dns-tcp-blocked"]
    assert "default/app" in summary.findings[0].title


def test_query_upstream_is_one_before_and_after_source_nat() -> None:
    before = DnsTransaction(
        node="node-2",
        t_ns=110 * MS,
        id=7,
        end=DnsEnd.ANSWERED,
        flows=(flow(SERVER, 6000, UPSTREAM),),
        query=(place(101, "server", Point.TX),),
        response=(place(110, "server", Point.RX),),
        asked=message(),
        answer=message(qr=True),
    )
    after = DnsTransaction(
        node="node-2",
        t_ns=109 * MS,
        id=7,
        end=DnsEnd.ANSWERED,
        flows=(flow(NODE_IP, 61000, UPSTREAM),),
        query=(place(102, "node-2", Point.TX, 3),),
        response=(place(109, "node-2", Point.RX, 3),),
        asked=message(),
        answer=message(qr=True),
    )
    exchanges, summary = run(
        after,
        before,
        at_server(1, 100.4, DnsEnd.ANSWERED, response=111),
        at_client(1, 100, DnsEnd.ANSWERED, response=112),
    )
    assert [(e.client.pod, e.upstream) for e in exchanges] == [("app", False), ("dns", True)]
    assert exchanges[0].split.upstream == 9 * MS
    assert (summary.queries.queries, summary.upstream.queries) == (1, 1)


def test_resolv_conf_by_the_spec_and_by_the_file() -> None:
    app = SNAPSHOT.pod("default", "app")
    assert app is not None
    assumed = assumed_resolv_conf(app, SNAPSHOT)
    assert assumed is not None
    assert (assumed.search[0], assumed.ndots, assumed.certainty) == ("default.svc.cluster.local", 5, Certainty.ASSUMED)
    custom = ClusterSnapshot(
        (
            pod(
                "x",
                "10.244.1.9",
                "node-1",
                dnsPolicy="None",
                dnsConfig={"searches": ["corp.example"], "options": [{"name": "ndots", "value": "2"}]},
            ),
        )
    )
    found = assumed_resolv_conf(custom.pods[0], custom)
    assert found is not None
    assert (found.search, found.ndots) == (("corp.example",), 2)
    read = parse_resolv_conf("search a.b c.d.\nnameserver 10.0.0.1\noptions ndots:3 timeout:2\n")
    assert (read.search, read.ndots, read.certainty) == (("a.b", "c.d"), 3, Certainty.OBSERVED)
    assert split_search("x.y.svc.cluster.local.", assumed.search) == ("x.y", "svc.cluster.local")
    assert split_search("x.default.svc.cluster.local", assumed.search) == ("x", "default.svc.cluster.local")
    assert split_search("example.com.", assumed.search) is None


def test_what_a_recorder_left_out_is_said_beside_the_counts() -> None:
    left_out = LostEvents(node="node-1", probe="dns", count=1750, where=LEFT_OUT)
    ring = LostEvents(node="node-1", probe="dns", count=3, where="ring buffer")
    answered = at_client(1, 100.0, DnsEnd.ANSWERED, response=101.0)
    _, summary = run(answered, left_out, ring)
    assert "1750 more were answered quickly and are not among these" in str(account(summary))
    _, summary = run(answered, ring)
    assert "answered quickly" not in str(account(summary))
