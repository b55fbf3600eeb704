"""The cluster's objects as they were: at the start of a range, and as they changed in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kubectl_genainet.history.blocks import BlockError
from kubectl_genainet.history.ranges import NodeRange
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event
from kubectl_genainet.model.history import Gap, ObjectChanged, ObjectKey, object_key
from kubectl_genainet.model.units import rfc3339

CHANGES_NS = 2_000_000_000  # changes of objects within so long come as one
BEFORE_NS = 20_000_000_000  # nodes' rules are read every 15 s: so long may they be older than a change
NONE_RECORDED = "none were recorded for that time"
_SERVICE_NAME = "kubernetes.io/service-name"


class Objects:
    """The cluster's objects as they changed, from what their recorder kept."""

    def __init__(self) -> None:
        self._objects: dict[ObjectKey, dict[str, Any]] = {}
        self._base: ClusterChanged | None = None

    @property
    def known(self) -> bool:
        return self._base is not None

    def service_of(self, change: ObjectChanged) -> str:
        """ "namespace/name" of the Service whose endpoints the change may concern, before it is taken; "" for none."""
        if change.object_kind == "Service":
            return f"{change.namespace}/{change.name}"
        if change.object_kind != "EndpointSlice":
            return ""
        raw = change.after or self._objects.get(change.key) or {}
        service = ((raw.get("metadata") or {}).get("labels") or {}).get(_SERVICE_NAME, "")
        return f"{change.namespace}/{service}" if service else ""

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
    """The objects at the start of the range, and as they changed in it. `snapshot` is None where they are not known; `why` then.
    `just_changed` has the Services ("namespace/name") whose endpoints changed in the last BEFORE_NS before the range, and when.
    """

    snapshot: ClusterSnapshot | None
    changes: tuple[tuple[int, Event], ...]
    gaps: tuple[Gap, ...]
    just_changed: Mapping[str, int] = field(default_factory=dict)
    why: str = NONE_RECORDED


def objects_range(node_range: NodeRange, since_ns: int, until_ns: int) -> ObjectsRange:
    """What the recorder of objects gave for the range, and for BEFORE_NS before it. Where it began to record within the range
    only, its first snapshot stands for what was before; a Gap says so."""
    records, gaps = _records(node_range, since_ns)
    if not node_range.complete:
        why = "the answer of the recorder of the cluster's objects was cut short"
        gaps.append(Gap(node="", since_ns=since_ns, until_ns=until_ns, why=why, partial=True))
    objects, first = Objects(), None
    just_changed: dict[str, int] = {}
    changes: list[tuple[int, Event]] = []
    snapshots: list[tuple[int, Event]] = []
    for at_ns, record in records:
        if at_ns > until_ns and objects.known:
            continue  # its block reaches beyond the range; what came then must not be folded into a change before
        if first is None and at_ns >= since_ns:
            first = objects.now(rfc3339(since_ns))
        if isinstance(record, ObjectChanged) and since_ns - BEFORE_NS <= at_ns < since_ns:
            just_changed[objects.service_of(record)] = at_ns
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
    just_changed.pop("", None)
    own_gaps = tuple(
        msgspec.structs.replace(
            gap, since_ns=max(gap.since_ns, since_ns)
        )  # it was asked for BEFORE_NS before the range too
        for gap in gaps
        if max(gap.until_ns - 1, gap.since_ns) >= since_ns  # some lie at one moment
    )
    return ObjectsRange(first.snapshot if first is not None else None, (*changes, *snapshots), own_gaps, just_changed)


def _records(
    node_range: NodeRange, since_ns: int
) -> tuple[list[tuple[int, ClusterChanged | ObjectChanged]], list[Gap]]:
    records: list[tuple[int, ClusterChanged | ObjectChanged]] = []
    gaps: list[Gap] = []
    for block in node_range.blocks:
        span = block.covers
        try:
            readable = block.records()
        except BlockError as error:
            gaps.append(Gap(node="", since_ns=span.wall_from, until_ns=span.wall_until, why=str(error)))
            continue
        is_state = block.number == 0  # of the time before (history/read.py)
        before_ns = min(since_ns, span.wall_from) - 1
        for record in readable:
            match record:
                case Gap():
                    gaps.append(msgspec.structs.replace(record, node=""))
                case ClusterChanged():
                    records.append((before_ns if is_state else span.wall_until, record))
                case ObjectChanged():
                    records.append((min(record.at_ns, before_ns) if is_state else record.at_ns, record))
                case _:
                    pass
    return records, gaps
