"""Recordings and rows that somebody made to deceive: a node, a disk, or whoever may write to the table."""

from __future__ import annotations

import socket
import struct
import threading
import tracemalloc
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent.serve.history import checked_history
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.blocks import (
    HEADER,
    MAX_BLOCK,
    MAX_INDEX,
    MAX_PLAIN,
    Block,
    BlockError,
    Flag,
    Span,
    encode_block,
    scan,
    size_of,
)
from kubectl_genainet.history.merge import merged
from kubectl_genainet.history.objects import ObjectsRange
from kubectl_genainet.history.ranges import NodeRange, Room, node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.rows import Cover, Nobody, Rebuilt, rows_of_folder
from kubectl_genainet.history.select import Selection
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import AgentFailed, ClusterChanged, Event, Sightings, TcpRetransmit
from kubectl_genainet.model.history import Gap, histogram_bounds
from kubectl_genainet.run.sources import engines
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.clickhouse import COVERS, STATES, WHOLE, ClickHouseSource
from kubectl_genainet.run.sources.engines import ClickHouse
from kubectl_genainet.run.sources.history import HistorySource, TimeRange
from kubectl_genainet.run.sources.recorders import ask_recorders
from kubectl_genainet.wire import FilterEntry, HistoryRequest, encode
from kubectl_genainet.wire.sightings import PACKET
from tests.unit.history.recording import BOOT, MONO, NODE, SECOND, WALL, Recording, resent, sighting

NOTHING = ObjectsRange(None, (), ())
FAR = (1 << 63) - 1


def block(records: Sequence[Event], *, boot: bytes = BOOT, number: int = 1, flags: Flag = Flag.END) -> bytes:
    covers = Span(WALL, WALL + 60 * SECOND, MONO, MONO + 60 * SECOND)
    return encode_block(list(records), covers, session=1, number=number, boot_id=boot, flags=flags)


def with_header(data: bytes, **changes: int) -> bytes:
    """The block with other fields in its header, and a checksum that is right."""
    names = (
        "magic",
        "version",
        "flags",
        "index",
        "payload",
        "plain",
        *("wall", "until", "mono", "mono_until", "earliest"),
    )
    fields = list(HEADER.unpack_from(data))
    for name, value in changes.items():
        fields[names.index(name)] = value
    body = HEADER.pack(*fields) + data[HEADER.size : -4]
    return body + struct.pack("<I", zlib.crc32(body))


def cover(**changes: object) -> str:
    span = (WALL, WALL + 5 * SECOND, MONO, MONO + 5 * SECOND, WALL)
    made = Cover(*span, session=1, number=1, boot_id=BOOT.hex(), flags=21)
    return msgspec.json.encode(msgspec.structs.replace(made, **changes)).decode()


@pytest.mark.parametrize("field", ["wall", "until", "mono", "mono_until", "earliest"])
@pytest.mark.parametrize("value", [FAR, -FAR - 1])
def test_a_block_of_no_time_is_damage(tmp_path: Path, field: str, value: int) -> None:
    data = with_header(block([resent(1)]), **{field: value})
    assert not [part for part in scan(data) if isinstance(part, Block)]
    (tmp_path / f"{1:020d}-{WALL:020d}.seg").write_bytes(data)
    assert list(RangeReader(tmp_path, NODE, WALL, WALL + SECOND).blocks())
    with pytest.raises(GenainetError, match="damaged"):
        node_range(NODE, [data])


@pytest.mark.parametrize("field", ["wall", "until"])
def test_nor_has_one_before_1970(field: str) -> None:
    assert not [part for part in scan(with_header(block([resent(1)]), **{field: -1})) if isinstance(part, Block)]


@pytest.mark.parametrize("field", ["index", "payload", "plain"])
def test_a_block_of_any_size_is_none(field: str) -> None:
    """Nothing is read or kept for what its header says."""
    size = {"index": 4 * MAX_INDEX, "payload": MAX_BLOCK, "plain": MAX_PLAIN}[field]
    data = block([resent(1)])
    assert size_of(with_header(data, **{field: size})[: HEADER.size]) is not None
    assert size_of(with_header(data, **{field: size + 1})[: HEADER.size]) is None


def test_a_row_that_is_no_text_is_refused() -> None:
    with pytest.raises(GenainetError):
        Rebuilt().record(NODE, 1, 1, 0, WALL, '{"kind":"\udc80"}')


def test_times_of_another_boot_that_are_none_are_moved_as_far_as_they_go() -> None:
    packed = bytearray(sighting(1))
    packed[:8] = b"\xff" * 8
    hostile: list[Event] = [Sightings(node=NODE, data=bytes(packed)), msgspec.structs.replace(resent(1), t_ns=FAR)]
    late = Span(WALL, WALL + 120 * SECOND, 0, 60 * SECOND)
    now = encode_block([resent(2)], late, session=2, number=1, boot_id=bytes(16), flags=Flag.END)
    given = node_range(NODE, [block(hostile, flags=Flag(0)), now])
    assert all(encode(event) for event in merged({NODE: given}, NOTHING, WALL, WALL + 60 * SECOND))


def test_a_node_whose_records_are_none_hides_no_other() -> None:
    lying = node_range("a", [block([Sightings(node="a", data=bytes(PACKET.size))])])
    honest = node_range("b", [block([msgspec.structs.replace(resent(1), node="b")], flags=Flag(0)), block([])])
    events = merged({"a": lying, "b": honest}, NOTHING, WALL, WALL + 60 * SECOND)
    assert [event.node for event in events if isinstance(event, AgentFailed)] == ["a"]
    assert [event.node for event in events if isinstance(event, TcpRetransmit)] == ["b"]


def of_node(node: str) -> TcpRetransmit:
    return msgspec.structs.replace(resent(1), node=node)


@pytest.mark.parametrize("forged", [of_node("b"), ClusterChanged.of(ClusterSnapshot(objects=()))])
def test_a_recording_says_nothing_of_another_node_or_of_the_clusters_objects(forged: Event) -> None:
    lying = node_range("a", [block([of_node("a"), forged], flags=Flag(0)), block([])])
    honest = node_range("b", [block([of_node("b")], flags=Flag(0)), block([])])
    events = merged({"a": lying, "b": honest}, NOTHING, WALL, WALL + 60 * SECOND)
    assert [event.node for event in events if isinstance(event, TcpRetransmit)] == ["b"]
    assert not [event for event in events if isinstance(event, ClusterChanged)]
    (gap,) = (event for event in events if isinstance(event, Gap))
    assert gap.node == "a" and "node a sent a record of" in gap.why


def test_what_can_not_be_read_has_no_row_that_says_it_was_covered(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    (path,) = tmp_path.glob("*.seg")
    unread = block([resent(1)])
    body = unread[: HEADER.size] + zlib.compress(b"\x93\1\2\3")
    newer = with_header(body + b"\0\0\0\0", payload=len(body) - HEADER.size, plain=4)
    path.write_bytes(newer + path.read_bytes())
    assert [row.kind for row in rows_of_folder(tmp_path, NODE, Nobody())] == ["block", "retransmit"]


@pytest.mark.parametrize("packed", [b"no zlib", zlib.compress(b"\x93\1\2\3")[:-5], zlib.compress(b"\xff" * 4)])
def test_a_whole_block_whose_records_do_not_unpack_is_not_read(packed: bytes) -> None:
    data = with_header(block([])[: HEADER.size] + packed + b"\0\0\0\0", payload=len(packed), plain=4)
    (part,) = scan(data)
    assert isinstance(part, Block)
    with pytest.raises(BlockError):
        part.records()


@pytest.mark.parametrize(
    "changes",
    [{"wall_from": 1 << 70}, {"number": -1}, {"flags": 1 << 40}, {"boot_id": "x"}, {"earliest_ns": -(1 << 63) - 1}],
)
def test_a_row_that_is_no_header_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(GenainetError):
        Rebuilt().cover(NODE, cover(**changes))


@pytest.mark.timeout(20)
def test_a_row_that_stands_for_blocks_without_number_costs_no_more() -> None:
    rebuilt = Rebuilt()
    rebuilt.cover(NODE, cover(number=(1 << 32) - 1), 0)
    rebuilt.record(NODE, 1, 7, 0, WALL, encode(resent(1)).decode())
    given = rebuilt.range(NODE, WALL, WALL + SECOND, Selection())
    assert [r for b in given.blocks for r in b.records() if isinstance(r, TcpRetransmit)] == [resent(1)]


class Table:
    """Answers each statement with rows; what is asked for is kept."""

    def __init__(self, covers: list[Any], states: list[Any], records: list[Any]) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._rows = {WHOLE: [], COVERS: covers, STATES: states}
        self._records = records

    def rows(self, sql: str, parameters: Any) -> list[Sequence[Any]]:
        self.asked.append((sql, dict(parameters)))
        return self._rows.get(sql, self._records)


def source_over(table: Table, snapshot: ClusterSnapshot) -> ClickHouseSource:
    source = ClickHouseSource("clickhouse://h/d", TimeRange(WALL, WALL + 10 * SECOND), engine=table)
    source._snapshot = snapshot
    return source


def test_a_header_that_is_none_is_left_out_and_hides_no_other_node() -> None:
    covers = [("a", ["[1,"], "", 1), ("b", [cover()], "", 1)]
    records = [(node, 1, 1, 0, WALL, encode(of_node(node)).decode()) for node in ("a", "b")]
    said: list[str] = []
    source = source_over(Table(covers, [], records), ClusterSnapshot(objects=()))
    source._warn = said.append
    assert len([event for event in source.recording.events if isinstance(event, TcpRetransmit)]) == 1
    assert any("left out" in warning for warning in said)


def test_a_row_with_numbers_that_are_none_fails_its_node_only() -> None:
    huge = encode(of_node("a")).replace(b'"netns":', b'"netns":99999999999999999999')
    covers = [(node, [cover()], "", 1) for node in ("a", "b")]
    records = [("a", 1, 1, 0, WALL, huge.decode()), ("b", 1, 1, 0, WALL, encode(of_node("b")).decode())]
    source = source_over(Table(covers, [], records), ClusterSnapshot(objects=()))
    events = source.recording.events
    assert [event.node for event in events if isinstance(event, AgentFailed)] == ["a"] and source.failed_nodes == {"a"}
    assert len([event for event in events if isinstance(event, TcpRetransmit)]) == 1


def test_names_go_into_statements_as_parameters_only(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "x'; DROP TABLE genainet_records; --"
    table = Table([(evil, [cover()], "", 1)], [], [])
    source = source_over(table, ClusterSnapshot(objects=()))
    request = HistoryRequest(since_ns=WALL, until_ns=WALL + SECOND, parts=("trace",), addresses=(evil,))
    monkeypatch.setattr(source, "_services_of", lambda _: frozenset({evil}))
    source._ask_nodes(request)
    assert [evil in sql for sql, _ in table.asked] == [False] * len(table.asked)
    assert evil in table.asked[-1][1]["services"] and evil in table.asked[-1][1]["addresses"]


def test_answers_of_all_nodes_have_room_together() -> None:
    """From servers on sockets that send as much as they are let."""
    part = block([resent(n / 100, port=n + 1) for n in range(500)])

    def serve(sock: socket.socket) -> None:
        with sock:
            sock.recv(65536)
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(part)}\r\nConnection: close\r\n\r\n"
            sock.sendall(head.encode() + part)

    def dial() -> socket.socket:
        ours, theirs = socket.socketpair()
        threading.Thread(target=serve, args=(theirs,), daemon=True).start()
        return ours

    request = HistoryRequest(since_ns=WALL, until_ns=WALL + SECOND)
    names = [f"node-{number}" for number in range(6)]
    room = Room(size=3 * len(part) + 100)
    answers = ask_recorders(dict.fromkeys(names, dial), request, room=room)
    complete = [not isinstance(answer, GenainetError) and answer.complete for answer in answers.values()]
    assert 1 <= sum(complete) <= 3
    held = sum(len(b) for a in answers.values() if not isinstance(a, GenainetError) for b in a.blocks)
    assert held == sum(complete) * len(part)


def test_records_that_unpack_without_end_are_not_taken() -> None:
    data = block([resent(1)])
    bomb = with_header(data, plain=200 << 20)
    assert Room().whole_blocks(bomb + data) == ()
    assert Room().whole_blocks(data + bomb) == (data,)
    plain = Block(Span(0, 0, 0, 0), 0, 0, 0, BOOT, Flag(0), data).plain_size
    assert len(Room(plain=2 * plain).whole_blocks(data * 3)) == 2


def test_a_block_unpacks_no_further_than_its_header_says() -> None:
    data = with_header(block([resent(1)] * 100_000), plain=100)
    (lying,) = (part for part in scan(data) if isinstance(part, Block))
    tracemalloc.start()
    try:
        with pytest.raises(BlockError, match="another length"):
            lying.records()
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_histogram_of_any_length_has_bounds() -> None:
    assert [histogram_bounds(index)[1] > 0 for index in (0, 255, 5_000, 1 << 40)] == [True] * 4


class Asked(HistorySource):
    """Keeps what the nodes would be asked."""

    def __init__(self) -> None:
        super().__init__(_Now(), TimeRange(WALL, WALL + SECOND))
        self.requests: list[HistoryRequest] = []
        self._objects = NOTHING

    def _ask_nodes(self, request: HistoryRequest) -> dict[str, NodeRange | GenainetError]:
        self.requests.append(request)
        return {NODE: node_range(NODE, [block([])])}


class _Now(Source):
    live = True

    def _read(self) -> ClusterSnapshot:
        return ClusterSnapshot(objects=())

    def __str__(self) -> str:
        return "now"


@pytest.mark.parametrize(("count", "asked"), [(5_000, 5_000), (5_001, 0)])
def test_more_addresses_than_a_question_may_have_are_all_addresses(count: int, asked: int) -> None:
    source = Asked()
    filters = tuple(FilterEntry(f"10.0.{number >> 8}.{number & 255}", 0, "TCP") for number in range(count))
    assert source.replayed("trace", filters).events
    (request,) = source.requests
    assert len(request.addresses) == asked and checked_history(request) == request


def test_a_server_whose_rows_have_no_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(engines, "ANSWER_S", 0.1)
    monkeypatch.setattr(ClickHouse, "_connected", lambda _: SimpleNamespace(query=lambda *_, **__: over.wait(20)))
    with pytest.raises(GenainetError, match=r"ClickHouse at h has not answered in full within 0\.1 s"):
        ClickHouse("clickhouse://h/d").rows("SELECT 1", {})
    over.set()
