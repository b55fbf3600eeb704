"""What is counted, as OTLP metrics to an OpenTelemetry Collector: the families that a scrape gives, under OpenTelemetry's names.

Source: https://opentelemetry.io/docs/specs/otlp (OTLP/HTTP, JSON Protobuf Encoding), and what the metrics data model says of
Prometheus: `genainet_dns_duration_seconds` is `genainet.dns_duration` in s, which a Collector's exporter turns back.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

import msgspec
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from kubectl_genainet import __version__
from kubectl_genainet.agent.always.otlp import OtlpEndpoint, OtlpRecord, attributes_of, headers_from, resource_of
from kubectl_genainet.untrusted_http import BROKEN

INTERVAL_S = 60.0  # OTEL_METRIC_EXPORT_INTERVAL's default
_CUMULATIVE = 2  # AGGREGATION_TEMPORALITY_CUMULATIVE
_UNITS = {"seconds": "s", "bytes": "By"}
_LABELS = {"namespace": "k8s.namespace.name"}  # of OpenTelemetry's own; the others are genainet.LABEL
_OF_BUCKETS = ("_bucket", "_count", "_sum", "_gsum", "_gcount")


def metrics_of(families: Iterable[Metric], started_ns: int, now_ns: int) -> list[OtlpRecord]:
    """The families as OTLP has them; those without a value yet are left out. Counters and histograms are totals since
    `started_ns`."""
    times = {"startTimeUnixNano": str(started_ns), "timeUnixNano": str(now_ns)}
    return [record for family in families if (record := _metric(family, times))]


def _metric(family: Metric, times: OtlpRecord) -> OtlpRecord | None:
    samples = [sample for sample in family.samples if not sample.name.endswith("_created")]
    if not samples:
        return None
    name, unit = _name(family.name)
    record: OtlpRecord = {"name": name, "description": family.documentation, "unit": unit}
    total = {"aggregationTemporality": _CUMULATIVE, "isMonotonic": True}
    if family.type == "counter":
        record["sum"] = {**total, "dataPoints": [_point(sample, times) for sample in samples]}
    elif family.type == "histogram":
        record["histogram"] = {
            "aggregationTemporality": _CUMULATIVE,
            "dataPoints": list(_histograms(samples, times)),
        }
    else:
        record["gauge"] = {
            "dataPoints": [_point(sample, {"timeUnixNano": times["timeUnixNano"]}) for sample in samples]
        }
    return record


def _name(name: str) -> tuple[str, str]:
    """OpenTelemetry's name and unit for a family's."""
    short_name = name.removeprefix("genainet_")
    word = short_name.rpartition("_")[2]
    unit = _UNITS.get(word, "1")
    short = short_name.removesuffix(f"_{word}") if word in _UNITS else short_name
    return f"genainet.{short}", unit


def _attributes(labels: dict[str, str]) -> list[OtlpRecord]:
    return attributes_of({_LABELS.get(label, f"genainet.{label}"): value for label, value in labels.items()})


def _point(sample: Sample, times: OtlpRecord) -> OtlpRecord:
    return {**times, "asDouble": float(sample.value), "attributes": _attributes(sample.labels)}


def _histograms(samples: Iterable[Sample], times: OtlpRecord) -> Iterator[OtlpRecord]:
    """A point for each set of labels: Prometheus' buckets count all below their bound, OTLP's those between two."""
    by_labels: dict[tuple[tuple[str, str], ...], dict[str, float]] = defaultdict(dict)
    for sample in samples:
        bound = sample.labels.get("le")
        labels = tuple((name, value) for name, value in sample.labels.items() if name != "le")
        kind = next(suffix for suffix in _OF_BUCKETS if sample.name.endswith(suffix))
        by_labels[labels][bound if bound is not None else kind] = float(sample.value)
    for labels, values in by_labels.items():
        bounds = sorted(float(bound) for bound in values if bound[0] != "_" and bound != "+Inf")
        below = [values[text] for text in sorted((t for t in values if t[0] != "_"), key=float)]
        counts = [int(now - before) for now, before in zip(below, [0.0, *below], strict=False)]
        yield {
            **times,
            "attributes": _attributes(dict(labels)),
            "count": str(int(values["_count"])),
            "sum": values["_sum"],
            "bucketCounts": [str(count) for count in counts],
            "explicitBounds": bounds,
        }


class MetricsExporter:
    """Sends what the registry has every minute. What does not arrive is not sent again: the next totals have it too."""

    def __init__(
        self, endpoint: OtlpEndpoint, registry: CollectorRegistry, node: str = "", *, interval_s: float = INTERVAL_S
    ) -> None:
        self._endpoint, self._registry, self._interval_s = endpoint, registry, interval_s
        self._headers = headers_from(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
        self._resource = {"attributes": resource_of(node)}
        self._started_ns = time.time_ns()
        self._exports = Counter(
            "genainet_otlp_metric_exports",
            "Attempts to send the metrics to the collector, by what became of them.",
            ["outcome"],
            registry=registry,
        )
        for outcome in ("sent", "refused", "unreachable"):
            self._exports.labels(outcome)

    async def run(self) -> None:
        """Until it is cancelled. The registry is read in the event loop, where it is changed; sending is done elsewhere."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.send()

    async def send(self) -> None:
        body = self._body()
        try:
            status, _, _ = await asyncio.to_thread(self._endpoint.post, "metrics", body, self._headers)
            outcome = "sent" if 200 <= status < 300 else "refused"
        except BROKEN:
            outcome = "unreachable"
        self._exports.labels(outcome).inc()

    def _body(self) -> bytes:
        metrics = metrics_of(self._registry.collect(), self._started_ns, time.time_ns())
        scope = {"scope": {"name": "kubectl-genainet", "version": __version__}, "metrics": metrics}
        return msgspec.json.encode({"resourceMetrics": [{"resource": self._resource, "scopeMetrics": [scope]}]})
