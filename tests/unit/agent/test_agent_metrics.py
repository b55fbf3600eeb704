"""Records in, exposition out: what is counted, whose it is, and that no client can make the agent's memory grow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent.always import metrics as metrics_code
from kubectl_genainet.agent.always.metrics import MAX_LABEL_SETS, Metrics
from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.agent.always.session import listen_address
from kubectl_genainet.context.identities import identities_of
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import (
    DnsEnd,
    DropCount,
    EstablishedCount,
    IcmpCount,
    LostEvents,
    Point,
    ResetCount,
    RetransmitCount,
)
from kubectl_genainet.model.identities import Identities, Owner
from kubectl_genainet.model.kube import KubeObject
from tests.unit.agent.measured import BYUID, FLOW, LLAMA, NODE, drop, exchange, report, sample, values


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


def test_the_agents_own_metrics_have_a_bound_and_so_have_samples_that_are_remembered(
    owners: Owners, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = Metrics(owners)
    for port in range(1, MAX_LABEL_SETS + 100):
        own.feed(drop(1, reason=f"REASON_{port}"))
    assert len(values(own, "genainet_drops_total")) <= 2 * MAX_LABEL_SETS + 1
    monkeypatch.setattr(metrics_code, "MAX_HOOKS", 5)
    for number in range(50):
        own.feed(sample("FORWARD", flow=msgspec.structs.replace(FLOW, sport=1000 + number)))
    assert len(own._hooks) <= 5


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
