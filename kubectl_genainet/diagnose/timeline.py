"""What happened in which second of a watch: connections, drops, retransmits, DNS, and how long replies took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from kubectl_genainet.diagnose.watchtime import WatchTime
from kubectl_genainet.model.results.diagnosis import HeatCell, HeatMap, Series, Timeline
from kubectl_genainet.model.results.drops import DropSummary
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.model.results.path import PacketPath, Verdict
from kubectl_genainet.model.units import rfc3339

FAILED = frozenset({Verdict.DROPPED, Verdict.REJECTED, Verdict.UNANSWERED, Verdict.RESET})
LEAST_NS = 1_000_000  # everything faster is one row of a heat map
_COUNTED = {"drop": "dropped packets", "reset": "resets", "retransmit": "retransmitted segments"}


def timeline_of(
    watch: WatchTime,
    paths: Iterable[PacketPath] = (),
    exchanges: Iterable[DnsExchange] = (),
    drops: DropSummary | None = None,
) -> Timeline | None:
    """None where it is not known when the watch began."""
    if not watch.began:
        return None
    counts: dict[str, Counter[int]] = {}
    heat: dict[str, Counter[tuple[int, int]]] = {}
    for path in paths:
        second = watch.second(path.time)
        if second is None:
            continue
        counts.setdefault("connections", Counter())[second] += 1
        if path.verdict in FAILED:
            counts.setdefault("failed connections", Counter())[second] += 1
        if drops is None and path.retransmits:
            counts.setdefault("retransmitted segments", Counter())[second] += path.retransmits
        for name, took_ns in (("handshake", path.handshake_ns), ("response", path.response_ns)):
            if took_ns is not None:
                heat.setdefault(name, Counter())[second, bound(took_ns)] += 1
    for kind, by_second in drops.timeline.items() if drops is not None else ():
        for unix_second, number in by_second.items():
            second = watch.second(rfc3339(unix_second * 1_000_000_000))
            if kind in _COUNTED and second is not None:
                counts.setdefault(_COUNTED[kind], Counter())[second] += number
    for exchange in exchanges:
        second = watch.second(exchange.time)
        if second is None:
            continue
        counts.setdefault("DNS queries", Counter())[second] += 1
        if exchange.outcome is QueryOutcome.TIMEOUT:
            counts.setdefault("DNS queries without an answer", Counter())[second] += 1
        if exchange.latency_ns is not None:
            heat.setdefault("DNS", Counter())[second, bound(exchange.latency_ns)] += 1
    last = max([int(watch.seconds), *(second for by_second in counts.values() for second in by_second)])
    return Timeline(
        began=watch.began,
        seconds=last + 1,
        series=tuple(Series(name, dict(sorted(by_second.items()))) for name, by_second in counts.items()),
        heat=tuple(HeatMap(name, tuple(_cells(cells))) for name, cells in heat.items()),
    )


def bound(took_ns: int) -> int:
    """The row of a heat map: the smallest of 1 ms, 2 ms, 4 ms, … that is not less."""
    upto_ns = LEAST_NS
    while upto_ns < took_ns:
        upto_ns *= 2
    return upto_ns


def _cells(cells: Counter[tuple[int, int]]) -> Iterator[HeatCell]:
    for (second, upto_ns), count in sorted(cells.items()):
        yield HeatCell(second, upto_ns, count)
