"""Views that pass everything on to another view, and write a page for the ticket at the end."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Generic, Self, TypeVar

from kubectl_genainet.bundle import Header
from kubectl_genainet.diagnose.timeline import TimelineBuilder
from kubectl_genainet.diagnose.watchtime import WatchTime
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.files import write_whole
from kubectl_genainet.model.events import Event
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import OpenStream, PacketPath
from kubectl_genainet.model.results.timeline import Timeline
from kubectl_genainet.model.results.trace import TraceSummary
from kubectl_genainet.render.diagnose import document as of_diagnosis
from kubectl_genainet.render.diagnose.text import ConclusionView
from kubectl_genainet.render.dns.document import dns_document
from kubectl_genainet.render.dns.views import DnsView
from kubectl_genainet.render.document.html import html
from kubectl_genainet.render.document.model import Document
from kubectl_genainet.render.drops.document import drops_document
from kubectl_genainet.render.drops.views import DropsView
from kubectl_genainet.render.live import LiveView, Screen
from kubectl_genainet.render.timeline.html import sections
from kubectl_genainet.render.trace import document as of_trace
from kubectl_genainet.render.trace.view import TraceView
from kubectl_genainet.trace.shown.groups import Grouping

V = TypeVar("V", bound=LiveView)


def write_report(file: str, document: Document, past: str = "") -> None:
    """Raises GenainetError where the file can't be written."""
    write_whole(file, html(document, datetime.now(UTC).isoformat(timespec="seconds"), past).encode(), "the report")


class Reporting(Generic[V]):
    """What all have in common: the other view, and when things happened.

    `finish` of each writes the page also where nobody reads what the view prints to its end (`| head`).
    """

    def __init__(self, view: V, file: str) -> None:
        self.view, self._file = view, file
        self.watch, self.timeline = WatchTime(), TimelineBuilder()

    def __enter__(self) -> Self:
        self.view.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.view.__exit__(kind, error, trace)

    def use(self, screen: Screen) -> None:
        self.view.use(screen)

    def warn(self, text: str) -> None:
        self.view.warn(text)

    def note(self, text: str) -> None:
        self.view.note(text)

    def shortened(self, seconds: float) -> None:
        self.view.shortened(seconds)

    def replaying(self, header: Header) -> None:
        self.view.replaying(header)

    def event(self, event: Event) -> None:
        self.watch.learn(event)
        self.view.event(event)

    def refresh(self) -> None:
        self.view.refresh()

    @property
    def seconds(self) -> float:
        return round(self.watch.seconds, 1)

    def write(self, document: Document, past: str = "") -> None:
        write_report(self._file, document, past)
        self.view.note(f"report written to {self._file}")


class TraceReporting(Reporting[TraceView]):
    def __init__(self, view: TraceView, file: str) -> None:
        super().__init__(view, file)
        self._grouping = Grouping()

    @property
    def open_streams(self) -> Callable[[int], list[OpenStream]]:
        return self.view.open_streams

    @open_streams.setter
    def open_streams(self, source: Callable[[int], list[OpenStream]]) -> None:
        self.view.open_streams = source

    def path(self, path: PacketPath) -> None:
        self._grouping.add(path)
        self.timeline.path(path)
        self.view.path(path)

    def finish(self, summary: TraceSummary) -> None:
        try:
            self.view.finish(summary)
        finally:
            grouping, timeline = self._grouping, self.timeline.build(self.watch)
            self.write(of_trace.document(grouping.groups, grouping.connections, summary, timeline, self.seconds))


class DropsReporting(Reporting[DropsView]):
    @property
    def source(self) -> Callable[[], list[DropRow]]:
        return self.view.source

    @source.setter
    def source(self, source: Callable[[], list[DropRow]]) -> None:
        self.view.source = source

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None:
        try:
            self.view.finish(rows, summary)
        finally:
            self.timeline.counted(summary.timeline)
            self.write(drops_document(rows, summary, self.timeline.build(self.watch), self.seconds))


class DnsReporting(Reporting[DnsView]):
    @property
    def source(self) -> DnsSummaryBuilder | None:
        return self.view.source

    @source.setter
    def source(self, source: DnsSummaryBuilder | None) -> None:
        self.view.source = source

    def exchange(self, exchange: DnsExchange) -> None:
        self.timeline.exchange(exchange)
        self.view.exchange(exchange)

    def finish(self, summary: DnsSummary) -> None:
        try:
            self.view.finish(summary)
        finally:
            self.write(dns_document(summary, self.timeline.build(self.watch), self.seconds))


class DiagnoseReporting(Reporting[ConclusionView]):
    """`past` gives the timeline of a recorded time, or None; it may raise GenainetError."""

    def __init__(self, view: ConclusionView, file: str, past: Callable[[], Timeline | None] = lambda: None) -> None:
        super().__init__(view, file)
        self._past = past

    def path(self, path: PacketPath) -> None:
        self.view.path(path)

    def exchange(self, exchange: DnsExchange) -> None:
        self.view.exchange(exchange)

    def finish(self, conclusion: Conclusion) -> None:
        try:
            self.view.finish(conclusion)
        finally:
            past = self._past_sections()
            self.write(of_diagnosis.document(conclusion), past)

    def _past_sections(self) -> str:
        try:
            timeline = self._past()
        except GenainetError as error:
            self.view.warn(f"the report has no timeline: {error.message}")
            return ""
        return sections(timeline) if timeline is not None else ""
