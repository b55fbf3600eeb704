"""What a run tells while it goes on. A View is a terminal, a file, or a program that collects results."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, TypeVar

from kubectl_genainet.bundle import Header
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.model.events import Event
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import OpenStream, PacketPath
from kubectl_genainet.model.results.trace import TraceSummary


class Reporter(Protocol):
    """What is told of a run whose result comes at the end, all at once."""

    def warn(self, text: str) -> None:
        """Something limits what can be said."""

    def say(self, text: str) -> None:
        """What is done now."""


class View(Protocol):
    """The part that all runs share. It is entered while records arrive."""

    def __enter__(self) -> Any: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def warn(self, text: str) -> None:
        """Something limits what can be said. May be called from another thread."""

    def note(self, text: str) -> None:
        """Progress."""

    def replaying(self, header: Header) -> None:
        """The records come from a bundle."""

    def shortened(self, seconds: float) -> None:
        """A live run watches for that long only, since its agents took long to start."""

    def event(self, event: Event) -> None:
        """Every record, before what is made of it."""

    def refresh(self) -> None:
        """Called a few times a second in a live run."""


class TraceView(View, Protocol):
    open_streams: Callable[[int], list[OpenStream]]  # set by the run: those that go on now, so many at most

    def path(self, path: PacketPath) -> None:
        """A path, as soon as nothing more can become of it."""

    def finish(self, summary: TraceSummary) -> None: ...


class DiagnoseView(View, Protocol):
    def path(self, path: PacketPath) -> None: ...

    def exchange(self, exchange: DnsExchange) -> None: ...

    def finish(self, conclusion: Conclusion) -> None: ...


class DropsView(View, Protocol):
    source: Callable[[], list[DropRow]]  # set by the run: the rows as they are now

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None: ...


class DnsView(View, Protocol):
    source: DnsSummaryBuilder | None  # set by the run: the statistics as they are now

    def exchange(self, exchange: DnsExchange) -> None:
        """A query and what became of it, as soon as nothing more can."""

    def finish(self, summary: DnsSummary) -> None: ...


V = TypeVar("V", bound=View, covariant=True)


class MakeView(Protocol[V]):
    """Makes a run's View, once it is known what the run looks at."""

    def __call__(self, target: str, *, live: bool) -> V: ...
