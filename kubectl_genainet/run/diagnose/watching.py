"""What the three watches of `diagnose` see, kept as it comes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from kubectl_genainet.bundle import Header
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.model.events import ClusterChanged, Event, Progress, Tick
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.node import NodeReport, RulesetDump
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.run.view import Reporter

MAX_KEPT = 50_000  # paths and exchanges of one run


@dataclass(slots=True)
class Collected:
    """What the three watches saw. `failures` says why one of them saw nothing, by verb."""

    paths: list[tuple[float, PacketPath]] = field(default_factory=list)
    exchanges: list[DnsExchange] = field(default_factory=list)
    rows: list[DropRow] = field(default_factory=list)
    rows_at: dict[int, float] = field(default_factory=dict)
    reports: list[NodeReport | RulesetDump | ClusterChanged] = field(default_factory=list)
    trace: TraceSummary | None = None
    drops: DropSummary | None = None
    dns: DnsSummary | None = None
    failures: dict[str, str] = field(default_factory=dict)
    not_kept: int = 0
    gaps: list[Gap] = field(default_factory=list)


class WatchCollector:
    """The View of one watch: keeps what it is told. `stop` ends the watch as Ctrl-C does."""

    def __init__(self, collected: Collected, stop: threading.Event, reporter: Reporter) -> None:
        self.collected, self.reporter = collected, reporter
        self._stop, self._stopped = stop, False
        self._started: float | None = None
        self._replays = False
        self._attached_ns: dict[str, int] = {}  # by node, on its clock
        self._elapsed_ns = 0  # of a replay
        self.begun = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def warn(self, text: str) -> None:
        if text != "stopped":
            self.reporter.warn(text)

    def note(self, text: str) -> None: ...

    def replaying(self, header: Header) -> None:
        self._replays = True

    def event(self, event: Event) -> None:
        self.begun.set()
        if isinstance(event, Progress) and event.stage == "attached":
            self._started = min(self._started or time.monotonic(), time.monotonic())
            self._attached_ns.setdefault(event.node, event.t_ns)
        elif self._replays and (t_ns := getattr(event, "t_ns", 0)):
            self._elapsed_ns = max(self._elapsed_ns, t_ns - self._attached_ns.get(getattr(event, "node", ""), t_ns))

    def refresh(self) -> None:
        if self._stop.is_set() and not self._stopped:
            self._stopped = True
            raise KeyboardInterrupt

    @property
    def now_s(self) -> float:
        """Seconds since the first agent began to watch; in a replay, as far as its records have come."""
        if self._replays:
            return self._elapsed_ns / 1e9
        return time.monotonic() - self._started if self._started is not None else 0.0


class PathWatch(WatchCollector):
    def event(self, event: Event) -> None:
        super().event(event)
        if isinstance(event, Gap):
            self.collected.gaps.append(event)
        if isinstance(event, NodeReport | RulesetDump | ClusterChanged):
            self.collected.reports.append(event)

    def path(self, path: PacketPath) -> None:
        if len(self.collected.paths) < MAX_KEPT:
            self.collected.paths.append((self.now_s, path))
        else:
            self.collected.not_kept += 1

    def finish(self, summary: TraceSummary) -> None:
        self.collected.trace = summary


class DropsWatch(WatchCollector):
    source: Callable[[], list[DropRow]] = staticmethod(list)

    def __init__(self, collected: Collected, stop: threading.Event, reporter: Reporter) -> None:
        super().__init__(collected, stop, reporter)
        self._next = 0.0

    def refresh(self) -> None:
        super().refresh()
        self._note_when_due()

    def event(self, event: Event) -> None:
        super().event(event)
        if self._replays and isinstance(event, Tick):
            self._note_when_due()

    def _note_when_due(self) -> None:
        if self.now_s >= self._next:  # rows have no times of their own
            self._note_times()
            self._next = self.now_s + 1.0

    def _note_times(self) -> None:
        for row in self.source():
            self.collected.rows_at.setdefault(row.id, self.now_s)

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None:
        self._note_times()
        self.collected.rows, self.collected.drops = rows, summary


class DnsWatch(WatchCollector):
    source: DnsSummaryBuilder | None = None

    def exchange(self, exchange: DnsExchange) -> None:
        if len(self.collected.exchanges) < MAX_KEPT:
            self.collected.exchanges.append(exchange)
        else:
            self.collected.not_kept += 1

    def finish(self, summary: DnsSummary) -> None:
        self.collected.dns = summary
