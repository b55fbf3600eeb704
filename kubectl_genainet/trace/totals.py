"""Totals of all TCP connections, as the kernel counted them: by client workload, Service and backend."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.events import ConnectionCounts, Event, Hello
from kubectl_genainet.model.history import COUNTED, ConnectionEnds, ends_of
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.losses import Losses
from kubectl_genainet.model.results.path import Party, ServiceRef
from kubectl_genainet.model.results.trace import ConnectionTotals

PROBE = "connections"
MAX_ENDS = 100_000  # pairs of ends; the kernel's tables hold fewer
RowKey = tuple[str, str, ServiceRef | None, str | None]  # counted at, client, Service, backend
ServiceKey = tuple[str, str, int]  # namespace, name, port


class Totals:
    """Feed it every record. `complete`: all nodes count; else no totals are told."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, ConnectionEnds], ConnectionCounts] = {}
        self._nodes: set[str] = set()
        self._counting: set[str] = set()
        self._left_out: Counter[str] = Counter()  # by node: records about ends that have no place

    def event(self, event: Event) -> None:
        match event:
            case ConnectionCounts():
                key = (event.node, ends_of(event))
                if len(self._latest) < MAX_ENDS or key in self._latest:
                    self._latest[key] = event
                else:
                    self._left_out[event.node] += 1
            case Hello():
                self._nodes.add(event.node)
                if PROBE in event.probes:
                    self._counting.add(event.node)
            case _:
                pass

    @property
    def lost(self) -> tuple[Losses, ...]:
        return tuple(Losses(node, PROBE, "totals", count) for node, count in sorted(self._left_out.items()))

    def rows(self, identity: Identity) -> tuple[ConnectionTotals, ...] | None:
        """None where they are not known: recorded before agents counted."""
        if not self._nodes or self._counting != self._nodes:
            return None
        sums: dict[RowKey, list[int]] = defaultdict(lambda: [0] * len(COUNTED))
        asked = ServicesAsked(identity, self._latest.values())
        for counts in self._latest.values():
            numbers = sums[_row(counts, identity, asked)]
            for i, name in enumerate(COUNTED):
                numbers[i] += getattr(counts, name)
        rows = [
            ConnectionTotals(counted_at, client, service, backend, *numbers)
            for (counted_at, client, service, backend), numbers in sums.items()
        ]
        return tuple(sorted(rows, key=lambda r: (r.counted_at, r.client, str(r.service), r.backend or "")))


class ServicesAsked:
    """Which Services each client asked. A server's socket does not know by which one its client came: where a client asked for
    the endpoint by one Service only, and not by its own address, it was that one."""

    def __init__(self, identity: Identity, counted: Iterable[ConnectionCounts]) -> None:
        self._services: dict[str, dict[ServiceKey, ServiceRef]] = defaultdict(dict)
        self._directly: set[tuple[str, str, int]] = set()
        for counts in counted:
            if counts.side != "client":
                continue
            service = identity.service(_flow(counts))
            if service is None:
                self._directly.add((counts.client, counts.server, counts.port))
            else:
                self._services[counts.client][service.namespace, service.name, service.port] = service
        services = {key: service for own in self._services.values() for key, service in own.items()}
        self._endpoints = {key: identity.endpoints(service) for key, service in services.items()}

    def service(self, counts: ConnectionCounts) -> ServiceRef | None:
        """None where the client was not seen asking, or may have come by several ways."""
        end = (canonical_ip(counts.server), counts.port)
        services = [s for key, s in self._services[counts.client].items() if end in self._endpoints[key]]
        directly = (counts.client, counts.server, counts.port) in self._directly
        return services[0] if len(services) == 1 and not directly else None


def _flow(counts: ConnectionCounts) -> FiveTuple:
    return FiveTuple(counts.client, 0, counts.server, counts.port, Protocol.TCP)


def _row(counts: ConnectionCounts, identity: Identity, asked: ServicesAsked) -> RowKey:
    client = _workload(identity.party(counts.client, None))
    at_client = counts.side == "client"
    service = identity.service(_flow(counts)) if at_client else asked.service(counts)
    backend = None
    if counts.backend:
        backend = _name(identity.party(counts.backend, counts.backend_port))
    elif service is None or not at_client:
        backend = _name(identity.party(counts.server, counts.port))
    return counts.side, client, service, backend


def _name(party: Party) -> str:
    """ "namespace/pod", or the node, the address, whichever is known."""
    return f"{party.namespace}/{party.pod}" if party.pod else (party.node or party.ip)


def _workload(party: Party) -> str:
    """ "namespace/workload", or the pod, the node, the address, whichever is known."""
    if party.pod is None:
        return party.node or party.ip
    return f"{party.namespace}/{party.workload or party.pod}"
