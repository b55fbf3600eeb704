"""What the parts of a `diagnose` run see, kept as it comes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.model.events import Event
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import OpenStream, PacketPath
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.run.collect import Quiet
from kubectl_genainet.run.view import DiagnoseView

MAX_KEPT = 50_000  # paths and exchanges of one run


@dataclass(slots=True)
class Collected:
    """What one run saw. `failures` says why a part of it is missing, by command."""

    paths: list[PacketPath] = field(default_factory=list)
    exchanges: list[DnsExchange] = field(default_factory=list)
    rows: list[DropRow] = field(default_factory=list)
    trace: TraceSummary | None = None
    drops: DropSummary | None = None
    dns: DnsSummary | None = None
    failures: dict[str, str] = field(default_factory=dict)
    not_kept: int = 0
    gaps: list[Gap] = field(default_factory=list)
    failed_nodes: set[str] = field(default_factory=set)  # whose agent did not answer, or could not go on


class PartView(Quiet):
    """The View of one part: keeps what it is told, and passes on to the whole run's view what a person wants to know now."""

    def __init__(self, collected: Collected, view: DiagnoseView) -> None:
        super().__init__()
        self.collected, self.view = collected, view

    def warn(self, text: str) -> None:
        self.view.warn(text)

    def event(self, event: Event) -> None:
        """The whole run's view gets each record once."""


class PathPart(PartView):
    open_streams: Callable[[int], list[OpenStream]] = staticmethod(lambda _: [])

    def path(self, path: PacketPath) -> None:
        self.view.path(path)
        if len(self.collected.paths) < MAX_KEPT:
            self.collected.paths.append(path)
        else:
            self.collected.not_kept += 1

    def finish(self, summary: TraceSummary) -> None:
        self.collected.trace = summary


class DropsPart(PartView):
    source: Callable[[], list[DropRow]] = staticmethod(list)

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None:
        self.collected.rows, self.collected.drops = rows, summary


class DnsPart(PartView):
    source: DnsSummaryBuilder | None = None

    def exchange(self, exchange: DnsExchange) -> None:
        self.view.exchange(exchange)
        if len(self.collected.exchanges) < MAX_KEPT:
            self.collected.exchanges.append(exchange)
        else:
            self.collected.not_kept += 1

    def finish(self, summary: DnsSummary) -> None:
        self.collected.dns = summary
