"""Segments: what was written comes back, or a named gap does; nothing else."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from kubectl_genainet.bundle import read_bundle
from kubectl_genainet.history import read, store
from kubectl_genainet.history.blocks import (
    HEADER,
    MAGIC,
    VERSION,
    Block,
    Damage,
    Flag,
    Span,
    decode_block,
    encode_block,
    leading,
    scan,
)
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.select import RecordPart, Selection
from kubectl_genainet.history.store import RecordingLimits, segments
from kubectl_genainet.model.events import Event, LostEvents, Sightings, TcpRetransmit
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from tests.golden.recordings import bundle_of
from tests.recordertest import record
from tests.unit.history.recording import BOOT, MONO, NODE, SECOND, Recording, hello, resent, sighting, sightings, tick


def times(events: list[Event]) -> list[float]:
    return [round((e.t_ns - 1_000 * 10**9) / 1e9, 3) for e in events if isinstance(e, TcpRetransmit)]


def test_a_range_has_the_blocks_that_touch_it_and_no_gap(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    for number in range(6):
        recording.block(resent(5 * number + 1))
    assert times(recording.events(10, 20)) == [11, 16]
    assert recording.gaps(10, 20) == []


def test_every_byte_of_a_segment_changed_is_noticed_and_costs_its_own_block_only(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(hello(), flags=Flag.STATE | Flag.WHOLE_STATE)
    for number in range(1, 4):
        recording.block(resent(5 * number + 1, port=40_000 + number), tick(5 * number + 2))
    (segment,) = segments(tmp_path)
    whole, wanted = segment.path.read_bytes(), recording.events(0, 20)
    assert len(times(wanted)) == 3
    begins = [0]
    for part in scan(whole):
        assert isinstance(part, Block)
        begins.append(begins[-1] + len(part.data))
    with segment.path.open("r+b", buffering=0) as file:
        for offset in range(len(whole)):
            for mask in (0xFF, 1):
                os.pwrite(file.fileno(), bytes([whole[offset] ^ mask]), offset)
                events = recording.events(0, 20)
                hit = next(number for number in range(4) if begins[number] <= offset < begins[number + 1])
                assert times(events) == [float(5 * n + 1) for n in range(1, 4) if n != hit], offset
                reasons = {gap.why for gap in events if isinstance(gap, Gap)}
                assert reasons and reasons <= {read.DAMAGED, read.NOT_RECORDED, read.NOT_WRITTEN}, offset
            os.pwrite(file.fileno(), whole[offset : offset + 1], offset)


def test_a_segment_cut_short_anywhere_keeps_its_whole_blocks(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    for number in range(3):
        recording.block(resent(5 * number + 1))
    (segment,) = segments(tmp_path)
    whole = segment.path.read_bytes()
    for length in range(0, len(whole), 7):
        segment.path.write_bytes(whole[:length])
        kept = [part for part in scan(whole[:length]) if isinstance(part, Block)]
        assert len(times(recording.events(0, 15))) == len(kept)
        assert recording.gaps(0, 15)[-1][:2] == (5.0 * len(kept), 15.0)


def test_what_lies_between_blocks_is_named_and_passed_over(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    first, second = recording.block(resent(1)), recording.block(resent(6))
    found = list(scan(first + b"x" * 50 + MAGIC + b"y" * 300 + second))
    assert [type(part) for part in found] == [Block, Damage, Block]


def test_a_hole_between_two_runs_of_the_recorder_is_named(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    again = Recording(tmp_path, session=2)
    again.wall_s = again.mono_s = 60.0
    again.block(resent(61))
    assert recording.gaps(0, 65) == [(5.0, 60.0, read.NOT_RUN)]
    assert recording.gaps(6, 50) == [(6.0, 50.0, read.NOT_RUN)]


def test_what_is_older_than_the_recording_and_what_is_not_written_yet_are_named(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    assert recording.gaps(-20, 30) == [(-20.0, 0.0, read.NOT_RECORDED), (5.0, 30.0, read.NOT_WRITTEN)]


def test_a_clock_set_forward_is_a_named_hole_and_one_set_back_loses_nothing(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    recording.wall_s += 3600
    recording.block(resent(6))
    assert recording.gaps(0, 3610) == [(5.0, 3605.0, "the node's clock was set forward")]
    recording.wall_s -= 3600
    recording.block(resent(11))
    assert sorted(times(recording.events(0, 20))) == [1, 11]


def test_no_recording_at_all_is_a_gap(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    assert recording.gaps(0, 10) == [(0.0, 10.0, read.NOT_RECORDED)]


def test_records_of_a_newer_version_are_a_gap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    (segment,) = segments(tmp_path)
    data = segment.path.read_bytes()
    assert decode_block(data) is not None and data[4:6] == VERSION.to_bytes(2, "little")
    monkeypatch.setattr("kubectl_genainet.history.blocks.VERSION", VERSION + 1)
    recording.block(resent(6))
    monkeypatch.undo()
    assert [why for *_, why in recording.gaps(0, 10)] == [read.NOT_WRITTEN]


def test_the_oldest_goes_first_and_the_size_holds(tmp_path: Path) -> None:
    bounds = RecordingLimits(size=4 * store.LEAST_SEGMENT, age_s=1e6)
    recording = Recording(tmp_path, bounds)
    noise = [sightings(os.urandom(160 * 300)) for _ in range(2)]
    for _ in range(40):
        recording.block(*noise)
    total = sum(segment.path.stat().st_size for segment in segments(tmp_path))
    assert total <= bounds.size and recording.writer.removed_until_ns > 0
    since, until, why = recording.gaps(0, 200)[0]
    assert (since, why) == (0.0, read.NOT_RECORDED) and 0 < until < 200


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    recording = Recording(tmp_path, RecordingLimits(size=64 << 20, age_s=100.0))
    for _ in range(60):
        recording.block(resent(0))
        if recording.writer.is_old(1_700_000_000 * 10**9 + int(recording.wall_s * 1e9)):
            recording.writer.end_segment()
    kept = segments(tmp_path)
    assert len(kept) > 1 and kept[0].since_ns >= (1_700_000_000 + 300 - 100 - 15) * 10**9


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    folder = tmp_path / "history"
    Recording(folder).block(resent(1))
    (segment,) = segments(folder)
    assert stat.S_IMODE(segment.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_disk_that_fills_within_a_block_leaves_no_half_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recording = Recording(tmp_path)
    recording.block(resent(1))
    (segment,) = segments(tmp_path)
    size, real = segment.path.stat().st_size, os.write

    def full(fd: int, data: Any) -> int:
        if len(data) > 10:
            return real(fd, data[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    recording.block(resent(6))
    monkeypatch.undo()
    assert recording.writer.full == "No space left on device"
    assert segment.path.stat().st_size == size
    recording.block(resent(11))
    assert recording.writer.full == "" and times(recording.events(0, 15)) == [1, 11]
    assert recording.gaps(0, 15) == [(5.0, 10.0, "records are missing")]


def test_a_writer_takes_up_where_an_earlier_one_was_killed(tmp_path: Path) -> None:
    Recording(tmp_path).block(resent(1))
    (segment,) = segments(tmp_path)
    segment.path.write_bytes(segment.path.read_bytes() + b"half a block")
    again = Recording(tmp_path, session=2)
    again.wall_s = again.mono_s = 5.0
    again.block(resent(6))
    assert [s.number for s in segments(tmp_path)] == [1, 2]
    assert times(again.events(0, 10)) == [1, 6] and again.gaps(0, 10) == []


def test_an_index_spares_blocks_without_the_address(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    blocks = [recording.block(resent(1)), recording.block(resent(6, dst="10.96.0.9"))]
    wanted = Selection(addresses=("10.96.0.9",))
    assert wanted.keys is not None
    decoded = [decode_block(data) for data in blocks]
    assert [block is not None and block.has_any(wanted.keys) for block in decoded] == [False, True]


def test_a_connection_is_given_whole_where_one_of_its_tuples_is_asked_for(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    recording.block(sightings(sighting(1), sighting(1.1, port=50_000, dst="10.0.0.9")))
    recording.block(sightings(sighting(6, dst="10.244.9.9"), sighting(6, port=50_001, dst="10.0.0.9")), tick(7))
    events = recording.events(0, 10, Selection({RecordPart.TRACE}, ("10.96.0.5",)))
    assert [len(e.data) // 160 for e in events if isinstance(e, Sightings)] == [1, 1]


def test_the_header_is_as_documented() -> None:
    assert HEADER.size == 4 + 2 + 2 + 4 * 3 + 8 * 6 + 4 + 16 and len(BOOT) == 16


def test_losses_are_told_whatever_addresses_are_asked_for(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    lost = LostEvents(node=NODE, probe="packet", count=3, where="ring buffer")
    recording.block(lost)
    recording.block(resent(6, dst="10.96.0.9"))
    events = recording.events(0, 10, Selection({RecordPart.TRACE}, ("10.96.0.9",)))
    assert lost in events and times(events) == [6]


def test_what_an_answer_begins_with_ends_at_its_first_damage(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    first, second, third = (recording.block(resent(at)) for at in (1, 6, 11))
    assert [b.data for b in leading(first + second + third)] == [first, second, third]
    assert [b.data for b in leading(first + b"?" + third)] == [first]
    assert [b.data for b in leading(first + second[:-1])] == [first]


def test_reports_that_differ_in_their_counters_only_are_given_once_and_the_last(tmp_path: Path) -> None:
    recording = Recording(tmp_path)
    for second, (count, mtu) in enumerate(((1, 1500), (2, 1500), (3, 1400), (4, 1400), (5, 1400))):
        devices = (Device(name="eth0", ifindex=2, mtu=mtu),)
        host = NetNs(inode=1, host=True, devices=devices, conntrack_count=count)
        recording.block(NodeReport(node=NODE, t_ns=MONO + second * 5 * SECOND, namespaces=(host,)), flags=Flag.STATE)
    asked = recording.events(0, 25, Selection((RecordPart.TRACE,), ("10.96.0.5",)))
    counts = [event.namespaces[0].conntrack_count for event in asked if isinstance(event, NodeReport)]
    assert counts == [1, 3, 5]
    everything = [event for event in recording.events(0, 25) if isinstance(event, NodeReport)]
    assert len(everything) == 5


@pytest.mark.parametrize(
    ("bundle", "kinds"),
    [
        ("mtu-blackhole", {"Sightings", "FlowCounters", "PacketDropped", "IcmpError", "TcpRetransmit", "RulesetDump"}),
        ("drops-mtu-blackhole", {"DropSampled", "DropCount", "IcmpCount", "RetransmitCount", "EstablishedCount"}),
        ("dns-timeout", {"DnsTransaction", "DnsDropped", "NodeReport", "Bucket", "Tick", "Hello"}),
    ],
)
def test_every_byte_changed_of_what_the_lab_recorded_takes_away_its_own_block(
    bundle: str, kinds: set[str], tmp_path: Path
) -> None:
    begin, end = record(read_bundle(bundle_of(bundle)), tmp_path)
    recorded: set[str] = set()
    for folder in tmp_path.iterdir():
        (segment,) = segments(folder)
        whole = segment.path.read_bytes()
        blocks = [part for part in scan(whole) if isinstance(part, Block)]
        recorded |= {type(each).__name__ for block in blocks for each in block.records()}
        changed, offset = bytearray(whole), 0
        for hit in blocks:
            others = [block.data for block in blocks if block is not hit]
            for place in range(offset, offset + len(hit.data)):
                changed[place] ^= 1 << place % 8
                kept = [part.data for part in scan(bytes(changed)) if isinstance(part, Block)]
                changed[place] ^= 1 << place % 8
                assert kept == others, place
            changed[offset + len(hit.data) // 2] ^= 0x55
            segment.path.write_bytes(changed)
            reader = RangeReader(folder, folder.name, begin, end)
            (*_, last) = node_range(folder.name, reader.blocks()).blocks
            gaps = [each for each in last.records() if isinstance(each, Gap)]
            assert gaps or hit.covers.wall_from >= end, (folder.name, hit.number)
            changed[offset + len(hit.data) // 2] ^= 0x55
            offset += len(hit.data)
    assert kinds <= recorded


def test_few_bytes_are_stored_as_they_are_and_many_deflated() -> None:
    covers = Span(1, 2, 1, 2)
    for count in (0, 1, 2, 100):
        records: list[Event] = [tick(number) for number in range(count)]
        data = encode_block(records, covers, session=1, number=1, boot_id=bytes(16))
        block = decode_block(data)
        assert block is not None
        assert block.records() == records
        assert len(data) - HEADER.size - 4 < max(block.plain_size + 12, 40)
