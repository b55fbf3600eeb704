"""Whatever a disk gives back of a recording, in place of what was written: its loss is named, and nothing is made up."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from kubectl_genainet.history import read
from kubectl_genainet.history.blocks import Block, Flag, scan
from kubectl_genainet.history.merge import merged
from kubectl_genainet.history.objects import ObjectsRange
from kubectl_genainet.history.rows import COVER, Nobody, Rebuilt, rows_of_folder
from kubectl_genainet.history.rules import difference
from kubectl_genainet.history.select import Selection
from kubectl_genainet.history.store import segments
from kubectl_genainet.model.events import AgentFailed, Event, TcpRetransmit
from kubectl_genainet.model.history import Gap, RulesetChange
from kubectl_genainet.model.node import NodeReport, RulesetDump
from tests.unit.history.recording import MONO, NODE, SECOND, WALL, Recording, hello, resent

WHOLE = Flag.STATE | Flag.WHOLE_STATE
NO_OBJECTS = ObjectsRange(None, (), ())


def dump(at_s: int, changed: int) -> RulesetDump:
    lines = [f"-A CHAIN -d 10.96.0.{n} -j TARGET{changed if n == 3 else 0}" for n in range(30)]
    return RulesetDump(node=NODE, t_ns=MONO + at_s * SECOND, source="iptables", text="\n".join(lines))


def change(at_s: int, before: int, after: int) -> RulesetChange:
    found = difference(dump(0, before), dump(at_s, after))
    assert found is not None
    return found


def report(at_s: int) -> NodeReport:
    return NodeReport(node=NODE, t_ns=MONO + at_s * SECOND, namespaces=())


def recorded(folder: Path) -> Recording:
    """Thirty seconds in two segments: rules that change each 5 s, and a segment sent again in each."""
    recording = Recording(folder)
    recording.block(hello(), report(1), dump(1, 0), resent(1, port=1), flags=WHOLE)
    recording.block(change(6, 0, 1), report(7), resent(6, port=6), flags=Flag.STATE)
    recording.block(change(11, 1, 2), resent(11, port=11), flags=Flag.STATE)
    recording.writer.end_segment()
    recording.block(hello(), report(16), dump(16, 3), resent(16, port=16), flags=WHOLE)
    recording.block(change(21, 3, 4), resent(21, port=21), flags=Flag.STATE)
    recording.block(resent(26, port=26))
    return recording


def told(recording: Recording, since_s: int, until_s: int) -> tuple[Event, ...]:
    given = {NODE: recording.range(since_s, until_s)}
    return tuple(merged(given, NO_OBJECTS, WALL + since_s * SECOND, WALL + until_s * SECOND))


def told_by_rows(folder: Path, since_s: int, until_s: int) -> tuple[Event, ...]:
    """Of a table into which the folder was shipped."""
    rebuilt = Rebuilt()
    for row in rows_of_folder(folder, NODE, Nobody()):
        if row.part == COVER:
            rebuilt.cover(NODE, row.body)
        else:
            rebuilt.record(NODE, row.session, row.number, row.position, row.at_ns, row.body)
    since, until = WALL + since_s * SECOND, WALL + until_s * SECOND
    return tuple(merged({NODE: rebuilt.range(NODE, since, until, Selection())}, NO_OBJECTS, since, until))


def facts(events: Iterable[Event]) -> set[tuple[int, object]]:
    """(wall-clock time, what was recorded of it)"""
    return {
        (event.t_ns - MONO + WALL, event.text if isinstance(event, RulesetDump) else event)
        for event in events
        if isinstance(event, RulesetDump | TcpRetransmit)
    }


def gaps(events: Iterable[Event]) -> list[Gap]:
    return [event for event in events if isinstance(event, Gap)]


def left_of(data: bytes, at: int) -> Iterator[bytes]:
    """What may be there in place of a file whose writing ended at this byte, or of which a part was lost."""
    yield data[:at]
    yield data[:at] + bytes(len(data) - at)
    yield data[:at] + bytes(64) + data[at + 64 :]
    yield data[:at] + bytes((data[at] ^ 0xFF,)) + data[at + 1 :]


@pytest.mark.parametrize("number", [0, 1])
def test_wherever_a_segment_is_damaged_nothing_is_made_up_and_nothing_lost_is_silent(
    number: int, tmp_path: Path
) -> None:
    recording = recorded(tmp_path)
    whole = facts(told(recording, 0, 30))
    assert len(whole) == 11
    path = segments(tmp_path)[number].path
    data = path.read_bytes()
    for at in range(0, len(data), 17):
        for left in left_of(data, at):
            path.write_bytes(left)
            for events in (told(recording, 0, 30), told_by_rows(tmp_path, 0, 30)):
                assert facts(events) <= whole, at
                named = gaps(events)
                for at_ns, fact in whole - facts(events):
                    assert any(
                        gap.since_ns <= at_ns <= gap.until_ns or (isinstance(fact, str) and gap.partial)
                        for gap in named
                    ), (at, fact)


@pytest.mark.parametrize("number", [0, 1])
def test_a_segment_that_has_gone_or_has_half_a_name_is_a_gap(number: int, tmp_path: Path) -> None:
    recording = recorded(tmp_path)
    path = segments(tmp_path)[number].path
    path.rename(path.with_name(path.name[:-2]))
    events = told(recording, 0, 30)
    assert [(gap.until_ns - gap.since_ns) // SECOND for gap in gaps(events) if not gap.partial] == [15]
    assert {fact for fact in facts(events) if isinstance(fact[1], TcpRetransmit)} == {
        (WALL + at_s * SECOND, resent(at_s, port=at_s)) for at_s in ((16, 21, 26), (1, 6, 11))[number]
    }


def test_a_segment_that_the_disk_can_not_give_back_costs_itself_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recording = recorded(tmp_path)
    bad, read_bytes, number = segments(tmp_path)[0].path, Path.read_bytes, errno.EIO

    def reading(path: Path) -> bytes:
        if path == bad:
            raise OSError(number, os.strerror(number))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", reading)
    assert [gap.why for gap in gaps(told(recording, 0, 30))] == [read.DAMAGED]
    assert len(facts(told(recording, 0, 30))) == 5
    number = errno.EACCES  # not lost: who asks may not read it
    with pytest.raises(PermissionError):
        told(recording, 0, 30)


@pytest.mark.parametrize("lost", [0, 1])
def test_state_that_was_lost_before_the_range_is_named(lost: int, tmp_path: Path) -> None:
    """The range begins within the third block, whose rules build on those of both before it."""
    recording = recorded(tmp_path)
    whole = facts(told(recording, 0, 30))
    path = segments(tmp_path)[0].path
    blocks = [len(row) for row in block_bytes(path.read_bytes())]
    begin = sum(blocks[:lost])
    data = bytearray(path.read_bytes())
    data[begin : begin + blocks[lost]] = bytes(blocks[lost])
    path.write_bytes(data)
    for events in (told(recording, 12, 14), told_by_rows(tmp_path, 12, 14)):
        assert facts(events) <= whole  # a change tells what it is applied to
        reasons = {gap.why for gap in gaps(events)}
        assert read.STATE_DAMAGED in reasons
        assert any("can't be put together" in why for why in reasons) == (lost == 0)
    assert not gaps(told(recording, 17, 20))  # the second segment begins with all of it


def block_bytes(data: bytes) -> list[bytes]:
    return [block.data for block in scan(data) if isinstance(block, Block)]


def test_a_node_of_which_nothing_is_left_is_said_to_have_recorded_nothing(tmp_path: Path) -> None:
    recording = recorded(tmp_path)
    for segment in segments(tmp_path):
        segment.path.write_bytes(bytes(segment.path.stat().st_size))
    failed = [event.message for event in told(recording, 0, 30) if isinstance(event, AgentFailed)]
    assert failed == ["it recorded nothing of this time"]


@pytest.mark.parametrize(
    ("next_s", "since_s", "expected"),
    [
        (15.0, 0.0, [(10.0, 15.0, False)]),  # the damaged block's own time
        (-20.0, -20.0, [(-20.0, -20.0, True)]),  # the clock was set back over it: it may lie anywhere
        (-20.0, 0.0, []),  # where that was not within the range
    ],
)
def test_a_damaged_block_is_a_gap_once_where_the_clock_went_on_and_where_it_was_set_back(
    next_s: float, since_s: float, expected: list[tuple[float, float, bool]], tmp_path: Path
) -> None:
    recording = Recording(tmp_path)
    recording.block(hello(), report(0), flags=WHOLE)
    recording.block(resent(6))
    damaged = recording.block(resent(11))
    recording.wall_s = next_s
    recording.block(resent(16))
    path = segments(tmp_path)[0].path
    path.write_bytes(path.read_bytes().replace(damaged, bytes(len(damaged))))
    named = [
        ((gap.since_ns - WALL) / SECOND, (gap.until_ns - WALL) / SECOND, gap.partial)
        for block in recording.range(since_s, 9.5 if next_s < 0 else 20.0).blocks
        for gap in block.records()
        if isinstance(gap, Gap) and gap.why == read.DAMAGED
    ]
    assert named == expected
