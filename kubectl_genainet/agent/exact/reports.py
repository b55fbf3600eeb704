"""Reports the rules that the kernel names, for as long as a session runs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from kubectl_genainet.agent.exact.tracing import ExactTracer
from kubectl_genainet.model.exact import RuleHit
from kubectl_genainet.wire import FilterEntry

POLL_S = 0.2


class ExactReports:
    """Traces what `filters()` gives, and anew when that is another value. `runs` is set once tracing has begun, or has failed.

    `report` gets each hit, `removed` each thing that a killed session had left on the node, `lost` the datagrams lost so far.
    """

    def __init__(
        self,
        filters: Callable[[], Sequence[FilterEntry]],
        report: Callable[[RuleHit], object],
        removed: Callable[[str], object],
        lost: Callable[[int], object],
    ) -> None:
        self.runs = threading.Event()
        self._filters, self._report, self._removed, self._lost = filters, report, removed, lost

    def run(self, node: str, netns: str, session: str, stop: threading.Event) -> None:
        """Returns when `stop` is set; what was changed on the node is undone then. Raises GenainetError, OSError."""
        lost = 0
        try:
            while not stop.is_set():
                filters = self._filters()
                with ExactTracer(node, filters, netns=netns, session=session) as tracer:
                    for leftover in tracer.removed:
                        self._removed(leftover)
                    self.runs.set()
                    while not stop.is_set() and self._filters() is filters:
                        for hit in tracer.hits(POLL_S):
                            self._report(hit)
                    lost += tracer.lost
                    self._lost(lost)
        finally:
            self.runs.set()
