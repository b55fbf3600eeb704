"""The bounded queue between the probes and a client: a slow client costs events, which are counted, never time."""

from __future__ import annotations

import os
import threading
from collections import deque

from kubectl_genainet import wire
from kubectl_genainet.model.events import AgentFailed, Bye, Event, Hello, LostEvents, Progress, Sampled, Tick
from kubectl_genainet.model.node import NodeReport, RulesetDump


def write_all(fd: int, data: bytes) -> None:
    """Writes all of `data` to a descriptor. Raises OSError.

    Not through sys.stdout.buffer: with PYTHONUNBUFFERED that is a raw file, which may write a part and not say so
    louder than by its result (a pipe does when its reader is slow).
    """
    unsent = memoryview(data)
    while unsent:
        unsent = unsent[os.write(fd, unsent) :]


# Records that say nothing of a packet: a node that sends only these has not seen any that are followed.
_WITHOUT_PACKETS = (Hello, Progress, Sampled, LostEvents, Tick, AgentFailed, Bye)


class Outbox:
    """Writes records to the descriptor `sink` from a thread of its own, at most `capacity` bytes behind. `sent` and
    `dropped` count events. With `node_when_seen`, what describes the node (its namespaces as first and as last read, its rules)
    is kept until the first record of a packet, which it precedes."""

    def __init__(self, sink: int, capacity: int, *, node_when_seen: bool = False) -> None:
        self._sink = sink
        self._kept: dict[str, NodeReport | RulesetDump] | None = {} if node_when_seen else None
        self._keeping = threading.Lock()
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
        if self._kept is not None and self._keeps(event):
            return True
        return self._queue(event, always, count)

    def _keeps(self, event: Event) -> bool:
        """Whether the record is kept. What has been kept is sent where it is of a packet."""
        with self._keeping:
            if self._kept is None or isinstance(event, _WITHOUT_PACKETS):
                return False
            if isinstance(event, NodeReport):
                self._kept["last report" if "first report" in self._kept else "first report"] = event
                return True
            if isinstance(event, RulesetDump):
                self._kept[event.source] = event
                return True
            for description in self._kept.values():
                self._queue(description, True, 1)
            self._kept = None
        return False

    def _queue(self, event: Event, always: bool, count: int) -> bool:
        line = wire.encode(event)
        with self._lock:
            if self._closing:
                return False  # of a thread that has not heard of the end
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

    def close(self, timeout_s: float = 1.0, last: Event | None = None) -> None:
        """Writes what is queued, and the last record, as far as the reader takes it within the time. Nothing comes after it."""
        with self._lock:
            if last is not None:
                self._waiting.append(wire.encode(last))
            self._closing = True
            self._lock.notify()
        self._thread.join(timeout_s)
