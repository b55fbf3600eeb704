"""The cluster's objects as they were: at the start of a range, and as they changed in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from kubectl_genainet.history.blocks import BlockError
from kubectl_genainet.history.ranges import NodeRange
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event
from kubectl_genainet.model.history import Gap, ObjectChanged, ObjectKey, object_key
from kubectl_genainet.model.units import rfc3339

CHANGES_NS = 2_000_000_000  # changes of objects within so long come as one


class Objects:
    """The cluster's objects as they changed, from what their recorder kept."""

    def __init__(self) -> None:
        self._objects: dict[ObjectKey, dict[str, Any]] = {}
        self._base: ClusterChanged | None = None

    @property
    def known(self) -> bool:
        return self._base is not None

    def take(self, record: ClusterChanged | ObjectChanged) -> None:
        if isinstance(record, ClusterChanged):
            self._base = record
            self._objects = {object_key(raw): raw for raw in record.objects}
            return
        if record.after is None:
            self._objects.pop(record.key, None)
        else:
            self._objects[record.key] = record.after

    def now(self, taken_at: str) -> ClusterChanged | None:
        """All objects, None where nothing was recorded."""
        if self._base is None:
            return None
        return ClusterChanged(objects=list(self._objects.values()), left_out=self._base.left_out, taken_at=taken_at)


@dataclass(frozen=True, slots=True)
class ObjectsRange:
    """The objects at the start of the range, and as they changed in it. `snapshot` is None where none were recorded."""

    snapshot: ClusterSnapshot | None
    changes: tuple[tuple[int, Event], ...]
    gaps: tuple[Gap, ...]


def objects_range(given: NodeRange, since_ns: int, until_ns: int) -> ObjectsRange:
    """What the recorder of objects gave. Where it began to record within the range only, its first snapshot stands for what was
    before; a Gap says so."""
    records, gaps = _records(given, since_ns)
    if not given.complete:
        why = "the answer of the recorder of the cluster's objects was cut short"
        gaps.append(Gap(node="", since_ns=since_ns, until_ns=until_ns, why=why, partial=True))
    objects, first = Objects(), None
    changes: list[tuple[int, Event]] = []
    snapshots: list[tuple[int, Event]] = []
    for at_ns, record in records:
        if at_ns > until_ns and objects.known:
            continue  # its block reaches beyond the range; what came then must not be folded into a change before
        if first is None and at_ns >= since_ns:
            first = objects.now(rfc3339(since_ns))
        objects.take(record)
        if first is None:
            first = objects.now(rfc3339(at_ns)) if at_ns >= since_ns else None
            continue
        if isinstance(record, ObjectChanged):
            changes.append((at_ns, record))
        now = objects.now(rfc3339(at_ns))
        if now is None or (isinstance(record, ClusterChanged) and now.objects == first.objects):
            continue
        if snapshots and at_ns - snapshots[-1][0] < CHANGES_NS:
            snapshots[-1] = (snapshots[-1][0], now)
        else:
            snapshots.append((at_ns, now))
    first = first or objects.now(rfc3339(since_ns))
    return ObjectsRange(first.snapshot if first is not None else None, (*changes, *snapshots), tuple(gaps))


def _records(given: NodeRange, since_ns: int) -> tuple[list[tuple[int, ClusterChanged | ObjectChanged]], list[Gap]]:
    records: list[tuple[int, ClusterChanged | ObjectChanged]] = []
    gaps: list[Gap] = []
    for block in given.blocks:
        span = block.covers
        try:
            found = block.records()
        except BlockError as error:
            gaps.append(Gap(node="", since_ns=span.wall_from, until_ns=span.wall_until, why=str(error)))
            continue
        is_state = block.number == 0  # of the time before (history/read.py)
        for record in found:
            match record:
                case Gap():
                    gaps.append(msgspec.structs.replace(record, node=""))
                case ClusterChanged():
                    records.append((since_ns - 1 if is_state else span.wall_until, record))
                case ObjectChanged():
                    records.append((min(record.at_ns, since_ns - 1) if is_state else record.at_ns, record))
                case _:
                    pass
    return records, gaps
