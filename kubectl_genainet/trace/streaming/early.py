"""Backends that end their streams in order, but early: what they send is a fraction of what the Service's other backends do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

from kubectl_genainet.model.diagnoses.connections import EARLY_END
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef
from kubectl_genainet.model.results.path import PacketPath, Party, ServiceRef, Stream
from kubectl_genainet.trace.fate import seconds
from kubectl_genainet.trace.streaming.findings import name_of

FRACTION = 3  # bytes and time are so many times those of the others
LEAST_STREAMS = 3  # of the backend, and of the others
LEAST_NS = 500_000_000  # that those of the others last: a stream, and no short answer


@dataclass(frozen=True, slots=True)
class _Typical:
    """The medians of several streams."""

    streams: int
    size: float
    lasted_ns: float

    def __str__(self) -> str:
        return f"{self.size:.0f} bytes in {seconds(int(self.lasted_ns))} (median of {self.streams})"


def _typical(streams: list[Stream]) -> _Typical | None:
    if len(streams) < LEAST_STREAMS:
        return None
    return _Typical(len(streams), median(s.reply_bytes for s in streams), median(s.lasted_ns for s in streams))


def _ended_by_server(stream: Stream) -> bool:
    """Whether it was seen whole: a reply in pieces, which the server ended in order."""
    in_order = (stream.ended, stream.ended_by) == ("fin", "server")
    return in_order and not stream.older and stream.gap_p50_ns is not None


def early_ends(paths: Iterable[PacketPath]) -> list[Finding]:
    """Backends whose streams are a third of the others', or less, in bytes and in time."""
    by_service: dict[ServiceRef, dict[Party, list[Stream]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        service, backend, stream = path.flow.service, path.backend, path.stream
        if service is not None and backend is not None and stream is not None and _ended_by_server(stream):
            by_service[service][backend].append(stream)
    return [finding for backends in by_service.values() for finding in _of_service(backends)]


def _of_service(backends: dict[Party, list[Stream]]) -> Iterable[Finding]:
    for backend, streams in backends.items():
        own = _typical(streams)
        others = _typical([s for other, theirs in backends.items() if other != backend for s in theirs])
        if own is None or others is None or others.lasted_ns < LEAST_NS:
            continue
        if own.size * FRACTION > others.size or own.lasted_ns * FRACTION > others.lasted_ns:
            continue
        title = f"{name_of(backend)} ends its streams early: {own}, those of the other backends {others}"
        evidence = (
            Evidence("the server closed them in order", Certainty.OBSERVED),
            Evidence("that it was not asked for shorter ones: what is asked is not read", Certainty.UNKNOWN),
        )
        ref = ObjectRef("Pod", backend.pod, backend.namespace or "") if backend.pod else None
        yield EARLY_END.finding(title, evidence, object=ref)
