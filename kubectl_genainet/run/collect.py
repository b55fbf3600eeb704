"""Views that keep what they are told, for programs."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from kubectl_genainet.bundle import Header
from kubectl_genainet.context.account import warning_of
from kubectl_genainet.dns.summary import DnsSummaryBuilder
from kubectl_genainet.model.events import Event
from kubectl_genainet.model.results.diagnosis import Conclusion
from kubectl_genainet.model.results.dns import DnsSummary
from kubectl_genainet.model.results.drops import DropRow, DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange
from kubectl_genainet.model.results.path import OpenStream, PacketPath
from kubectl_genainet.model.results.trace import TraceSummary

S = TypeVar("S")


class Quiet:
    """A View that keeps the warnings, and shows nothing."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def note(self, text: str) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def shortened(self, seconds: float) -> None:
        pass

    def replaying(self, header: Header) -> None:
        pass

    def event(self, event: Event) -> None:
        if warning := warning_of(event):
            self.warn(warning)

    def refresh(self) -> None:
        pass


class _Collector(Quiet, Generic[S]):
    def __init__(self) -> None:
        super().__init__()
        self._summary: S | None = None

    def for_target(self, target: str, *, live: bool) -> Self:
        return self

    @property
    def summary(self) -> S:
        """Of a run that is over."""
        assert self._summary is not None, "the run is not over"
        return self._summary


class TraceCollector(_Collector[TraceSummary]):
    def __init__(self) -> None:
        super().__init__()
        self.open_streams: Callable[[int], list[OpenStream]] = lambda _: []
        self.paths: list[PacketPath] = []

    def path(self, path: PacketPath) -> None:
        self.paths.append(path)

    def finish(self, summary: TraceSummary) -> None:
        self._summary = summary


class DropsCollector(_Collector[DropSummary]):
    def __init__(self) -> None:
        super().__init__()
        self.source: Callable[[], list[DropRow]] = list
        self.rows: list[DropRow] = []

    def finish(self, rows: list[DropRow], summary: DropSummary) -> None:
        self.rows, self._summary = rows, summary


class DnsCollector(_Collector[DnsSummary]):
    def __init__(self) -> None:
        super().__init__()
        self.source: DnsSummaryBuilder | None = None
        self.exchanges: list[DnsExchange] = []

    def exchange(self, exchange: DnsExchange) -> None:
        self.exchanges.append(exchange)

    def finish(self, summary: DnsSummary) -> None:
        self._summary = summary


class DiagnoseCollector(Quiet):
    def __init__(self) -> None:
        super().__init__()
        self._conclusion: Conclusion | None = None

    def for_target(self, target: str, *, live: bool) -> Self:
        return self

    @property
    def conclusion(self) -> Conclusion:
        """Of a run that is over."""
        assert self._conclusion is not None, "the run is not over"
        return self._conclusion

    def path(self, path: PacketPath) -> None:
        pass

    def exchange(self, exchange: DnsExchange) -> None:
        pass

    def finish(self, conclusion: Conclusion) -> None:
        self._conclusion = conclusion


class DoctorCollector:
    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    def say(self, text: str) -> None:
        pass

    def advance(self, done: int, total: int, what: str) -> None:
        pass
