"""What a loss of power leaves of a recording: what was synced, and of the rest any part, zeros or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubectl_genainet.history import read
from kubectl_genainet.history.blocks import Block, scan
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.store import segments
from kubectl_genainet.model.events import Event, TcpRetransmit
from kubectl_genainet.model.history import Gap
from tests.unit.history.disk import Fed
from tests.unit.history.recording import NODE, SECOND, WALL

FLUSH_S = 5
PAGE = 4096
LENGTH_S = 17


@dataclass
class Storage:
    """A file's bytes that would outlive a loss of power, as its writer has synced them."""

    folder: Path
    synced: dict[str, bytes] = field(default_factory=dict)
    listed: set[str] = field(default_factory=set)  # whose names would

    def unsynced(self) -> dict[str, tuple[bytes, bytes]]:
        """By name: what is on the disk for certain, and what may be."""
        states = {}
        for segment in segments(self.folder):
            data, certain = segment.path.read_bytes(), self.synced.get(segment.path.name, b"")
            if data != certain:
                assert data.startswith(certain)
                states[segment.path.name] = (certain, data[len(certain) :])
        return states


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Notes what is synced; the calls are real."""
    storage = Storage(tmp_path / "recording")
    fdatasync, fsync = os.fdatasync, os.fsync

    def sync_file(fd: int) -> None:
        fdatasync(fd)
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        storage.synced[path.name] = path.read_bytes()

    def sync_folder(fd: int) -> None:
        fsync(fd)
        storage.listed |= set(os.listdir(fd))

    monkeypatch.setattr(os, "fdatasync", sync_file)
    monkeypatch.setattr(os, "fsync", sync_folder)
    return storage


def events_of(folder: Path, until_s: float) -> list[Event]:
    reader = RangeReader(folder, NODE, WALL, WALL + int(until_s * SECOND))
    return [record for block in node_range(NODE, reader.blocks()).blocks for record in block.records()]


def kept_until_s(events: list[Event]) -> float:
    """The end of what is recorded; what comes after it is a named gap."""
    gap = max((event for event in events if isinstance(event, Gap)), key=lambda gap: gap.until_ns)
    assert gap.why in (read.NOT_WRITTEN, read.DAMAGED, read.NOT_RECORDED)
    return (gap.since_ns - WALL) / SECOND


def ports(events: list[Event]) -> list[int]:
    return [event.flow.sport for event in events if isinstance(event, TcpRetransmit)]


def test_whenever_the_power_goes_what_is_older_than_five_seconds_is_on_the_disk(storage: Storage) -> None:
    fed = Fed(storage.folder)
    for _ in range(4 * LENGTH_S):
        fed.second()
        assert not storage.unsynced()
        assert {segment.path.name for segment in segments(storage.folder)} <= storage.listed
        if fed.at_s >= FLUSH_S:
            events = events_of(storage.folder, fed.at_s + 60)
            assert kept_until_s(events) >= fed.at_s - FLUSH_S
            assert ports(events) == [30_000 + second for second in range(1, len(ports(events)) + 1)]
            assert len(ports(events)) >= fed.at_s - FLUSH_S


def tails(block: bytes) -> Iterator[bytes]:
    """What may be on the disk of a block that was not synced: any part of it, with zeros or without; later pages alone."""
    for length in range(len(block)):
        yield block[:length]
    for length in (*range(0, len(block), 64), len(block) - 5, len(block) - 1):
        yield block[:length] + bytes(len(block) - length)
    for page in range(PAGE, len(block), PAGE):
        yield bytes(page) + block[page:]


def test_whatever_is_left_of_a_block_that_was_not_synced_costs_that_block_only(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed = Fed(storage.folder)
    for _ in range(LENGTH_S):
        fed.second()
    before = events_of(storage.folder, fed.at_s + 60)
    monkeypatch.setattr(os, "fdatasync", lambda _: None)  # the power goes before the next block is on the disk
    fed.second(fed.incompressible(6 * PAGE))
    fed.recorder.flush()
    ((name, (certain, block)),) = storage.unsynced().items()
    assert len(block) > 2 * PAGE and ports(before)
    for tail in tails(block):
        assert not [part for part in scan(tail) if isinstance(part, Block)]
    for tail in (
        b"",
        block[:10],
        block[: len(block) // 2],
        bytes(len(block)),
        block[:-1] + b"\0",
        bytes(PAGE) + block[PAGE:],
    ):
        (storage.folder / name).write_bytes(certain + tail)
        events = events_of(storage.folder, fed.at_s + 60)
        assert ports(events) == ports(before)
        assert kept_until_s(events) == kept_until_s(before)


def test_after_a_loss_of_power_the_recording_goes_on_and_the_hole_is_named(storage: Storage) -> None:
    fed = Fed(storage.folder)
    for _ in range(LENGTH_S):
        fed.second()
    (segment,) = segments(storage.folder)
    with segment.path.open("ab") as file:
        file.write(bytes(PAGE))  # a page that the file system had allocated
    again = Fed(storage.folder, at_s=100, up_s=20)
    for _ in range(LENGTH_S):
        again.second()
    events = events_of(storage.folder, 110)
    gaps = {event.why: (event.since_ns - WALL) / SECOND for event in events if isinstance(event, Gap)}
    assert set(gaps) == {read.DAMAGED}
    assert LENGTH_S - FLUSH_S <= gaps[read.DAMAGED] <= LENGTH_S
    assert {30_000 + second for second in range(101, 110)} <= set(ports(events))
