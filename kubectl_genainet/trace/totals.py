"""Totals of all TCP connections, as the kernel counted them: by client workload, Service and backend."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.events import ConnectionCounts, Event, Hello
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.results.path import Party, ServiceRef
from kubectl_genainet.model.results.trace import ConnectionTotals

PROBE = "connections"
COUNTS = ("opened", "established", "refused", "timed_out", "given_up", "ended", "reset", "sent", "received")
MAX_ENDS = 100_000  # pairs of ends; the kernel's tables hold fewer


class Totals:
    """Feed it every record. `complete`: all nodes count; else no totals are told."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str, str, str, int], ConnectionCounts] = {}
        self._nodes: set[str] = set()
        self._counting: set[str] = set()

    def event(self, event: Event) -> None:
        match event:
            case ConnectionCounts():
                key = (event.node, event.side, event.client, event.server, event.port)
                if len(self._latest) < MAX_ENDS or key in self._latest:
                    self._latest[key] = event
            case Hello():
                self._nodes.add(event.node)
                if PROBE in event.probes:
                    self._counting.add(event.node)
            case _:
                pass

    def rows(self, identity: Identity) -> tuple[ConnectionTotals, ...] | None:
        """None where they are not known: recorded before agents counted."""
        if not self._nodes or self._counting != self._nodes:
            return None
        sums: dict[tuple[str, str, ServiceRef | None, str | None], list[int]] = defaultdict(lambda: [0] * len(COUNTS))
        for counts in self._latest.values():
            numbers = sums[self._row(counts, identity)]
            for i, name in enumerate(COUNTS):
                numbers[i] += getattr(counts, name)
        rows = [
            ConnectionTotals(counted_at, client, service, backend, *numbers)
            for (counted_at, client, service, backend), numbers in sums.items()
        ]
        return tuple(sorted(rows, key=lambda r: (r.counted_at, r.client, str(r.service), r.backend or "")))

    @staticmethod
    def _row(counts: ConnectionCounts, identity: Identity) -> tuple[str, str, ServiceRef | None, str | None]:
        client = _workload(identity.party(counts.client, None))
        asked = FiveTuple(counts.client, 0, counts.server, counts.port, Protocol.TCP)
        service = identity.service(asked) if counts.side == "client" else None
        backend = None
        if service is None:
            party = identity.party(counts.server, counts.port)
            backend = f"{party.namespace}/{party.pod}" if party.pod else (party.node or party.ip)
        return counts.side, client, service, backend


def _workload(party: Party) -> str:
    """ "namespace/workload", or the pod, the node, the address, whichever is known."""
    if party.pod is None:
        return party.node or party.ip
    return f"{party.namespace}/{party.workload or party.pod}"
