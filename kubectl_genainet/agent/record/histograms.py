"""How long things took, counted: connections by their ends, DNS exchanges by client, name and outcome."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kubectl_genainet.model.history import ConnectionTimes, Histogram, histogram_index
from kubectl_genainet.model.packet import FiveTuple

if TYPE_CHECKING:
    from kubectl_genainet.agent.record.lives import Life

HistogramKey = tuple[str, str, int, str, int, str]  # client, address and port asked for, backend and its port, outcome
MAX_ROWS = 5_000  # of a bucket; what is beyond is counted under empty names


class HistogramBuilder:
    """A Histogram that is being counted."""

    def __init__(self) -> None:
        self._counts: list[int] = []

    def add(self, ns: int) -> None:
        self.add_at(histogram_index(max(ns, 0) // 1000))

    def add_at(self, index: int, count: int = 1) -> None:
        if index >= len(self._counts):
            self._counts += [0] * (index + 1 - len(self._counts))
        self._counts[index] += count

    @property
    def histogram(self) -> Histogram:
        return tuple(self._counts)


@dataclass(slots=True)
class _Row:
    followed: int = 0
    connect: HistogramBuilder = field(default_factory=HistogramBuilder)
    reply: HistogramBuilder = field(default_factory=HistogramBuilder)
    gaps: HistogramBuilder = field(default_factory=HistogramBuilder)


class Times:
    """Of the connections that ended since `drain` was called last."""

    def __init__(self) -> None:
        self._rows: dict[HistogramKey, _Row] = {}

    def take(self, life: Life, asked: FiveTuple, sent: FiveTuple) -> None:
        """A connection with the tuple that it had first, and last."""
        backend = ("", 0) if sent.destination == asked.destination else (sent.dst, sent.dport)
        key: HistogramKey = (asked.src, asked.dst, asked.dport, *backend, life.trouble)
        if key not in self._rows and len(self._rows) >= MAX_ROWS:
            key = ("", "", 0, "", 0, life.trouble)
        row = self._rows.setdefault(key, _Row())
        row.followed += 1
        if life.syn_ns and life.answer_ns:
            row.connect.add(life.answer_ns - life.syn_ns)
        if life.request_ns and life.reply_ns:
            row.reply.add(life.reply_ns - life.request_ns)
        # The same data was counted at each place that it passed: once is enough.
        counters = max(life.counters.values(), key=lambda c: (sum(c.gaps), c.data_bytes), default=None)
        for index, count in enumerate(counters.gaps if counters is not None else ()):
            if count:
                row.gaps.add_at(index, count)

    def drain(self) -> tuple[ConnectionTimes, ...]:
        rows, self._rows = self._rows, {}
        return tuple(
            ConnectionTimes(
                client=client,
                server=server,
                port=port,
                backend=backend,
                backend_port=backend_port,
                outcome=outcome,
                followed=row.followed,
                connect=row.connect.histogram,
                reply=row.reply.histogram,
                gaps=row.gaps.histogram,
            )
            for (client, server, port, backend, backend_port, outcome), row in rows.items()
        )
