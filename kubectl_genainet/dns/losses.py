"""Queries whose answer may have been among the records that a node lost."""

from __future__ import annotations

from kubectl_genainet.context.loss_times import LossTimes
from kubectl_genainet.dns.join import EXPIRES_NS, Pending
from kubectl_genainet.model.events import LostEvents, Tick
from kubectl_genainet.model.finding import listed

_OTHER_PROBES = ("packet", "connections", "drops", "exact", "http")  # whose losses take nothing from an exchange


class DnsLosses:
    """Learns when nodes lost records of DNS."""

    def __init__(self) -> None:
        self._times = LossTimes()
        self._ticked: dict[str, int] = {}

    def lost(self, event: LostEvents) -> None:
        if event.probe not in _OTHER_PROBES:
            self._times.learn(event.node, self._ticked.get(event.node, 0))

    def tick(self, event: Tick) -> None:
        self._times.tick(event.node, event.t_ns)
        self._ticked[event.node] = event.t_ns

    def why_open(self, pending: Pending) -> str:
        """Why it is not known whether a query was answered, of which no answer was seen; "" where that tells. A drop that was
        seen is no absence."""
        if pending.drops:
            return ""
        first = {s.node: s.t_ns for s in sorted(pending.query, key=lambda s: -s.t_ns)}
        since = {node: first.get(node, pending.first_ns) for node in pending.nodes}
        lossy = sorted(n for n, begin in since.items() if self._times.during(n, begin, begin + EXPIRES_NS))
        return f"records of {listed(lossy)} were lost meanwhile: whether it was answered is not known" if lossy else ""
