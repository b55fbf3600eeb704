"""Totals of connections since a trace began, from what the kernel counted in each part of it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from kubectl_genainet.agent.record.recorder import Recorder
from kubectl_genainet.model.events import ConnectionCounts, Event
from kubectl_genainet.model.history import COUNTED, ConnectionEnds, ends_of

MOST_ENDS = 100_000  # pairs of ends; about 50 MB


class RunningTotals:
    """`lost`: records about ends that had no place any more."""

    def __init__(self, most: int = MOST_ENDS) -> None:
        self.lost = 0
        self._most = most
        self._sums: dict[ConnectionEnds, tuple[int, ...]] = {}

    def with_earlier(self, counts: ConnectionCounts) -> ConnectionCounts | None:
        """All that was counted of these ends; None where there is no place for them."""
        ends, numbers = ends_of(counts), tuple(getattr(counts, name) for name in COUNTED)
        before = self._sums.get(ends)
        if before is None and len(self._sums) >= self._most:
            self.lost += 1
            return None
        if before is not None:
            numbers = tuple(map(sum, zip(before, numbers, strict=True)))
        self._sums[ends] = numbers
        return msgspec.structs.replace(counts, **dict(zip(COUNTED, numbers, strict=True)))


class Counted:
    """Passes on what the kernel's tables held: a recorder keeps what is new, a client is sent what there was since the trace
    began."""

    def __init__(self, send: Callable[[Event], object], recorder: Recorder | None) -> None:
        self.totals = RunningTotals()
        self._send, self._recorder = send, recorder

    def take(self, event: Event) -> None:
        if not isinstance(event, ConnectionCounts):
            self._send(event)
        elif self._recorder is not None:
            self._recorder.counted(event)
        elif (total := self.totals.with_earlier(event)) is not None:
            self._send(total)
