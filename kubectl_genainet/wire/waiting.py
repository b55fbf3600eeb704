"""Records that wait for their reader: bounded by their number and by the bytes that they came in."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from kubectl_genainet.model.events import Event

_LOOKS_AGAIN_S = 0.2  # whether the writer has given up meanwhile


class WaitingRecords:
    """A queue of many writers and one reader. Where it is full a writer waits; what waits alone may have any size.

    Records that came in one line are handed over as one: taking a lock for each cost as much as all else.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._lines: deque[tuple[Sequence[Event] | None, int]] = deque()
        self._records = self._bytes = 0
        lock = threading.Lock()
        self._room, self._more = threading.Condition(lock), threading.Condition(lock)

    def put(self, records: Sequence[Event] | None, size: int, given_up: Callable[[], bool]) -> None:
        """None is a writer's end, and never waits. Records whose writer gives up are dropped."""
        with self._room:
            while records is not None and self._is_full(size):
                if given_up():
                    return
                self._room.wait(_LOOKS_AGAIN_S)
            self._lines.append((records, size))
            self._records += len(records or ())
            self._bytes += size
            self._more.notify()

    def _is_full(self, size: int) -> bool:
        return self._records >= self._most or (self._bytes > 0 and self._bytes + size > self._most_bytes)

    def get(self, timeout_s: float) -> Sequence[Event] | None:
        """The records of the next line, or a writer's end. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        with self._more:
            while not self._lines:
                if (remaining_s := deadline - time.monotonic()) <= 0:
                    raise TimeoutError
                self._more.wait(remaining_s)
            records, size = self._lines.popleft()
            self._records -= len(records or ())
            self._bytes -= size
            self._room.notify_all()
            return records
