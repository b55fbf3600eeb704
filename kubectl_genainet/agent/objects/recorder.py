"""Writes the cluster's objects and how they change, in the segments that the nodes' recorders use too."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kubectl_genainet.history.blocks import NO_FLAGS, Flag, Span
from kubectl_genainet.history.journal import Journal
from kubectl_genainet.history.store import RecordingLimits, SegmentWriter
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event
from kubectl_genainet.model.history import Gap, ObjectChanged, ObjectKey, object_key

FLUSH_S = 5.0
STEP_NS = 200_000_000  # a clock that moves so far at once was set


class ObjectsRecorder:
    """`see` takes the objects as they are, `unseen` why they are not known at the moment; `flush` writes what there is. May be
    called from several threads."""

    def __init__(
        self,
        folder: Path,
        bounds: RecordingLimits,
        *,
        wall: Callable[[], int] = time.time_ns,
        mono: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Raises OSError where the folder can't be made."""
        self._writer = SegmentWriter(folder, bounds)
        self._wall, self._mono = wall, mono
        self._lock = threading.Lock()
        self._journal = Journal(self._writer, boot_id=bytes(16))
        self._objects: dict[ObjectKey, dict[str, Any]] = {}
        self._snapshot: ClusterSnapshot | None = None
        self._pending: list[Event] = []
        self._unseen: tuple[int, str] | None = None  # since when, why
        self._from = 0
        self._mono_from = 0

    def see(self, snapshot: ClusterSnapshot) -> int:
        """Takes in the objects as they are now; returns how many have changed."""
        with self._lock:
            self._follow_clock()
            now = self._wall()
            self._seen_again(now)
            objects = {object_key(o.raw): o.raw for o in snapshot.objects}
            if self._snapshot is None:
                self._from, self._mono_from = now, self._mono()
                self._objects, self._snapshot = objects, snapshot
                return len(objects)
            before, self._objects, self._snapshot = self._objects, objects, snapshot
            changed = 0
            for key, raw in objects.items():
                was = before.get(key)
                if was is not raw and was != raw:
                    self._pending.append(_change(key, raw, was, now))
                    changed += 1
            for key in before.keys() - objects.keys():
                self._pending.append(_change(key, None, before[key], now))
                changed += 1
            return changed

    def unseen(self, why: str) -> None:
        """From now on the objects may change without being seen."""
        with self._lock:
            if self._unseen is None:
                self._unseen = (self._wall(), why)

    def _seen_again(self, now: int) -> None:
        if self._unseen is not None:
            since, why = self._unseen
            self._unseen = None
            self._pending.append(Gap(node="", since_ns=since, until_ns=max(now, since), why=why, partial=True))

    def flush(self) -> None:
        """Writes a block, once there are objects."""
        with self._lock:
            if self._snapshot is not None and not self._follow_clock():
                self._write(self._wall(), self._mono())

    def tick(self) -> None:
        """Once a second: a clock that was set is noticed before there is anything by the new one."""
        with self._lock:
            self._follow_clock()

    def _follow_clock(self) -> bool:
        """Whether the clock was set. What was seen until now is by the old one; what follows is in a segment of its own."""
        if self._snapshot is None:
            return False
        wall, mono = self._wall(), self._mono()
        expected = self._from + mono - self._mono_from
        if abs(wall - expected) <= STEP_NS:
            return False
        self._write(expected, mono)
        self._writer.end_segment()
        self._from = wall
        return True

    def _write(self, until: int, mono: int) -> None:
        whole = self._journal.begin(until)
        records, self._pending = self._pending, []
        if self._unseen is not None:
            since, why = self._unseen
            records.append(Gap(node="", since_ns=since, until_ns=until, why=why, partial=True))
        assert self._snapshot is not None
        if whole:
            # What changed within the block comes before the whole, which already has it.
            records.append(ClusterChanged.of(self._snapshot))
        flags = Flag.STATE if records else NO_FLAGS
        flags |= Flag.WHOLE_STATE if whole else NO_FLAGS
        covers = Span(self._from, max(until, self._from), self._mono_from, mono)
        self._journal.write(records, covers, flags, earliest_ns=None, addresses=())
        self._from, self._mono_from = covers.wall_until, mono

    def close(self) -> None:
        self.flush()
        self._writer.close()


def _change(key: ObjectKey, after: dict[str, Any] | None, before: dict[str, Any] | None, at_ns: int) -> ObjectChanged:
    known = after or before or {}
    return ObjectChanged(
        at_ns=at_ns,
        object_kind=key[0],
        namespace=key[1],
        name=key[2],
        api_version=str(known.get("apiVersion", "")),
        after=after,
        before_version=str(((before or {}).get("metadata") or {}).get("resourceVersion", "")),
    )
