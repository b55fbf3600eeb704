"""Long-lived connections bind their client to one backend: bytes show what the number of connections hides."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable

from kubectl_genainet.model.diagnoses.connections import PINNED_CONNECTION
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.path import PacketPath, Party, ServiceRef

SHARE = 0.8  # of all that was asked of a Service, by few connections
MOST_BACKENDS = 0.5  # of those that are ready, that these connections lead to
LEAST_BYTES = 10_000  # asked in all
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
    """The fewest connections that carry so many bytes of the requests."""
    carriers, carried = list[PacketPath](), 0
    for path in sorted(paths, key=lambda path: -asked[id(path)]):
        if carried >= wanted:
            break
        carriers.append(path)
        carried += asked[id(path)]
    return carriers


def _of_service(service: ServiceRef, paths: list[PacketPath], ready: int) -> Finding | None:
    asked = {id(path): path.stream.request_bytes for path in paths if path.stream is not None}
    total = sum(asked.values())
    if ready < 2 or len(paths) < 2 or total < LEAST_BYTES:
        return None
    carriers = _carriers(paths, asked, SHARE * total)
    lasted = [path.stream.lasted_ns for path in carriers if path.stream is not None]
    backends = dict.fromkeys(_name(path.backend) for path in carriers)
    if len(carriers) > ready or len(backends) > MOST_BACKENDS * ready or min(lasted) < LEAST_NS:
        return None
    by_backend: Counter[str] = Counter()
    for path in paths:
        by_backend[_name(path.backend)] += asked[id(path)]
    shares = ", ".join(f"{name} {count}" for name, count in by_backend.most_common(5))
    share = sum(asked[id(path)] for path in carriers) / total
    clients = ", ".join(dict.fromkeys(_name(path.flow.client) for path in carriers))
    which = "one connection carries" if len(carriers) == 1 else f"{len(carriers)} connections carry"
    bound = "is" if len(carriers) == 1 else "are"
    title = (
        f"{which} {share:.0%} of what svc/{service.name} is asked: {clients} {bound} bound to {', '.join(backends)}, and "
        f"{ready} backends are ready"
    )
    evidence = (
        Evidence(f"{len(paths)} connections; bytes asked by backend: {shares}", Certainty.OBSERVED),
        Evidence(
            f"{'it' if len(carriers) == 1 else 'each'} lasted {min(lasted) / 1e9:.1f} s{'' if len(carriers) == 1 else ' or more'}"
            "; HTTP/2 and gRPC keep a connection",
            Certainty.OBSERVED,
        ),
        Evidence(
            "how many requests, or HTTP/2 streams, that were is not known: sizes and times do not tell one from the next",
            Certainty.UNKNOWN,
        ),
    )
    ref = ObjectRef("Service", service.name, service.namespace)
    return PINNED_CONNECTION.finding(title, evidence, object=ref)
