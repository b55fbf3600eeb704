"""Backends that end their streams in order, but early: what they send is a fraction of what the Service's other backends do."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from statistics import median

from kubectl_genainet.model.diagnoses.connections import EARLY_END
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef
from kubectl_genainet.model.results.path import PacketPath, Party, ServiceRef, Stream
from kubectl_genainet.trace.fate import seconds
from kubectl_genainet.trace.streaming.findings import name_of

FRACTION = 3  # bytes and time are so many times those of the others
LEAST_STREAMS = 5  # of the backend, and of the others: answers of a model differ in length by chance
LEAST_NS = 500_000_000  # that those of the others last: a stream, and no short answer


def _ended_by_server(stream: Stream) -> bool:
    """Whether it was seen whole: a reply in pieces, which the server ended in order."""
    in_order = (stream.ended, stream.ended_by) == ("fin", "server")
    return in_order and not stream.older and stream.gap_p50_ns is not None


def early_ends(paths: Iterable[PacketPath]) -> list[Finding]:
    """Backends of whose streams none has a third of the bytes that are usual with the others, and which last as much shorter."""
    by_service: dict[ServiceRef, dict[Party, list[Stream]]] = defaultdict(lambda: defaultdict(list))
    for path in paths:
        service, backend, stream = path.flow.service, path.backend, path.stream
        if service is not None and backend is not None and stream is not None and _ended_by_server(stream):
            by_service[service][backend].append(stream)
    return [finding for backends in by_service.values() for finding in _of_service(backends)]


def _of_service(backends: dict[Party, list[Stream]]) -> Iterator[Finding]:
    for backend, own in backends.items():
        others = [stream for other, theirs in backends.items() if other != backend for stream in theirs]
        if len(own) < LEAST_STREAMS or len(others) < LEAST_STREAMS:
            continue
        usual_bytes, usual_ns = median(s.reply_bytes for s in others), median(s.lasted_ns for s in others)
        most_bytes, own_ns = max(s.reply_bytes for s in own), median(s.lasted_ns for s in own)
        short = most_bytes * FRACTION <= usual_bytes and own_ns * FRACTION <= usual_ns
        if not short or usual_ns < LEAST_NS:
            continue
        title = (
            f"{name_of(backend)} ends its streams early: none of {len(own)} has more than {most_bytes} bytes, and they last "
            f"{seconds(int(own_ns))} (median); those of the other backends have {usual_bytes:.0f} and last "
            f"{seconds(int(usual_ns))}"
        )
        evidence = (
            Evidence("the server closed each of them in order", Certainty.OBSERVED),
            Evidence("whether it was asked for shorter ones: what is asked is not read", Certainty.UNKNOWN),
        )
        ref = ObjectRef("Pod", backend.pod, backend.namespace or "") if backend.pod else None
        yield EARLY_END.finding(title, evidence, object=ref)
