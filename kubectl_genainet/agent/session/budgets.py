"""What a session may take of the node, and what it took: its meter, and who keeps it within."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.session.meter import Meter
from kubectl_genainet.agent.session.sampler import RecordBudget, Sampler
from kubectl_genainet.model.events import Tick
from kubectl_genainet.wire import TraceRequest

LEAST_LEFT = 0.25  # of the budget, whatever the programs take: the tables must be read


class Budgets:
    """Of the probes of a session, from when they are attached."""

    def __init__(self, request: TraceRequest, probes: Sequence[LoadedProbe]) -> None:
        by_name = {probe.probe.name: probe for probe in probes}
        self._cpu_percent = request.cpu_percent
        self._meter = Meter(list(probes)) if probes else None
        self._sampler = self._records = None
        self._reading_s = defaultdict[str, float](float)  # by probe
        if self._meter is not None and "packet" in by_name:
            most = request.events_per_second
            self._sampler = Sampler(by_name["packet"], self._meter, request.cpu_percent, most)
        if self._meter is not None and "dns" in by_name:
            self._records = RecordBudget(by_name["dns"], self._meter, request.cpu_percent)

    @contextlib.contextmanager
    def reading(self, probe: str) -> Iterator[None]:
        """Measures what reading a probe's events takes."""
        began = time.thread_time()
        try:
            yield
        finally:
            self._reading_s[probe] += time.thread_time() - began

    def measure_programs(self) -> None:
        """From now on, until `measured_programs`."""
        if self._meter is not None:
            self._meter.kernel.begin()

    def measured_programs(self) -> None:
        if self._meter is not None:
            self._meter.kernel.end()

    def look(self) -> tuple[int, ...]:
        """Once a second. Returns how many connections were followed since the last look, of ALL_KEPT, one number after the
        other; none where it has not changed."""
        if self._records is not None:
            self._records.look(self._reading_s["dns"])
        return self._sampler.look(self._reading_s["packet"]) if self._sampler is not None else ()

    @property
    def left_percent(self) -> float:
        """Of a core, what the programs leave of the budget for reading the kernel's tables."""
        return left_percent(self._cpu_percent, self._meter.kernel.share if self._meter is not None else 0.0)

    def added_to(self, tick: Tick) -> Tick:
        """The tick with what was taken until now."""
        return self._meter.added_to(tick, self._cpu_percent) if self._meter is not None else tick


def left_percent(budget_percent: float, programs_share: float) -> float:
    """Of a core, where the programs take that share of it."""
    return max(LEAST_LEFT * budget_percent, budget_percent - 100 * programs_share)
