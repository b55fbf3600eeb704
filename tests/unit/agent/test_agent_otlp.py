"""What the agent sends to an OpenTelemetry collector: log records of flows and metrics, as the protocol has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from kubectl_genainet.agent.always.metrics import DNS_BUCKETS, Metrics
from kubectl_genainet.agent.always.otlp import FlowLogs, LogExporter, OtlpEndpoint, headers_from
from kubectl_genainet.agent.always.otlp_metrics import MetricsExporter
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.events import (
    DnsEnd,
)
from tests.otlptest import Collector, collecting
from tests.unit.agent.measured import drop, exchange, report, sample, values


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as found:
        yield found


def send(metrics: Metrics, port: int, *events: Any, capacity: int = 100) -> None:
    endpoint = OtlpEndpoint.parse(f"http://127.0.0.1:{port}")
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


def test_metrics_arrive_as_the_protocol_definition_has_them(metrics: Metrics, collector: Collector) -> None:
    metrics_service = pytest.importorskip("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    from google.protobuf import json_format

    metrics.feed(sample("FORWARD"))
    for event in (drop(3), exchange(DnsEnd.ANSWERED), report()):
        metrics.feed(event)
    endpoint = OtlpEndpoint.parse(f"http://127.0.0.1:{collector.server_port}/base")
    asyncio.run(MetricsExporter(endpoint, metrics.registry, "node-1").send())
    ((path, _, body),) = collector.requests
    assert path == "/base/v1/metrics"
    request = json_format.Parse(body, metrics_service.ExportMetricsServiceRequest())
    (resource,) = request.resource_metrics
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["k8s.node.name"] == "node-1"
    sent = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    drops = sent["genainet.drops"].sum
    assert drops.is_monotonic and drops.aggregation_temporality == 2
    (point,) = drops.data_points
    assert point.as_double == 3 and 0 < point.start_time_unix_nano <= point.time_unix_nano
    labels = {a.key: a.value.string_value for a in point.attributes}
    assert (labels["k8s.namespace.name"], labels["genainet.reason"]) == ("default", "NETFILTER_DROP")
    assert sent["genainet.dropped"].unit == "By"
    durations = sent["genainet.dns_duration"]
    (histogram,) = durations.histogram.data_points
    assert durations.unit == "s" and histogram.count == 1 and histogram.sum == pytest.approx(0.003)
    assert tuple(histogram.explicit_bounds) == DNS_BUCKETS
    assert sum(histogram.bucket_counts) == 1 and len(histogram.bucket_counts) == len(DNS_BUCKETS) + 1
    assert histogram.bucket_counts[DNS_BUCKETS.index(0.005)] == 1
    assert sent["genainet.conntrack_entries"].gauge.data_points
    assert values(metrics, "genainet_otlp_metric_exports_total")["sent",] == 1


@pytest.mark.parametrize(("status", "outcome"), [(404, "refused"), (0, "unreachable")])
def test_metrics_that_do_not_arrive_are_counted(
    metrics: Metrics, collector: Collector, status: int, outcome: str
) -> None:
    collector.answers = [(status, b"no")]
    endpoint = OtlpEndpoint.parse(f"http://127.0.0.1:{collector.server_port if status else 1}")
    asyncio.run(MetricsExporter(endpoint, metrics.registry).send())
    assert values(metrics, "genainet_otlp_metric_exports_total")[outcome,] == 1


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
        OtlpEndpoint.parse(url)


def test_an_endpoint_has_the_protocols_port_and_path() -> None:
    assert OtlpEndpoint.parse("http://c.example") == OtlpEndpoint(False, "c.example", 4318, "")
    assert OtlpEndpoint.parse("https://c.example/base/") == OtlpEndpoint(True, "c.example", 443, "/base")
    assert headers_from("a=b%3D,broken, c = d") == {"a": "b=", "c": "d"}
