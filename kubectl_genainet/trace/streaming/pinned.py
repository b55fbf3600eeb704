"""Long-lived connections bind their client to one backend: bytes show what the number of connections hides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from kubectl_genainet.model.diagnoses.connections import PINNED_CONNECTION
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.path import PacketPath, Party, ServiceRef

SHARE = 0.8  # of all that was asked of a Service, by one connection
LEAST_BYTES = 10_000  # asked in all
LEAST_NS = 2_000_000_000  # a connection that lasts


def _name(party: Party | None) -> str:
    if party is None:
        return "no backend"
    return party.pod or address_text(party.ip, party.port)


def pinned(paths: Iterable[PacketPath], backends: Callable[[ServiceRef], int]) -> list[Finding]:
    """Services of which one connection carries most of the requests, though several backends (`backends` says how many) are
    ready: HTTP/2 and gRPC keep a connection, and a Service chooses once for each."""
    by_service: dict[ServiceRef, list[PacketPath]] = defaultdict(list)
    for path in paths:
        if path.flow.service is not None and path.stream is not None and path.backend is not None:
            by_service[path.flow.service].append(path)
    return [f for service, own in by_service.items() if (f := _of_service(service, own, backends(service))) is not None]


def _of_service(service: ServiceRef, paths: list[PacketPath], ready: int) -> Finding | None:
    asked = {id(path): path.stream.request_bytes for path in paths if path.stream is not None}
    total = sum(asked.values())
    top = max(paths, key=lambda path: asked[id(path)])
    if ready < 2 or len(paths) < 2 or total < LEAST_BYTES or top.stream is None:
        return None
    if asked[id(top)] < SHARE * total or top.stream.lasted_ns < LEAST_NS:
        return None
    by_backend: Counter[str] = Counter()
    for path in paths:
        by_backend[_name(path.backend)] += asked[id(path)]
    shares = ", ".join(f"{name} {count}" for name, count in by_backend.most_common(5))
    title = (
        f"one connection carries {asked[id(top)] / total:.0%} of what svc/{service.name} is asked: {_name(top.flow.client)} is "
        f"bound to {_name(top.backend)}, and {ready} backends are ready"
    )
    evidence = (
        Evidence(f"{len(paths)} connections; bytes asked by backend: {shares}", Certainty.OBSERVED),
        Evidence(
            f"it lasted {top.stream.lasted_ns / 1e9:.1f} s; HTTP/2 and gRPC keep a connection", Certainty.OBSERVED
        ),
    )
    ref = ObjectRef("Service", service.name, service.namespace)
    return PINNED_CONNECTION.finding(title, evidence, object=ref)
