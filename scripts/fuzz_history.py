"""Targets of scripts/fuzz.py for recordings: segments, answers of /v1/history, rows of a table, timelines.

A block's checksum refuses nearly all that is damaged: so most inputs are what a block is made of, and the block is whole.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from kubectl_genainet import wire
from kubectl_genainet.agent.serve.history import checked_history
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import Bundle, new_header, read_bundle
from kubectl_genainet.history.blocks import HEADER, MAGIC, VERSION, Flag, leading
from kubectl_genainet.history.merge import merged
from kubectl_genainet.history.names import SnapshotNames
from kubectl_genainet.history.objects import objects_range
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.rows import Cover, rows_of_folder
from kubectl_genainet.history.select import RecordPart, Selection
from kubectl_genainet.model.events import ClusterChanged, Event, Hello, Progress, Sightings
from kubectl_genainet.model.history import (
    Bucket,
    ChangeOf,
    ConnectionSums,
    ConnectionTimes,
    DnsSums,
    DropSums,
    Edit,
    Gap,
    NodeChange,
    ObjectChanged,
    RulesetChange,
)
from kubectl_genainet.model.node import NetnsRules, NodeReport, RulesetDump
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.render.timeline.html import html
from kubectl_genainet.render.timeline.text import make_view
from kubectl_genainet.run.collect import DoctorCollector
from kubectl_genainet.run.sources.clickhouse import COVERS, STATES, WHOLE, ClickHouseSource
from kubectl_genainet.run.sources.engines import QueryValue
from kubectl_genainet.run.sources.history import TimeRange
from kubectl_genainet.run.sources.recorded import HISTORY, RecordedSource
from kubectl_genainet.run.timeline import timeline
from kubectl_genainet.wire.sightings import KIND_AT, PACKET, SIGHTING

SECOND = 1_000_000_000
SINCE, UNTIL = 1_700_000_000 * SECOND, 1_700_000_060 * SECOND
MONO = 1_000 * SECOND
_CRC = struct.Struct("<I")
_FRAME = struct.Struct(
    "<IHqqqqqQI16s"
)  # how long its payload is; flags; the times, session, number and boot of a block
_RECORDED = read_bundle(recordings() / "policy-service-port.gnb")


def _block(flags: int, times: tuple[int, ...], payload: bytes, *, plain: int | None = None) -> bytes:
    """A whole block around a deflated payload."""
    size = len(payload) if plain is None else plain
    deflated = zlib.compress(payload, 1)
    body = HEADER.pack(MAGIC, VERSION, flags & ~Flag.INDEXED, 0, len(deflated), size, *times) + deflated
    return body + _CRC.pack(zlib.crc32(body))


def blocks_of(data: bytes) -> Iterator[bytes]:
    """Whole blocks, of frames with the fields of their headers and their records."""
    offset = 0
    while offset + _FRAME.size <= len(data):
        size, flags, *fields = _FRAME.unpack_from(data, offset)
        offset += _FRAME.size
        yield _block(flags, tuple(fields), data[offset : offset + size])
        offset += size


def frame(records: Sequence[Event], number: int, flags: int = 0) -> bytes:
    payload = msgspec.msgpack.encode(records)
    begin, end = (5 * SECOND * (number + more) for more in (0, 1))
    times = (SINCE + begin, SINCE + end, MONO + begin, MONO + end, SINCE + begin)
    return _FRAME.pack(len(payload), flags, *times, 1, number + 1, bytes(16)) + payload


def read_segment(data: bytes) -> object:
    """As the agent reads its disk, for all and for one address; and as it is put into rows."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / f"{1:020d}-{SINCE:020d}.seg").write_bytes(data)
        answers = [
            sum(map(len, RangeReader(folder, "n", SINCE, UNTIL, wanted).blocks()))
            for wanted in (Selection(), Selection((RecordPart.TRACE, RecordPart.TOTALS), ("10.0.0.1",)))
        ]
        return answers, len(list(rows_of_folder(folder, "n", SnapshotNames(_RECORDED.snapshot))))


def read_answer(data: bytes) -> Bundle:
    """As the client takes what a node and the recorder of objects answer."""
    given = node_range("n", [block.data for block in leading(data)])
    objects = objects_range(given, SINCE, UNTIL)
    events = merged({"n": given}, objects, SINCE, UNTIL)
    return Bundle(new_header(HISTORY, {}, ""), objects.snapshot or _RECORDED.snapshot, events)


class _Given(RecordedSource):
    def __init__(self, bundle: Bundle) -> None:
        super().__init__(all_namespaces=True)
        self._given = bundle

    def _load(self) -> Bundle:
        return self._given

    def __str__(self) -> str:
        return "the recording"


def draw_timeline(data: bytes) -> object:
    bundle = read_answer(b"".join(blocks_of(data)))
    for event in bundle.events:
        wire.encode(event)
    result = timeline(_Given(bundle), parse_target("10.0.0.2"), DoctorCollector())
    with contextlib.redirect_stdout(io.StringIO()):
        for output in ("table", "markdown", "json"):
            make_view(output).show(result)
    return html(result)


class _Rows:
    """A table that answers each statement with the next of the given lists of rows."""

    def __init__(self, answers: Mapping[str, list[Sequence[Any]]]) -> None:
        self._answers = answers

    def rows(self, sql: str, parameters: Mapping[str, QueryValue]) -> list[Sequence[Any]]:
        return self._answers.get(sql, self._answers[""])


def read_rows(data: bytes) -> object:
    """Rows as a driver gives them: of the types of the statement's columns, and of any value."""
    parts = data.split(b"\n\n")
    try:
        whole = msgspec.json.decode(parts[0], type=list[tuple[str, int]])
        covers = msgspec.json.decode(parts[1], type=list[tuple[str, list[str], str, int]])
        states, records = (msgspec.json.decode(p, type=list[tuple[str, int, int, int, int, str]]) for p in parts[2:4])
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, IndexError, RecursionError):
        return None  # no driver gives that
    engine = _Rows({WHOLE: list(whole), COVERS: list(covers), STATES: list(states), "": list(records)})
    source = ClickHouseSource("clickhouse://h/d", TimeRange(SINCE, UNTIL), engine=engine)
    source._snapshot = _RECORDED.snapshot  # there are no others
    return source.recording


def read_request(data: bytes) -> object:
    try:
        request = msgspec.json.decode(data, type=wire.HistoryRequest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # the server's own words for these
        return None
    return Selection(tuple(map(RecordPart, checked_history(request).parts)), request.addresses or None)


def _sighting() -> bytes:
    data = bytearray(PACKET.size)
    data[KIND_AT] = SIGHTING
    return bytes(data)


def _records() -> list[list[Event]]:
    """A few records of each kind."""
    sums = ConnectionSums(side="client", client="10.0.0.1", server="10.0.0.2", port=80, opened=4, timed_out=1)
    times = ConnectionTimes(
        client="10.0.0.1", server="10.0.0.2", port=80, followed=4, reply=(0,) * 5000 + (3, 1), gaps=(1,)
    )
    lost = DropSums(
        reason="NO_SOCKET",
        location="x",
        netns=1,
        src="10.0.0.1",
        dst="10.0.0.2",
        dport=80,
        protocol=Protocol.TCP,
        packets=2,
    )
    asked = DnsSums(client="10.0.0.1", server="10.96.0.10", name="a.b", rcode="expired", count=2)
    bucket = Bucket(
        node="n",
        since_ns=SINCE,
        until_ns=SINCE + 10 * SECOND,
        connections=(sums,),
        times=(times,),
        drops=(lost,),
        dns=(asked,),
    )
    later = msgspec.structs.replace(bucket, since_ns=SINCE + 20 * SECOND, until_ns=SINCE + 30 * SECOND)
    dump = RulesetDump(node="n", t_ns=MONO, source="nft", text="a\nb\n")
    change = RulesetChange(node="n", t_ns=MONO + SECOND, source="nft", edits=(Edit(0, 1), Edit(lines=("c",))), crc=1)
    changed = NodeChange(
        node="n", at_ns=SINCE + SECOND, since_ns=SINCE, what=ChangeOf.COUNTER, subject="eth0", before="0", after="9"
    )
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}, "spec": {}}
    came = ObjectChanged(at_ns=SINCE + SECOND, object_kind="NetworkPolicy", namespace="", name="a", after=policy)
    gap = Gap(node="n", since_ns=SINCE + 40 * SECOND, until_ns=SINCE + 50 * SECOND, why="x")
    objects = ClusterChanged(objects=[policy])
    greeting = next(e for e in _RECORDED.events if isinstance(e, Hello))
    large = (NodeReport, RulesetDump, NetnsRules, Hello, Progress)
    seen: list[Event] = []
    seen += [event for event in _RECORDED.events if not isinstance(event, large)][:20]
    made: list[list[Event]] = [
        [greeting, dump, objects],
        [bucket, later, change, changed, came, gap],
        seen,
        [Sightings(node="n", data=_sighting())],
    ]
    return made


def frames() -> bytes:
    first, *others = _records()
    flags = Flag.STATE | Flag.WHOLE_STATE | Flag.FIRST
    return frame(first, 0, flags) + b"".join(frame(records, number) for number, records in enumerate(others, 1))


def rows() -> bytes:
    cover = msgspec.json.encode(
        Cover(SINCE, SINCE + 5 * SECOND, MONO, MONO + 5 * SECOND, SINCE, 1, 1, bytes(16).hex(), 21)
    ).decode()
    records = [("n", 1, 1, n, SINCE, wire.encode(r).decode()) for n, r in enumerate(_records()[1])]
    parts = ([("n", SINCE)], [("n", [cover], cover, 1)], records[:2], records)
    return b"\n\n".join(map(msgspec.json.encode, parts))


REQUEST = msgspec.json.encode(
    wire.HistoryRequest(since_ns=SINCE, until_ns=UNTIL, parts=("trace", "totals"), addresses=("10.0.0.1", "fd00::1"))
)


def segment(data: bytes) -> object:
    return read_segment(b"".join(blocks_of(data)))
