"""Flows as log records to an OpenTelemetry Collector: OTLP/HTTP in its JSON encoding, from a thread of its own.

Source: https://opentelemetry.io/docs/specs/otlp (OTLP/HTTP, JSON Protobuf Encoding, retryable answers, partial
success). docs/adr/0043-metrics-on-the-agent.md says why no SDK does it. Flow logs
have no DNS names.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import queue
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import msgspec
from prometheus_client import CollectorRegistry, Counter

from kubectl_genainet import __version__
from kubectl_genainet.agent.always.metrics import Metrics
from kubectl_genainet.errors import DECODE_ERRORS, InputError
from kubectl_genainet.model.events import (
    DnsEnd,
    DnsTransaction,
    DropCount,
    EstablishedCount,
    Event,
    IcmpCount,
    Point,
    ResetCount,
    RetransmitCount,
    Tally,
)
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.untrusted_http import BROKEN, hung_up_after

QUEUE = 8192  # records
BATCH = 512
INTERVAL_S = 5.0
TIMEOUT_S = 10.0
ANSWER_S = 30.0  # for all of an answer, however it comes
ATTEMPTS = 4
PAUSE_S = (1.0, 30.0)  # before the second attempt, doubled each time; the most that Retry-After may ask for
MAX_ANSWER = 65536
_RETRYABLE = {429, 502, 503, 504}
_INFO, _WARN = (9, "INFO"), (13, "WARN")

OtlpRecord = dict[str, Any]
Scalar = str | int | float
Values = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class OtlpEndpoint:
    """Where to send: the base URL, as OTEL_EXPORTER_OTLP_ENDPOINT has it; /v1/logs or /v1/metrics is appended."""

    tls: bool
    host: str
    port: int
    path: str

    @classmethod
    def parse(cls, url: str) -> OtlpEndpoint:
        """Raises InputError for what is no http or https URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InputError(f"{url!r} is not a URL: {error}", field="--otlp-endpoint") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            raise InputError(
                f"{url!r} is not the URL of a collector",
                field="--otlp-endpoint",
                hint="For example http://10.0.0.5:4318.",
            )
        tls = parts.scheme == "https"
        return cls(tls, parts.hostname, port or (443 if tls else 4318), parts.path.rstrip("/"))

    def connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.tls else http.client.HTTPConnection
        return kind(self.host, self.port, timeout=TIMEOUT_S)

    def post(self, signal: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, float | None, bytes]:
        """Sends "logs" or "metrics": (status, seconds that Retry-After asks for, body). Raises those of BROKEN."""
        connection = self.connect()
        try:
            fields = {
                **headers,
                "Content-Type": "application/json",
                "User-Agent": f"kubectl-genainet/{__version__}",
            }
            connection.connect()
            with hung_up_after(connection.sock, ANSWER_S):
                connection.request("POST", f"{self.path}/v1/{signal}", body, fields)
                answer = connection.getresponse()
                after = answer.getheader("Retry-After", "")
                wait = float(after) if after.isascii() and after.isdigit() else None
                return answer.status, wait, answer.read(MAX_ANSWER)
        finally:
            connection.close()


def headers_from(text: str) -> dict[str, str]:
    """OTEL_EXPORTER_OTLP_HEADERS: "key=value,…", values percent-encoded (W3C Baggage)."""
    pairs = (part.partition("=") for part in text.split(",") if "=" in part)
    return {key.strip(): unquote(value.strip()) for key, _, value in pairs}


def attributes_of(values: Values) -> list[OtlpRecord]:
    """Key-value pairs as OTLP has them; 64-bit integers are decimal strings in its JSON, empty strings are left out."""
    return [{"key": key, "value": _value(value)} for key, value in values.items() if value != ""]


def resource_of(node: str) -> list[OtlpRecord]:
    """The attributes of the agent of a node."""
    return attributes_of({"service.name": "genainet-agent", "service.version": __version__, "k8s.node.name": node})


def _value(value: Scalar) -> OtlpRecord:
    match value:
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": value}


class FlowLogs:
    """Turns records of the session into log records, named by OpenTelemetry's conventions where it has a name."""

    def __init__(self, metrics: Metrics, put: Callable[[OtlpRecord], None]) -> None:
        self._metrics, self._owners, self._put = metrics, metrics.owners, put

    def feed(self, event: Event) -> None:
        """Takes in one record; what is no flow is passed over."""
        match event:
            case DropCount() if not self._metrics.is_background(event):
                extra: Values = {
                    "genainet.drop.reason": event.reason or "unknown",
                    "genainet.drop.function": event.location,
                    "genainet.drop.hook": self._metrics.hook_of(event),
                    "genainet.bytes": event.bytes,
                }
                self._tally("drop", event, _WARN, extra)
            case IcmpCount(reason=""):
                self._tally(
                    "icmp_error", event, _WARN, {"genainet.icmp.type": event.type, "genainet.icmp.code": event.code}
                )
            case ResetCount():
                extra = {
                    "genainet.direction": "sent" if event.sent else "received",
                    "genainet.reset.reason": event.reason,
                }
                self._tally("tcp_reset", event, _INFO, extra)
            case RetransmitCount():
                self._tally("tcp_retransmit", event, _INFO, {"genainet.tcp.state": event.state})
            case EstablishedCount():
                self._tally("connection", event, _INFO, {"genainet.service": self._owners.service(event.flow)})
            case DnsTransaction() if (
                event.query and event.query[0].point is Point.TX and event.end is not DnsEnd.STOPPED
            ):
                self._dns(event)
            case _:
                pass

    def _tally(self, name: str, event: Tally, level: tuple[int, str], extra: Values) -> None:
        self._record(name, event.t_ns, event.netns, event.flow, level, {"genainet.packets": event.packets, **extra})

    def _dns(self, event: DnsTransaction) -> None:
        extra: dict[str, Scalar] = {"genainet.dns.end": event.end.value}
        if event.end is DnsEnd.ANSWERED and event.response:
            extra["genainet.dns.duration"] = (event.response[-1].t_ns - event.query[0].t_ns) / 1e9
            extra["genainet.dns.rcode"] = event.answer.rcode if event.answer else "unknown"
        level = _INFO if event.end is DnsEnd.ANSWERED else _WARN
        self._record("dns", event.t_ns, event.query[0].netns, event.flows[0], level, extra)

    def _record(
        self,
        name: str,
        t_ns: int,
        netns: int,
        flow: FiveTuple,
        level: tuple[int, str],
        extra: Values,
    ) -> None:
        now = time.time_ns()
        source, destination = self._owners.at(flow.src), self._owners.at(flow.dst)
        concerned = self._owners.concerned(netns, flow)
        values: dict[str, Scalar] = {
            "source.address": flow.src,
            "source.port": flow.sport,
            "destination.address": flow.dst,
            "destination.port": flow.dport,
            "network.transport": flow.protocol.value.lower(),
            "genainet.source.namespace": source.namespace,
            "genainet.source.workload": source.workload,
            "genainet.destination.namespace": destination.namespace,
            "genainet.destination.workload": destination.workload,
            "genainet.namespace": concerned.namespace,
            "genainet.workload": concerned.workload,
            **extra,
        }
        self._put(
            {
                "timeUnixNano": str(now - (time.monotonic_ns() - t_ns)),
                "observedTimeUnixNano": str(now),
                "severityNumber": level[0],
                "severityText": level[1],
                "eventName": f"genainet.{name}",
                "body": {"stringValue": f"{name} {flow}"},
                "attributes": attributes_of(values),
            }
        )


class LogExporter:
    """A bounded queue and the thread that empties it. What finds no room, or does not arrive, is counted and dropped."""

    def __init__(
        self,
        endpoint: OtlpEndpoint,
        registry: CollectorRegistry,
        node: str = "",
        *,
        interval_s: float = INTERVAL_S,
        pause_s: float = PAUSE_S[0],
        capacity: int = QUEUE,
    ) -> None:
        self._endpoint, self._interval_s, self._pause_s = endpoint, interval_s, pause_s
        self._headers = headers_from(os.environ.get("OTEL_EXPORTER_OTLP_HEADERS", ""))
        self._resource = resource_of(node)
        self._queue: queue.Queue[OtlpRecord] = queue.Queue(capacity)
        self._stop = threading.Event()
        self._sent = Counter("genainet_otlp_sent_records", "Log records that the collector took.", registry=registry)
        self._lost = Counter(
            "genainet_otlp_lost_records",
            "Log records that the collector did not get, by why.",
            ["reason"],
            registry=registry,
        )
        for reason in ("queue full", "unreachable", "refused", "rejected"):
            self._lost.labels(reason)
        self._thread = threading.Thread(target=self._run, name="otlp", daemon=True)

    def __enter__(self) -> LogExporter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the thread. It sends what is queued, once; the process does not wait longer than for one attempt."""
        self._stop.set()
        self._thread.join(2.0)

    @property
    def room(self) -> int:
        """How many records find room now."""
        return self._queue.maxsize - self._queue.qsize()

    def put(self, record: OtlpRecord) -> None:
        """Queues a record; never waits."""
        try:
            self._queue.put_nowait(record)
        except queue.Full:
            self._lost.labels("queue full").inc()

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(0 if self._queue.qsize() >= BATCH else self._interval_s)
            while batch := self._batch():
                self._send(batch)

    def _batch(self) -> list[OtlpRecord]:
        records: list[OtlpRecord] = []
        with contextlib.suppress(queue.Empty):
            while len(records) < BATCH:
                records.append(self._queue.get_nowait())
        return records

    def _send(self, batch: list[OtlpRecord]) -> None:
        scope = {"scope": {"name": "kubectl-genainet", "version": __version__}, "logRecords": batch}
        body = msgspec.json.encode(
            {"resourceLogs": [{"resource": {"attributes": self._resource}, "scopeLogs": [scope]}]}
        )
        pause, why = self._pause_s, "unreachable"
        for attempt in range(ATTEMPTS):
            try:
                status, wait, answer = self._endpoint.post("logs", body, self._headers)
            except BROKEN:
                status, wait, answer, why = 0, None, b"", "unreachable"
            if 200 <= status < 300:
                rejected = min(_rejected(answer), len(batch))
                self._sent.inc(len(batch) - rejected)
                self._lost.labels("rejected").inc(rejected)
                return
            if status:
                why = "refused"
            if (status and status not in _RETRYABLE) or attempt + 1 == ATTEMPTS:
                break
            if self._stop.wait(min(wait if wait is not None else pause, PAUSE_S[1])):
                break
            pause *= 2
        self._lost.labels(why).inc(len(batch))


class _PartialSuccess(msgspec.Struct, rename="camel"):
    rejected_log_records: str | int = 0


class _Answer(msgspec.Struct, rename="camel"):
    partial_success: _PartialSuccess | None = None


def _rejected(answer: bytes) -> int:
    """How many records the collector says it did not take (ExportLogsServiceResponse)."""
    try:
        success = msgspec.json.decode(answer, type=_Answer).partial_success
        return max(0, int(success.rejected_log_records)) if success else 0
    except (ValueError, *DECODE_ERRORS):
        return 0
