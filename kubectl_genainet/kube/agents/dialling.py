"""How many connections are opened at a time."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

SLOW_S = 1.0


class DialPlaces:
    """`most` at a time, without those that take longer than SLOW_S: nodes that are gone hold up no other."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._changed = threading.Condition()
        self._begun: dict[object, float] = {}

    @contextlib.contextmanager
    def place(self) -> Iterator[None]:
        """Waits for a place, and has it."""
        mine = object()
        with self._changed:
            while (wait_s := self._wait_s()) > 0:
                self._changed.wait(wait_s)
            self._begun[mine] = time.monotonic()
        try:
            yield
        finally:
            with self._changed:
                del self._begun[mine]
                self._changed.notify()

    def _wait_s(self) -> float:
        """Until a place is free at the latest; 0: one is."""
        begun = sorted(self._begun.values(), reverse=True)[: self._most]
        return begun[-1] + SLOW_S - time.monotonic() if len(begun) == self._most else 0.0
