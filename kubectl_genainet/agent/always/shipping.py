"""What a recorder has written, sent on as log records: its segments are read as they grow, so neither waits for the other.

A record is sent at least once; a reader tells a second copy by its place (history/rows.py). How far it got is kept beside the
segments, so that an agent that starts again goes on there.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from kubectl_genainet.agent.always.otlp import BATCH, LogExporter, OtlpRecord, attributes_of
from kubectl_genainet.agent.always.owners import Owners
from kubectl_genainet.errors import DECODE_ERRORS
from kubectl_genainet.history import rows
from kubectl_genainet.history.blocks import Block, BlockError, Damage, scan
from kubectl_genainet.history.store import Segment, segments
from kubectl_genainet.model.identities import AMBIGUOUS, UNKNOWN
from kubectl_genainet.model.packet import FiveTuple

INTERVAL_S = 5.0
POSITION = "shipped.json"


class Sink(Protocol):
    """What takes log records."""

    @property
    def room(self) -> int: ...

    def put(self, record: OtlpRecord) -> None: ...


class OwnerNames:
    """Names for rows, as the agent knows them."""

    def __init__(self, owners: Owners) -> None:
        self._owners = owners

    def service(self, flow: FiveTuple) -> str:
        name = self._owners.service(flow)
        return "" if name in (UNKNOWN, AMBIGUOUS) else name

    def client(self, flow: FiveTuple) -> str:
        owner = self._owners.at(flow.src)
        return "" if owner.workload == UNKNOWN else f"{owner.namespace}/{owner.workload}"


class Shipped(msgspec.Struct, frozen=True, array_like=True):
    """Up to which byte of which segment all is sent."""

    segment: int = 0
    offset: int = 0


class Shipper:
    """Sends the blocks of a folder of segments, in order, as they are written. Use as a context manager."""

    def __init__(
        self, folder: Path, node: str, sink: Sink | LogExporter, names: rows.RowNames, *, interval_s: float = INTERVAL_S
    ) -> None:
        self.folder, self.node = folder, node
        self._sink, self._names, self._interval_s = sink, names, interval_s
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="shipper", daemon=True)
        self._at = self._read_position()

    def __enter__(self) -> Shipper:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            with contextlib.suppress(OSError):  # the recorder removes the oldest, a disk may be full: again next time
                self.ship()

    def ship(self) -> int:
        """Sends what is new; returns how many log records that were."""
        sent = 0
        for segment in segments(self.folder):
            if segment.number < self._at.segment:
                continue
            offset = self._at.offset if segment.number == self._at.segment else 0
            for block, end in _blocks(segment, offset):
                records = [log_record(row) for row in self._rows(block)]
                if not self._wait_for_room(len(records)):
                    return sent
                for record in records:
                    self._sink.put(record)
                sent += len(records)
                self._at = Shipped(segment.number, end)
        if sent:
            self._write_position()
        return sent

    def _rows(self, block: Block) -> Iterator[rows.RecordRow]:
        try:
            yield from rows.rows_of(self.node, block, self._names)
        except BlockError:  # a reader of the segments names it
            return

    def _wait_for_room(self, records: int) -> bool:
        """False where the process ends first. A block of more than fits is sent as far as it fits."""
        while self._sink.room < min(records, BATCH):
            if self._stop.wait(0.2):
                return False
        return True

    def _read_position(self) -> Shipped:
        try:
            return msgspec.json.decode((self.folder / POSITION).read_bytes(), type=Shipped)
        except (OSError, *DECODE_ERRORS):
            return Shipped()

    def _write_position(self) -> None:
        part = self.folder / f"{POSITION}.part"
        part.write_bytes(msgspec.json.encode(self._at))
        os.replace(part, self.folder / POSITION)


def _blocks(segment: Segment, offset: int) -> Iterator[tuple[Block, int]]:
    """(a whole block, where it ends) from an offset on; what is cut is being written."""
    with segment.path.open("rb") as file:
        file.seek(offset)
        data = file.read()
    position = offset
    for part in scan(data):
        position += part.length if isinstance(part, Damage) else len(part.data)
        if isinstance(part, Block):
            yield part, position


def log_record(row: rows.RecordRow) -> OtlpRecord:
    """A row as OTLP's JSON has a log record."""
    is_trouble = bool(row.outcome)
    return {
        "timeUnixNano": str(row.at_ns),
        "observedTimeUnixNano": str(time.time_ns()),
        "severityNumber": 13 if is_trouble else 9,
        "severityText": "WARN" if is_trouble else "INFO",
        "eventName": f"genainet.{row.kind}",
        "body": {"stringValue": row.body},
        "attributes": attributes_of(rows.attributes_of(row)),
    }
