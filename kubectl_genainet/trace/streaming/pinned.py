"""Long-lived connections bind their client to one backend: requests, or bytes, show what the number of connections hides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from kubectl_genainet.model.diagnoses.connections import PINNED_CONNECTION
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.path import PacketPath, Party, ServiceRef
from kubectl_genainet.trace.streaming.http import requests_of

SHARE = 0.8  # of all that was asked of a Service, by few connections
MOST_BACKENDS = 0.5  # of those that are ready, that these connections lead to
LEAST_BYTES = 10_000  # asked in all
LEAST_REQUESTS = 50
LEAST_NS = 2_000_000_000  # a connection that lasts


def _name(party: Party | None) -> str:
    if party is None:
        return "no backend"
    return party.pod or address_text(party.ip, party.port)


def pinned(paths: Iterable[PacketPath], backends: Callable[[ServiceRef], int]) -> list[Finding]:
    """Services of which few long connections, no more than there are backends, carry most of the requests to half of the
    ready backends (`backends` says how many these are) or fewer: HTTP/2 and gRPC keep a connection, and a Service chooses once
    for each."""
    by_service: dict[ServiceRef, list[PacketPath]] = defaultdict(list)
    for path in paths:
        if path.flow.service is not None and path.stream is not None and path.backend is not None:
            by_service[path.flow.service].append(path)
    return [f for service, own in by_service.items() if (f := _of_service(service, own, backends(service))) is not None]


def _carriers(paths: list[PacketPath], asked: dict[int, int], wanted: float) -> list[PacketPath]:
    """The fewest connections that carry so much of what was asked."""
    carriers, carried = list[PacketPath](), 0
    for path in sorted(paths, key=lambda path: -asked[id(path)]):
        if carried >= wanted:
            break
        carriers.append(path)
        carried += asked[id(path)]
    return carriers


def _requests(paths: list[PacketPath]) -> dict[int, int] | None:
    """How many requests each connection carried; None where that is not known of all that asked something."""
    requests = {id(path): requests_of(path) for path in paths if path.stream is not None and path.stream.request_bytes}
    known = {key: count for key, count in requests.items() if count is not None}
    return {id(path): known.get(id(path), 0) for path in paths} if len(known) == len(requests) else None


def _of_service(service: ServiceRef, paths: list[PacketPath], ready: int) -> Finding | None:
    size = {id(path): path.stream.request_bytes for path in paths if path.stream is not None}
    requests = _requests(paths)
    asked, least = (size, LEAST_BYTES) if requests is None else (requests, LEAST_REQUESTS)
    total = sum(asked.values())
    if ready < 2 or len(paths) < 2 or total < least:
        return None
    carriers = _carriers(paths, asked, SHARE * total)
    lasted = [path.stream.lasted_ns for path in carriers if path.stream is not None]
    backends = dict.fromkeys(_name(path.backend) for path in carriers)
    if len(carriers) > ready or len(backends) > MOST_BACKENDS * ready or min(lasted) < LEAST_NS:
        return None
    share = sum(asked[id(path)] for path in carriers) / total
    clients = ", ".join(dict.fromkeys(_name(path.flow.client) for path in carriers))
    which = "one connection carries" if len(carriers) == 1 else f"{len(carriers)} connections carry"
    bound = "is" if len(carriers) == 1 else "are"
    what = f"what svc/{service.name} is asked" if requests is None else f"the requests to svc/{service.name}"
    title = f"{which} {share:.0%} of {what}: {clients} {bound} bound to {', '.join(backends)}, and {ready} backends are ready"
    evidence = (
        Evidence(f"{len(paths)} connections; bytes asked by backend: {_by_backend(paths, size)}", Certainty.OBSERVED),
        _in_requests(paths, requests),
        Evidence(
            f"{'it' if len(carriers) == 1 else 'each'} lasted {min(lasted) / 1e9:.1f} s{'' if len(carriers) == 1 else ' or more'}"
            "; HTTP/2 and gRPC keep a connection",
            Certainty.OBSERVED,
        ),
    )
    ref = ObjectRef("Service", service.name, service.namespace)
    return PINNED_CONNECTION.finding(title, evidence, object=ref)


def _by_backend(paths: list[PacketPath], asked: dict[int, int]) -> str:
    by_backend: Counter[str] = Counter()
    for path in paths:
        by_backend[_name(path.backend)] += asked[id(path)]
    return ", ".join(f"{name} {count}" for name, count in by_backend.most_common(5))


def _in_requests(paths: list[PacketPath], requests: dict[int, int] | None) -> Evidence:
    """How many requests each backend was asked."""
    if requests is None:
        return Evidence(
            "how many requests, or HTTP/2 streams, that were is not known (TLS, or without --http): sizes and times do not tell "
            "one from the next",
            Certainty.UNKNOWN,
        )
    streams = [path.http2 for path in paths if path.http2 is not None]
    what = "requests (of HTTP/2: streams)" if len(streams) < len(paths) else "HTTP/2 streams"
    by_number = any(count.certainty is Certainty.DERIVED for count in streams)
    return Evidence(
        f"{what if streams else 'requests'} by backend: {_by_backend(paths, requests)}",
        Certainty.DERIVED if by_number else Certainty.OBSERVED,
    )
