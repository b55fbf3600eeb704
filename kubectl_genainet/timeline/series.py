"""What was felt, in buckets of time: from the exact totals of a recorder where there are some, else from what was followed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from kubectl_genainet.model.dns import GOOD_RCODES
from kubectl_genainet.model.history import BUCKET_S, Bucket, Histogram, histogram_bounds
from kubectl_genainet.model.packet import ALL_KEPT, is_multicast
from kubectl_genainet.model.reasons import HARMLESS_REASONS, function_of, is_background
from kubectl_genainet.model.results.exchange import DnsExchange, QueryOutcome
from kubectl_genainet.model.results.path import ConnectionOutcome, PacketPath, Silence, WaitedFor
from kubectl_genainet.model.results.timeline import Series, SeriesName

BUCKET_NS = BUCKET_S * 1_000_000_000
STALL_S = 1.0  # a reply that says nothing for so long has stalled
SLOW_DNS_S = 1.0
_FAILED = {
    ConnectionOutcome.UNANSWERED,
    ConnectionOutcome.REFUSED,
    ConnectionOutcome.RESET,
    ConnectionOutcome.DROPPED,
}


def is_loss(reason: str, location: str, dst: str, *, opening: bool = False) -> bool:
    """Whether a drop lost something; the kernel frees packets in the normal course of a connection too."""
    harmless = is_background(reason, function_of(location), opening=opening, multicast=is_multicast(dst))
    return not harmless and reason not in HARMLESS_REASONS


@dataclass(slots=True)
class Buckets:
    """Buckets from `since_ns` on, wall-clock. A bucket is known once something says so."""

    since_ns: int
    until_ns: int
    known: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, since_ns: int, until_ns: int) -> Buckets:
        """Of a time, in the buckets that recorders count in: in others, what they counted would lie up to a bucket before what
        caused it."""
        return cls(since_ns // BUCKET_NS * BUCKET_NS, until_ns)

    @property
    def buckets(self) -> int:
        return max(1, -(-(self.until_ns - self.since_ns) // BUCKET_NS))

    def bucket_of(self, wall_ns: int) -> int | None:
        """The bucket of a time; None outside."""
        number = (wall_ns - self.since_ns) // BUCKET_NS
        return number if 0 <= number < self.buckets else None

    def cover(self, since_ns: int, until_ns: int) -> None:
        """A node was watched in that time."""
        first = max(0, (since_ns - self.since_ns) // BUCKET_NS)
        last = min(self.buckets - 1, (until_ns - 1 - self.since_ns) // BUCKET_NS)
        self.known.update(range(first, last + 1))


class SeriesBuilder:
    """Feed it buckets, paths and exchanges; `series` is what they amount to.

    `concerns` says whether a pair of addresses is about the target. Where a bucket of time has both totals and single records
    of a kind, the larger counts.
    """

    def __init__(self, grid: Buckets, concerns: Callable[[str, str], bool]) -> None:
        self._grid, self._concerns = grid, concerns
        self._totals: dict[SeriesName, dict[int, float]] = {name: {} for name in SeriesName}
        self._single: dict[SeriesName, dict[int, float]] = {name: {} for name in SeriesName}
        self._replies: dict[int, list[int]] = {}  # sums of histograms
        self._slowest: dict[int, list[float]] = {}
        self.has_totals = False
        self._followed = ALL_KEPT

    def bucket(self, bucket: Bucket) -> None:
        number = self._grid.bucket_of(bucket.since_ns)
        if number is None:
            return
        self.has_totals = True
        self._followed = min(self._followed, bucket.followed)
        self._grid.cover(bucket.since_ns, bucket.until_ns)
        for name in (SeriesName.FAILURES, SeriesName.DNS, SeriesName.STALLS, SeriesName.DROPS):
            self._totals[name].setdefault(number, 0.0)
        for sums in bucket.connections:
            if sums.side == "client" and self._concerns(sums.client, sums.server):
                self._add(
                    self._totals,
                    SeriesName.FAILURES,
                    number,
                    sums.refused + sums.timed_out + sums.given_up + sums.reset,
                )
        for times in bucket.times:
            if self._concerns(times.client, times.server):
                self._reply(number, times.reply or times.connect)
                self._add(self._totals, SeriesName.STALLS, number, _above(times.gaps, STALL_S))
        for drops in bucket.drops:
            if is_loss(drops.reason, drops.location, drops.dst) and self._concerns(drops.src, drops.dst):
                self._add(self._totals, SeriesName.DROPS, number, drops.packets)
        for dns in bucket.dns:
            if self._concerns(dns.client, ""):
                bad = 0 if dns.rcode in GOOD_RCODES else dns.count
                self._add(self._totals, SeriesName.DNS, number, bad or _above(dns.times, SLOW_DNS_S))

    def path(self, wall_ns: int, path: PacketPath) -> None:
        """A connection of the target."""
        number = self._grid.bucket_of(wall_ns)
        if number is None:
            return
        if path.outcome in _FAILED or path.drop is not None:
            self._add(self._single, SeriesName.FAILURES, number, 1)
        replied = path.response_ns if path.response_ns is not None else path.handshake_ns
        if replied is not None:
            self._slowest.setdefault(number, []).append(replied / 1e9)
        silence = path.stream.silence if path.stream is not None else None
        if silence is not None and silence.length_ns >= STALL_S * 1e9 and _is_stall(silence):
            stalled = self._grid.bucket_of(wall_ns + silence.at_ns)
            self._add(self._single, SeriesName.STALLS, number if stalled is None else stalled, 1)

    def drop(self, wall_ns: int, packets: int) -> None:
        number = self._grid.bucket_of(wall_ns)
        if number is not None:
            self._add(self._single, SeriesName.DROPS, number, packets)

    def exchange(self, wall_ns: int, exchange: DnsExchange) -> None:
        number = self._grid.bucket_of(wall_ns)
        if number is None:
            return
        slow = exchange.latency_ns is not None and exchange.latency_ns >= SLOW_DNS_S * 1e9
        failed = exchange.rcode is not None and exchange.rcode not in GOOD_RCODES
        if exchange.outcome is QueryOutcome.TIMEOUT or slow or failed:
            self._add(self._single, SeriesName.DNS, number, 1)

    @staticmethod
    def _add(kind: dict[SeriesName, dict[int, float]], name: SeriesName, number: int, amount: float) -> None:
        if amount:
            kind[name][number] = kind[name].get(number, 0.0) + amount

    def _reply(self, number: int, histogram: Histogram) -> None:
        sums = self._replies.setdefault(number, [])
        sums.extend([0] * (len(histogram) - len(sums)))
        for index, count in enumerate(histogram):
            sums[index] += count

    def series(self, unread: Iterable[SeriesName] = ()) -> tuple[Series, ...]:
        """All of them, but for those whose records were not read."""
        what = {
            SeriesName.FAILURES: ("connections", "refused, reset, unanswered or dropped"),
            SeriesName.LATENCY: ("s", "99th percentile of the time to the first reply"),
            SeriesName.DNS: ("queries", f"without an answer, failed, or slower than {SLOW_DNS_S:g} s"),
            SeriesName.STALLS: ("streams", f"replies that paused for {STALL_S:g} s or more"),
            SeriesName.DROPS: ("packets", "freed by the kernel with a reason"),
        }
        left_out = set(unread)
        return tuple(
            Series(name=name, unit=unit, what=text, values=self._values(name))
            for name, (unit, text) in what.items()
            if name not in left_out
        )

    @property
    def notes(self) -> tuple[str, ...]:
        """What the series are not of all connections for."""
        if self._followed >= ALL_KEPT:
            return ()
        share = f"{max(1, 100 * self._followed // ALL_KEPT)} %"
        return (f"latency and stalls are of the connections that were followed, at times {share}; failures are of all",)

    def _values(self, name: SeriesName) -> tuple[float | None, ...]:
        numbers = range(self._grid.buckets)
        if name is SeriesName.LATENCY:
            return tuple(self._latency(number) for number in numbers)
        totals, single = self._totals[name], self._single[name]
        return tuple(
            # The client of a dropped connection gives it up in a later bucket: its record is the earlier.
            max(totals.get(n, 0.0), single.get(n, 0.0)) if n in self._grid.known or n in single else None
            for n in numbers
        )

    def _latency(self, number: int) -> float | None:
        if any(self._replies.get(number, ())):
            return _quantile(self._replies[number], 0.99)
        times = sorted(self._slowest.get(number, ()))
        return round(times[min(len(times) - 1, int(len(times) * 0.99))], 6) if times else None


def _above(histogram: Histogram, seconds: float) -> int:
    return sum(count for index, count in enumerate(histogram) if histogram_bounds(index)[0] >= seconds)


def _quantile(histogram: Sequence[int], share: float) -> float:
    """The upper bound of the element in which the quantile lies."""
    wanted, passed = share * sum(histogram), 0
    for index, count in enumerate(histogram):
        passed += count
        if count and passed >= wanted:
            return histogram_bounds(index)[1]
    return 0.0


def _is_stall(silence: Silence) -> bool:
    """Not where the client's turn was, and not where the reply may have been complete."""
    if silence.waited_for is WaitedFor.UNKNOWN:
        return not silence.is_last
    return silence.waited_for is not WaitedFor.CLIENT
