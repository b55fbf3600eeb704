"""Several nodes' recordings as one stream: in order of time, with holes that end and begin a watch."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent.serve import history as served
from kubectl_genainet.agent.serve.history import History
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history import merge
from kubectl_genainet.history.blocks import ALIVE, Block, Flag, Span, decode_block, encode_block, scan
from kubectl_genainet.history.merge import merged, of_verb
from kubectl_genainet.history.objects import BEFORE_NS, ObjectsRange, objects_range
from kubectl_genainet.history.ranges import NodeRange, node_range
from kubectl_genainet.history.select import RecordPart
from kubectl_genainet.model.events import (
    AgentFailed,
    Bye,
    ClusterChanged,
    ConnectionCounts,
    DropSampled,
    Event,
    Hello,
    PacketSeen,
    Progress,
    TcpRetransmit,
)
from kubectl_genainet.model.history import Bucket, ConnectionSums, Gap, ObjectChanged
from kubectl_genainet.wire import HistoryRequest
from tests.unit.history.recording import MONO, NODE, SECOND, WALL, Recording, hello, resent, sighting, sightings, tick

NO_OBJECTS = ObjectsRange(None, (), ())


@pytest.fixture(params=["held", "made anew"], autouse=True)
def length(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short ranges and long ones give the same."""
    if request.param == "made anew":
        monkeypatch.setattr(merge, "HELD", -1)


def events_of(recording: Recording, since_s: int, until_s: int) -> tuple[Event, ...]:
    given = {NODE: recording.range(since_s, until_s)}
    return tuple(merged(given, NO_OBJECTS, WALL + since_s * SECOND, WALL + until_s * SECOND))


def test_a_range_is_a_stream_from_hello_to_bye_in_order_of_time(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(hello(), flags=Flag.STATE | Flag.WHOLE_STATE)
    # What was held back comes in a later block.
    recording.block(tick(7), sightings(sighting(2), sighting(6)), resent(3))
    events = events_of(recording, 0, 10)
    kinds = [type(e).__name__ for e in events]
    assert kinds[0] == "Hello" and kinds[1] == "Progress" and kinds[-2:] == ["Progress", "Bye"]
    moments = [e.t_ns for e in events if isinstance(e, PacketSeen | TcpRetransmit)]
    assert moments == [MONO + s * SECOND for s in (2, 3, 6)]
    assert events[-1] == Bye(node=NODE, emitted=3, sent=3, lost=0, reason="timeout")


def test_a_hole_ends_the_watch_and_begins_another(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    again = Recording(tmp_path, session=2)
    again.wall_s = again.mono_s = 60.0
    again.block(resent(61))
    events = events_of(again, 0, 65)
    stages = [(e.stage, (e.t_ns - MONO) // SECOND) for e in events if isinstance(e, Progress)]
    assert stages == [("attached", 0), ("detached", 5), ("attached", 60), ("detached", 65)]
    assert len([e for e in events if isinstance(e, Hello)]) == 2
    assert [e.why for e in events if isinstance(e, Gap)] == ["the recorder did not run"]


def test_an_end_that_cannot_be_read_is_a_gap(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    unknown: Any = [{"kind": "of a newer version"}]
    covers = Span(WALL, WALL + 5 * SECOND, 0, 0)
    end = decode_block(encode_block(unknown, covers, session=0, number=0, boot_id=bytes(16), flags=Flag.END))
    assert end is not None
    given = NodeRange(NODE, (*recording.range(0, 5).blocks[:-1], end))
    events = tuple(merged({NODE: given}, NO_OBJECTS, WALL, WALL + 5 * SECOND))
    assert ["can't read" in e.why for e in events if isinstance(e, Gap)] == [True]


def test_records_from_before_a_restart_of_the_node_go_on_its_clock_of_now(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1), sightings(sighting(2)))
    again = Recording(tmp_path, session=2)
    again.wall_s, again.mono_s, again.boot_id = 100.0, -900.0, bytes(16)
    again.block(resent(-899))
    moments = [e.t_ns for e in events_of(again, 0, 105) if isinstance(e, PacketSeen | TcpRetransmit)]
    assert [(t - MONO) // SECOND for t in moments] == [1 - 1000, 2 - 1000, -899]


def test_what_happened_outside_of_the_range_is_left_out_though_its_block_is_read(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1), resent(4), sightings(sighting(1.5), sighting(4.5)))
    recording.block(resent(6), resent(8), sightings(sighting(6.5), sighting(9)), tick(7), tick(9))
    events = events_of(recording, 3, 7)
    seen = [(e.t_ns - MONO) / SECOND for e in events if isinstance(e, PacketSeen | TcpRetransmit)]
    assert seen == [4, 4.5, 6, 6.5]
    stages = [(e.stage, (e.t_ns - MONO) // SECOND) for e in events if isinstance(e, Progress)]
    assert stages == [("attached", 3), ("detached", 7)]
    assert isinstance(events[-1], Bye) and events[-1].sent == 4


def test_a_node_that_did_not_answer_is_named(tmp_path: Path) -> None:
    events = tuple(merged({"node-2": GenainetError("no answer")}, NO_OBJECTS, WALL, WALL + SECOND))
    assert events == (AgentFailed(node="node-2", message="no answer"),)


def test_totals_are_those_since_the_range_began(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    for number in range(3):
        opened = ConnectionSums(side="client", client="10.0.0.1", server="10.0.0.2", port=80, opened=10)
        refused = msgspec.structs.replace(opened, backend="10.1.0.3", backend_port=8080, opened=0, refused=number)
        begin = WALL + 10 * number * SECOND
        bucket = Bucket(node=NODE, since_ns=begin, until_ns=begin + 10 * SECOND, connections=(opened, refused))
        recording.block(bucket, length_s=10)
    counts = [e for e in events_of(recording, 10, 30) if isinstance(e, ConnectionCounts)]
    assert [(c.backend, c.opened, c.refused) for c in counts] == [
        ("", 10, 0),
        ("10.1.0.3", 0, 1),
        ("", 20, 0),
        ("10.1.0.3", 0, 3),
    ]


def test_each_verb_gets_the_records_of_its_own_probes(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    (seen,) = (e for e in events_of_one(recording) if isinstance(e, PacketSeen))
    fields = {f: getattr(seen, f) for f in seen.__struct_fields__ if f != "point"}
    drop = DropSampled(reason="NO_SOCKET", location="f", **fields)
    events = (seen, drop, Bye(node=NODE, emitted=2, sent=2, lost=0, reason="timeout"))
    assert [type(e) for e in of_verb(events, RecordPart.TRACE)] == [PacketSeen, Bye]
    drops = list(of_verb(events, RecordPart.DROPS))
    assert [type(e) for e in drops] == [DropSampled, Bye]
    assert isinstance(drops[-1], Bye) and drops[-1].sent == 1


def events_of_one(recording: Recording) -> tuple[Event, ...]:
    recording.block(sightings(sighting(1)))
    return events_of(recording, 0, 5)


def test_objects_are_as_they_were_and_change_when_they_did(tmp_path: Path) -> None:
    def service(name: str, version: str) -> dict[str, object]:
        return {"kind": "Service", "metadata": {"name": name, "namespace": "d", "resourceVersion": version}}

    def change(at_s: int, name: str, after: dict[str, object] | None) -> ObjectChanged:
        return ObjectChanged(at_ns=WALL + at_s * SECOND, object_kind="Service", namespace="d", name=name, after=after)

    recording = Recording(tmp_path)
    recording.block(ClusterChanged(objects=[service("a", "1")]), flags=Flag.STATE | Flag.WHOLE_STATE)
    recording.block(change(7, "b", service("b", "2")), flags=Flag.STATE)
    recording.block(change(12, "a", None), change(14, "b", service("b", "3")), flags=Flag.STATE)
    objects = objects_range(recording.range(10, 15), WALL + 10 * SECOND, WALL + 15 * SECOND)
    assert objects.snapshot is not None
    assert [o.raw["metadata"]["name"] for o in objects.snapshot.objects] == ["a", "b"]
    whole = [event for _, event in objects.changes if isinstance(event, ClusterChanged)]
    assert [[o["metadata"]["name"] for o in one.objects] for one in whole] == [["b"], ["b"]]
    # The block reaches beyond 13 s: what changed at 14 s, less than two seconds after what is in the range, is not in it.
    before = objects_range(recording.range(10, 13), WALL + 10 * SECOND, WALL + 13 * SECOND)
    assert [getattr(event, "name", "") for _, event in before.changes] == ["a", ""]
    last = before.changes[-1][1]
    assert isinstance(last, ClusterChanged)
    assert [o["metadata"]["resourceVersion"] for o in last.objects] == ["2"]


def test_a_range_that_nobody_would_wait_for_is_refused_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "HELD", -1)
    recording = Recording(tmp_path)
    recording.block(sightings(*(sighting(n / 10, port=40_000 + n) for n in range(40))))
    monkeypatch.setattr(merge, "MAX_EVENTS", 50)
    assert len(events_of(recording, 0, 5)) > 40
    monkeypatch.setattr(merge, "MAX_EVENTS", 39)
    with pytest.raises(merge.RangeTooLargeError, match="recorded of that time") as refused:
        events_of(recording, 0, 5)
    assert "shorter time" in refused.value.hint


def test_a_long_range_is_made_block_by_block_and_as_often_as_one_likes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = Recording(tmp_path)
    for number in range(50):
        begin = number * 5
        late = sighting(max(0, begin - 7), port=40_000 + number)  # of a connection that was held back
        recording.block(sightings(late, sighting(begin + 1)), resent(begin + 2), tick(begin + 4))
    given = {NODE: recording.range(0, 250)}
    monkeypatch.setattr(merge, "HELD", -1)
    events = merged(given, NO_OBJECTS, WALL, WALL + 250 * SECOND)
    inflated: list[int] = []
    inflate = Block.records

    def records(block: Block) -> list[Event]:
        inflated.append(block.number)
        return inflate(block)

    monkeypatch.setattr(Block, "records", records)
    first = [next(iter(events)) for _ in range(3)]
    assert first[0] == first[1] == first[2] and max(inflated) <= 3
    monkeypatch.setattr(merge, "HELD", 10_000)
    assert tuple(events) == tuple(events) == merged(given, NO_OBJECTS, WALL, WALL + 250 * SECOND)


def test_services_whose_endpoints_changed_just_before_the_range_are_named(tmp_path: Path) -> None:
    """Nodes' rules are read every 15 s: those that they told until then may be older."""

    def endpoints(service: str) -> dict[str, object]:
        labels = {"kubernetes.io/service-name": service}
        return {"kind": "EndpointSlice", "metadata": {"name": f"{service}-x", "namespace": "d", "labels": labels}}

    def change(at_s: int, service: str, *, gone: bool = False) -> ObjectChanged:
        after = None if gone else endpoints(service)
        kind = {"object_kind": "EndpointSlice", "namespace": "d", "name": f"{service}-x"}
        return ObjectChanged(at_ns=WALL + at_s * SECOND, after=after, **kind)

    recording = Recording(tmp_path)
    recording.block(ClusterChanged(objects=[endpoints("a"), endpoints("b")]), flags=Flag.STATE | Flag.WHOLE_STATE)
    recording.block(change(7, "old"), length_s=10, flags=Flag.STATE)
    recording.block(change(20, "a"), change(32, "b", gone=True), change(42, "c"), length_s=35, flags=Flag.STATE)
    given = recording.range(40 - BEFORE_NS / SECOND, 45)
    objects = objects_range(given, WALL + 40 * SECOND, WALL + 45 * SECOND)
    assert objects.just_changed == {"d/a": WALL + 20 * SECOND, "d/b": WALL + 32 * SECOND}
    assert [getattr(event, "name", "") for _, event in objects.changes] == ["c-x", ""]
    assert objects.snapshot is not None
    assert {o.raw["metadata"]["name"] for o in objects.snapshot.objects} == {"a-x", "old-x"}


def test_what_is_missing_of_the_objects_begins_no_sooner_than_the_range(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.wall_s = recording.mono_s = 12.0
    recording.block(ClusterChanged(objects=[]), flags=Flag.STATE | Flag.WHOLE_STATE)
    given = recording.range(10 - BEFORE_NS / SECOND, 17)
    (gap,) = objects_range(given, WALL + 10 * SECOND, WALL + 17 * SECOND).gaps
    assert (gap.since_ns, gap.until_ns) == (WALL + 10 * SECOND, WALL + 12 * SECOND)


@pytest.mark.parametrize("batch", [1, served.BATCH])
def test_an_answer_without_room_ends_before_the_first_block_that_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(served, "BATCH", batch)  # bytes that are read before they are sent
    recording = Recording(tmp_path)
    blocks = [recording.block(sightings(*(sighting(at) for at in (5 * n + 1, 5 * n + 2)))) for n in range(6)]
    sizes = [len(block) for block in blocks]

    async def given(max_bytes: int) -> bytes:
        async def nothing_waits() -> None:
            pass

        history = History(tmp_path, NODE, nothing_waits)
        request = HistoryRequest(since_ns=WALL, until_ns=WALL + 30 * SECOND, max_bytes=max_bytes)
        return b"".join([some async for some in history.blocks(request)])

    assert asyncio.run(given(sum(sizes[:4]) - 1)) == b"".join(blocks[:3])
    whole = asyncio.run(given(1 << 20))
    assert whole.startswith(b"".join(blocks)) and len(whole) > sum(sizes)


@pytest.mark.parametrize("busy", ["flush", "readers"])
def test_an_agent_that_takes_long_sends_signs_of_life(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: str
) -> None:
    monkeypatch.setattr(served, "ALIVE_S", 0.02)
    recording = Recording(tmp_path)
    recording.block(resent(1))

    async def given() -> list[bytes]:
        async def flush() -> None:
            await asyncio.sleep(0.2 if busy == "flush" else 0)

        history = History(tmp_path, NODE, flush)
        request = HistoryRequest(since_ns=WALL, until_ns=time.time_ns())
        if busy == "readers":
            for _ in range(served.READERS):
                await history._readers.acquire()
            asyncio.get_running_loop().call_later(0.2, history._readers.release)
        return [some async for some in history.blocks(request)]

    blocks = asyncio.run(given())
    alive = blocks.count(ALIVE)
    assert alive >= 2 and blocks[:alive] == [ALIVE] * alive
    given_blocks = b"".join(block for block in blocks if block != ALIVE)
    parts = [scanned.data for scanned in scan(given_blocks) if isinstance(scanned, Block)]
    events = tuple(merged({NODE: node_range(NODE, parts)}, ObjectsRange(None, (), ()), WALL, WALL + 5 * SECOND))
    assert [event for event in events if isinstance(event, TcpRetransmit)] == [resent(1)]
