"""Records in, exposition out: what is counted, whose it is, and that no client can make the agent's memory grow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from kubectl_genainet.agent.always.metrics import Metrics
from kubectl_genainet.agent.always.otlp import Endpoint, FlowLogs, LogExporter, headers_from
from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.agent.always.session import listen_address
from kubectl_genainet.context.identities import identities_of
from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.dns import DnsMessage
from kubectl_genainet.model.events import (
    DnsEnd,
    DnsPlace,
    DnsTransaction,
    DropCount,
    EstablishedCount,
    IcmpCount,
    LostEvents,
    PacketDropped,
    Point,
    ResetCount,
    RetransmitCount,
)
from kubectl_genainet.model.identities import Identities, Owner
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.otlptest import Collector, collecting

FLOW = FiveTuple("10.0.0.1", 40000, "10.0.1.2", 8080, Protocol.TCP)
NODE: dict[str, Any] = {"node": "node-1", "t_ns": 5_000_000_000}
HOST, LLAMA, BYUID = 100, 101, 102


def report() -> NodeReport:
    def inside(inode: int, address: str, *uids: str, host: bool = False) -> NetNs:
        device = Device(name="eth0", ifindex=2, mtu=1500, addresses=(address,))
        return NetNs(
            inode=inode,
            host=host,
            devices=(device,),
            pod_uids=uids,
            conntrack_count=7 if host else None,
            conntrack_max=10,
        )

    return NodeReport(
        node="node-1",
        t_ns=1,
        namespaces=(inside(HOST, "192.0.2.1", host=True), inside(LLAMA, "10.0.1.2"), inside(BYUID, "10.0.1.9", "u-9")),
    )


def identities() -> Identities:
    return Identities(
        taken_at=1.0,
        addresses={"10.0.1.2": Owner("default", "my-llama"), "10.0.1.9": Owner("old", "whoever-had-it-before")},
        backends={"10.0.1.2 8080 TCP": ("default/my-llama-svc",), "10.0.1.2 9000 TCP": ("default/a", "default/b")},
    )


@pytest.fixture
def owners(tmp_path: Path) -> Owners:
    file = tmp_path / "identities.json"
    file.write_bytes(msgspec.json.encode(identities()))
    found = Owners(str(file))
    found.reload()
    assert found.error == ""
    return found


@pytest.fixture
def metrics(owners: Owners) -> Metrics:
    made = Metrics(owners)
    made.feed(report())
    return made


def values(metrics: Metrics, name: str) -> dict[tuple[str, ...], float]:
    """The samples of one name by their label values, in the order of the labels' names."""
    body, content_type = metrics.scrape()
    assert content_type.startswith("text/plain")
    return {
        tuple(value for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
        if sample.name == name
    }


def drop(
    packets: int, *, flow: FiveTuple = FLOW, netns: int = HOST, reason: str = "NETFILTER_DROP", **more: Any
) -> DropCount:
    return DropCount(
        **NODE,
        netns=netns,
        flow=flow,
        packets=packets,
        bytes=60 * packets,
        reason=reason,
        location="nft_do_chain",
        **more,
    )


def sample(hook: str, *, flow: FiveTuple = FLOW) -> PacketDropped:
    return PacketDropped(
        **NODE,
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


def exchange(end: DnsEnd, point: Point = Point.TX) -> DnsTransaction:
    query = (DnsPlace(1_000_000_000, LLAMA, 2, point, 0),)
    response = (DnsPlace(1_003_000_000, LLAMA, 2, Point.RX, 0),) if end is DnsEnd.ANSWERED else ()
    answer = DnsMessage(qr=True, length=40, captured=40, rcode="NXDOMAIN") if response else None
    return DnsTransaction(
        **NODE,
        id=1,
        end=end,
        flows=(FiveTuple("10.0.1.2", 999, "10.96.0.10", 53, Protocol.UDP),),
        query=query,
        response=response,
        answer=answer,
    )


def test_what_a_resolver_makes_up_is_one_series(metrics: Metrics) -> None:
    answered = exchange(DnsEnd.ANSWERED)
    assert answered.answer is not None
    for number in range(300):
        answer = msgspec.structs.replace(answered.answer, rcode=str(number))
        metrics.feed(msgspec.structs.replace(answered, answer=answer))
    ((labels, count),) = values(metrics, "genainet_dns_duration_seconds_count").items()
    assert "other" in labels and count == 300


def test_a_drop_on_the_node_is_its_destinations_with_reason_and_hook(metrics: Metrics) -> None:
    metrics.feed(sample("FORWARD"))
    metrics.feed(drop(3))
    metrics.feed(drop(2, flow=msgspec.structs.replace(FLOW, sport=40001)))
    assert values(metrics, "genainet_drops_total") == {("FORWARD", "default", "NETFILTER_DROP", "my-llama"): 5}
    assert values(metrics, "genainet_dropped_bytes_total") == {
        ("FORWARD", "default", "NETFILTER_DROP", "my-llama"): 300
    }


def test_without_a_sample_the_hook_is_unknown_and_outside_of_netfilter_none(metrics: Metrics) -> None:
    metrics.feed(drop(1))
    metrics.feed(sample("", flow=msgspec.structs.replace(FLOW, dst="10.9.9.9")))
    metrics.feed(drop(1, flow=msgspec.structs.replace(FLOW, dst="10.9.9.9")))
    assert values(metrics, "genainet_drops_total") == {
        ("unknown", "default", "NETFILTER_DROP", "my-llama"): 1,
        ("none", "none", "NETFILTER_DROP", "node"): 1,
    }


def test_what_a_healthy_network_frees_is_no_drop(metrics: Metrics) -> None:
    metrics.feed(
        DropCount(**NODE, netns=LLAMA, flow=FLOW, packets=4, bytes=0, reason="NOT_SPECIFIED", location="tcp_v4_rcv+0x9")
    )
    assert values(metrics, "genainet_drops_total") == {}
    assert values(metrics, "genainet_background_frees_total") == {(): 4}


def test_the_uid_of_a_pod_goes_before_an_address_that_another_pod_had(metrics: Metrics) -> None:
    metrics.feed(drop(1, netns=BYUID, reason="NO_SOCKET"))
    assert values(metrics, "genainet_drops_total") == {("unknown", "unknown", "NO_SOCKET", "uid:u-9"): 1}


def test_without_a_file_of_identities_a_name_is_unknown() -> None:
    bare = Metrics(Owners())
    bare.feed(report())
    bare.feed(drop(1, netns=LLAMA, reason="NO_SOCKET"))
    bare.feed(EstablishedCount(**NODE, netns=LLAMA, flow=FLOW, packets=1))
    assert values(bare, "genainet_drops_total") == {("unknown", "unknown", "NO_SOCKET", "unknown"): 1}
    assert values(bare, "genainet_connections_total") == {("10.0.1.2:8080", "unknown"): 1}


def test_connections_are_counted_by_service_and_backend(metrics: Metrics) -> None:
    for port, packets in ((8080, 3), (8080, 4), (9000, 1), (22, 1)):
        flow = msgspec.structs.replace(FLOW, dport=port)
        metrics.feed(EstablishedCount(**NODE, netns=LLAMA, flow=flow, packets=packets))
    assert values(metrics, "genainet_connections_total") == {
        ("10.0.1.2:8080", "default/my-llama-svc"): 7,
        ("10.0.1.2:9000", "ambiguous"): 1,
        ("10.0.1.2:22", "unknown"): 1,
    }


def test_dns_times_are_those_of_the_clients_node(metrics: Metrics) -> None:
    metrics.feed(exchange(DnsEnd.ANSWERED))
    metrics.feed(exchange(DnsEnd.ANSWERED, Point.RX))  # arrived from another node, which counts it
    metrics.feed(exchange(DnsEnd.EXPIRED))
    metrics.feed(exchange(DnsEnd.STOPPED))
    labels = ("default", "NXDOMAIN", "my-llama")
    assert values(metrics, "genainet_dns_duration_seconds_count") == {labels: 1}
    assert values(metrics, "genainet_dns_duration_seconds_sum") == {labels: pytest.approx(0.003)}
    buckets = values(metrics, "genainet_dns_duration_seconds_bucket")
    assert [b for b, n in buckets.items() if n == 0] == [(b, *labels) for b in ("0.0005", "0.001", "0.0025")]
    assert values(metrics, "genainet_dns_failures_total") == {("default", "expired", "my-llama"): 1}


def test_tcp_trouble_icmp_and_losses_are_counted(metrics: Metrics) -> None:
    tally: dict[str, Any] = {**NODE, "netns": LLAMA, "flow": FLOW}
    metrics.feed(ResetCount(**tally, packets=2, sent=True))
    metrics.feed(RetransmitCount(**tally, packets=3, state="SYN_SENT"))
    metrics.feed(IcmpCount(**tally, packets=4, family=4, type=3, code=4))
    metrics.feed(IcmpCount(**tally, packets=9, family=4, type=3, code=4, reason="NETFILTER_DROP"))
    metrics.feed(LostEvents(node="node-1", probe="dns", count=5, where="ring buffer"))
    assert values(metrics, "genainet_tcp_resets_total") == {("sent", "default", "my-llama"): 2}
    assert values(metrics, "genainet_tcp_retransmits_total") == {("default", "SYN_SENT", "my-llama"): 3}
    assert values(metrics, "genainet_icmp_errors_total") == {("4", "4", "default", "3", "my-llama"): 4}
    assert values(metrics, "genainet_events_lost_total") == {("dns", "ring buffer"): 5}
    assert values(metrics, "genainet_conntrack_entries") == {(): 7}
    assert values(metrics, "genainet_conntrack_limit") == {(): 10}


def test_label_sets_are_bounded_and_nothing_is_lost_by_it(owners: Owners) -> None:
    bounded = Metrics(owners, limit=10, clock=lambda: 0.0)
    for port in range(1, 1001):
        flow = msgspec.structs.replace(FLOW, dport=port)
        bounded.feed(EstablishedCount(**NODE, netns=LLAMA, flow=flow, packets=1))
        bounded.feed(drop(1, reason=f"REASON_{port}"))
    connections = values(bounded, "genainet_connections_total")
    assert len(connections) == 11 and sum(connections.values()) == 1000
    assert connections["other", "unknown"] == 990
    drops = values(bounded, "genainet_drops_total")
    assert len(drops) == 21 and sum(drops.values()) == 1000
    assert drops["other", "other", "other", "other"] == 980
    folded = values(bounded, "genainet_folded_total")
    assert folded["genainet_connections",] == 990 and folded["genainet_drops",] == 990


def test_a_label_set_that_is_idle_gives_way_and_a_busy_one_never_goes_back(owners: Owners) -> None:
    now = [0.0]
    bounded = Metrics(owners, limit=2, clock=lambda: now[0])

    def connect(port: int) -> None:
        bounded.feed(EstablishedCount(**NODE, netns=LLAMA, flow=msgspec.structs.replace(FLOW, dport=port), packets=1))

    connect(1)
    connect(2)
    now[0] = 4000.0
    connect(2)
    connect(3)
    connect(4)
    assert values(bounded, "genainet_connections_total") == {
        ("10.0.1.2:2", "unknown"): 2,
        ("10.0.1.2:3", "unknown"): 1,
        ("other", "unknown"): 1,
    }


def test_a_damaged_file_of_identities_keeps_what_was_known(owners: Owners, tmp_path: Path) -> None:
    (tmp_path / "identities.json").write_text('{"addresses": [')
    owners.reload()
    assert "identities.json" in owners.error
    assert owners.at("10.0.1.2") == Owner("default", "my-llama")
    (tmp_path / "identities.json").write_bytes(
        msgspec.json.encode(Identities(addresses={"10.0.1.2": Owner("x", "new")}))
    )
    owners.reload()
    assert owners.error == "" and owners.at("10.0.1.2") == Owner("x", "new")


def test_a_scraper_that_asks_for_openmetrics_gets_it(metrics: Metrics) -> None:
    body, content_type = metrics.scrape("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and body.endswith(b"# EOF\n")
    assert b"_created" not in body


def test_names_are_taken_from_pods_and_from_the_slices_of_services() -> None:
    def pod(name: str, ip: str, **spec: object) -> KubeObject:
        owner = {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "name": "my-llama-6d4cf",
            "uid": "r",
            "controller": True,
        }
        metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "ownerReferences": [owner]}
        status = {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]}
        return KubeObject({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})

    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "svc", "namespace": "default"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "addressType": "IPv4",
        "metadata": {"name": "svc-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "svc"}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.0.1.2"], "conditions": {"ready": True}}],
    }
    objects = (
        pod("a", "10.0.1.2"),
        pod("host", "192.0.2.1", hostNetwork=True),
        KubeObject(service),
        KubeObject(endpoints),
    )
    llama = Owner("default", "my-llama")
    assert identities_of(ClusterSnapshot(objects), 7.0) == Identities(
        7.0, {"uid-a": llama}, {"10.0.1.2": llama}, {"10.0.1.2 8080 TCP": ("default/svc",)}
    )


@pytest.mark.parametrize(
    "text, address",
    [("127.0.0.1:9913", ("127.0.0.1", 9913)), ("[::1]:80", ("::1", 80)), (":9913", (None, 9913))],
)
def test_the_metrics_address(text: str, address: tuple[str | None, int]) -> None:
    assert listen_address(text) == address


@pytest.mark.parametrize("text", ["9913", "127.0.0.1", "127.0.0.1:", "127.0.0.1:99999", "::1:x"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(GenainetError):
        listen_address(text)


# --- OTLP -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def send(metrics: Metrics, port: int, *events: Any, capacity: int = 100) -> None:
    endpoint = Endpoint.parse(f"http://127.0.0.1:{port}")
    exporter = LogExporter(endpoint, metrics.registry, "node-1", interval_s=0.2, pause_s=0.01, capacity=capacity)
    logs = FlowLogs(metrics, exporter.put)
    for event in events:
        logs.feed(event)
    with exporter:
        exporter._stop.wait(1.0)


def test_flows_arrive_as_log_records_that_the_protocol_definition_accepts(
    metrics: Metrics, collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs_service = pytest.importorskip("opentelemetry.proto.collector.logs.v1.logs_service_pb2")
    from google.protobuf import json_format

    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20x,tenant=a")
    metrics.feed(sample("FORWARD"))
    send(metrics, collector.server_port, drop(3), exchange(DnsEnd.ANSWERED), report())
    ((path, headers, body),) = collector.requests
    assert (path, headers["Content-Type"], headers["authorization"]) == ("/v1/logs", "application/json", "Bearer x")
    request = json_format.Parse(body, logs_service.ExportLogsServiceRequest())
    (resource,) = request.resource_logs
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["k8s.node.name"] == "node-1"
    first, second = resource.scope_logs[0].log_records
    found = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in first.attributes}
    assert (first.event_name, first.severity_text) == ("genainet.drop", "WARN")
    assert (found["source.address"], found["destination.port"], found["genainet.packets"]) == ("10.0.0.1", 8080, 3)
    assert (found["genainet.drop.reason"], found["genainet.drop.hook"]) == ("NETFILTER_DROP", "FORWARD")
    assert found["genainet.destination.workload"] == "my-llama"
    found = {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in second.attributes}
    assert (second.event_name, found["genainet.dns.duration"]) == ("genainet.dns", pytest.approx(0.003))
    assert values(metrics, "genainet_otlp_sent_records_total") == {(): 2}


def test_what_a_collector_does_not_take_is_counted(metrics: Metrics, collector: Collector) -> None:
    partial = json.dumps({"partialSuccess": {"rejectedLogRecords": "1"}}).encode()
    collector.answers = [(503, b""), (200, partial)]
    send(metrics, collector.server_port, drop(1), drop(1), drop(1), drop(1), capacity=3)
    assert len(collector.requests) == 2
    assert values(metrics, "genainet_otlp_sent_records_total") == {(): 2}
    assert values(metrics, "genainet_otlp_lost_records_total") == {
        ("queue full",): 1,
        ("rejected",): 1,
        ("refused",): 0,
        ("unreachable",): 0,
    }


def test_a_request_that_is_refused_is_not_sent_again(metrics: Metrics, collector: Collector) -> None:
    collector.answers = [(400, b"no")]
    send(metrics, collector.server_port, drop(1))
    assert len(collector.requests) == 1
    assert values(metrics, "genainet_otlp_lost_records_total")["refused",] == 1


def test_a_collector_that_is_not_there_costs_records_and_no_time(metrics: Metrics, collector: Collector) -> None:
    send(metrics, 1, drop(1))
    assert values(metrics, "genainet_otlp_lost_records_total")["unreachable",] == 1


@pytest.mark.parametrize("url", ["collector:4318", "ftp://x", "http://", "http://x:port", "http://user:secret@x"])
def test_an_endpoint_that_is_no_url_of_a_collector_is_refused(url: str) -> None:
    with pytest.raises(InputError):
        Endpoint.parse(url)


def test_an_endpoint_has_the_protocols_port_and_path() -> None:
    assert Endpoint.parse("http://c.example") == Endpoint(False, "c.example", 4318, "/v1/logs")
    assert Endpoint.parse("https://c.example/base/") == Endpoint(True, "c.example", 443, "/base/v1/logs")
    assert headers_from("a=b%3D,broken, c = d") == {"a": "b=", "c": "d"}
