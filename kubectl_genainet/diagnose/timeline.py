"""What happened in which second of a watch: connections, drops, retransmits, DNS, and how long replies took."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime

from kubectl_genainet.diagnose.watchtime import WatchTime
from kubectl_genainet.model.results.diagnosis import Activity, CountsBySecond, HeatCell, HeatMap
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.model.results.path import PacketPath
from kubectl_genainet.trace.shown.groups import FAILED

LEAST_NS = 1_000_000  # everything faster is one row of a heat map
RETRANSMITS = "retransmitted segments"
_COUNTED = {"drop": "dropped packets", "reset": "resets", "retransmit": RETRANSMITS}


class TimelineBuilder:
    """Takes in connections, exchanges and counts as they come; seconds are those of 1970 until it is built."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[int]] = defaultdict(Counter)
        self._heat: dict[str, Counter[tuple[int, int]]] = defaultdict(Counter)

    def path(self, path: PacketPath) -> None:
        if not path.time:
            return
        second = int(datetime.fromisoformat(path.time).timestamp())
        self._counts["connections"][second] += 1
        if path.verdict in FAILED:
            self._counts["failed connections"][second] += 1
        if path.retransmits:
            self._counts[RETRANSMITS][second] += path.retransmits
        for name, took_ns in (("handshake", path.handshake_ns), ("response", path.response_ns)):
            if took_ns is not None:
                self._heat[name][second, bound(took_ns)] += 1

    def exchange(self, exchange: DnsExchange) -> None:
        if not exchange.time:
            return
        second = int(datetime.fromisoformat(exchange.time).timestamp())
        self._counts["DNS queries"][second] += 1
        if exchange.outcome is QueryOutcome.TIMEOUT:
            self._counts["DNS queries without an answer"][second] += 1
        if exchange.latency_ns is not None:
            self._heat["DNS"][second, bound(exchange.latency_ns)] += 1

    def counted(self, by_kind: Mapping[str, Mapping[int, int]]) -> None:
        """What `DropSummary.timeline` has: all packets, and so in place of what single connections had sent again."""
        for kind, by_second in by_kind.items():
            if kind in _COUNTED:
                self._counts[_COUNTED[kind]] = Counter(by_second)

    def build(self, watch: WatchTime) -> Activity | None:
        """None where it is not known when the watch began."""
        began = watch.began_s
        if began is None:
            return None
        first = int(began)
        latest = max((max(by_second) for by_second in self._counts.values() if by_second), default=first)
        return Activity(
            began=watch.began,
            seconds=max(int(watch.seconds), latest - first) + 1,
            series=tuple(CountsBySecond(name, _from(first, counts)) for name, counts in self._counts.items() if counts),
            heat=tuple(HeatMap(name, tuple(_cells(first, cells))) for name, cells in self._heat.items()),
        )


def bound(took_ns: int) -> int:
    """The row of a heat map: the smallest of 1 ms, 2 ms, 4 ms, … that is not less."""
    upto_ns = LEAST_NS
    while upto_ns < took_ns:
        upto_ns *= 2
    return upto_ns


def _from(first: int, by_second: Counter[int]) -> dict[int, int]:
    counts: Counter[int] = Counter()
    for second, number in sorted(by_second.items()):
        counts[max(0, second - first)] += number
    return dict(counts)


def _cells(first: int, cells: Counter[tuple[int, int]]) -> Iterator[HeatCell]:
    for (second, upto_ns), count in sorted(cells.items()):
        yield HeatCell(max(0, second - first), upto_ns, count)
