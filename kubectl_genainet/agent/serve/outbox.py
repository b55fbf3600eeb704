"""The bounded queue between the probes and a client: a slow client costs events, which are counted, never time."""

from __future__ import annotations

import os
import threading
from collections import deque

from kubectl_genainet import wire
from kubectl_genainet.model.events import Event


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data` to a descriptor. Raises OSError.

    Not through sys.stdout.buffer: with PYTHONUNBUFFERED that is a raw file, which may write a part and not say so
    louder than by its result (a pipe does when its reader is slow).
    """
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


class Outbox:
    """Writes records to the descriptor `sink` from a thread of its own, at most `capacity` bytes behind. `sent` and
    `dropped` count events."""

    def __init__(self, sink: int, capacity: int) -> None:
        self._sink = sink
        self._capacity = capacity
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Condition()
        self._closing = False
        self.sent = self.dropped = self.bytes = 0
        self.broken = threading.Event()  # the reader has gone
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    def put(self, event: Event, *, always: bool = False, count: int = 1) -> bool:
        """Queues a record; False where the queue is full. `always` is for the few records that must arrive; `count` is how
        many events the record holds."""
        line = wire.encode(event)
        with self._lock:
            if not always and self._size + len(line) > self._capacity:
                self.dropped += count
                return False
            self._waiting.append(line)
            self._size += len(line)
            self.sent += count
            self.bytes += len(line)
            self._lock.notify()
        return True

    def _run(self) -> None:
        while True:
            with self._lock:
                while not self._waiting and not self._closing:
                    self._lock.wait()
                lines = list(self._waiting)
                self._waiting.clear()
            if not lines:
                return
            try:
                write_all(self._sink, b"".join(lines))
            except OSError:
                self.broken.set()
                return
            with self._lock:
                self._size -= sum(map(len, lines))

    def close(self, timeout_s: float = 1.0) -> None:
        """Writes what is queued, as far as the reader takes it within the time."""
        with self._lock:
            self._closing = True
            self._lock.notify()
        self._thread.join(timeout_s)
