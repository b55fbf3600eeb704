"""What a full disk, a kill and a node's restart leave of a recording: real files, a real tmpfs, real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec

from kubectl_genainet.history import read
from kubectl_genainet.history.blocks import Block, Damage, scan
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.store import segments
from kubectl_genainet.model.events import Event, TcpRetransmit
from kubectl_genainet.model.history import Gap
from tests.unit.history.disk import Fed
from tests.unit.history.recording import NODE, SECOND, WALL, hello

DISK = [sys.executable, "-m", "tests.unit.history.disk"]
ROOM = 200_000  # bytes of a disk: it is full long before the recording is
KILLS = 8
FLUSH_S = 5


def events_of(folder: Path, since_s: float, until_s: float) -> list[Event]:
    reader = RangeReader(folder, NODE, WALL + int(since_s * SECOND), WALL + int(until_s * SECOND))
    return [record for block in node_range(NODE, reader.blocks()).blocks for record in block.records()]


def gaps_of(folder: Path, since_s: float, until_s: float) -> list[tuple[float, float, str]]:
    gaps = [event for event in events_of(folder, since_s, until_s) if isinstance(event, Gap)]
    return [((gap.since_ns - WALL) / SECOND, (gap.until_ns - WALL) / SECOND, gap.why) for gap in gaps]


def parts_of(folder: Path) -> list[Block | Damage]:
    return [part for segment in segments(folder) for part in scan(segment.path.read_bytes())]


def test_a_full_disk_is_a_named_gap_and_no_segment_is_unreadable(tmp_path: Path) -> None:
    disk, kept = tmp_path / "disk", tmp_path / "kept"
    disk.mkdir()
    recording = disk / "recording"
    # The tmpfs lies in a mount namespace of its own, which goes with the process: what is on it is copied out.
    script = f'mount -t tmpfs -o size={ROOM} none "$1" && shift && "$@" && cp -r {recording} {kept}'
    own = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--mount"]
    command = [*own, "sh", "-c", script, "sh", str(disk), *DISK, "fill", str(recording)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["disk"] == told["writer"] == "No space left on device"
    assert parts_of(kept) and not [part for part in parts_of(kept) if isinstance(part, Damage)]
    (gap,) = [
        gap for gap in gaps_of(kept, told["full_at_s"] - 1, told["room_at_s"] + 10) if gap[2] == read.NOT_WRITABLE
    ]
    assert gap[0] <= told["full_at_s"] + FLUSH_S and told["room_at_s"] <= gap[1] <= told["room_at_s"] + FLUSH_S
    assert not gaps_of(kept, told["room_at_s"] + FLUSH_S + 1, told["room_at_s"] + 15)
    # The oldest had gone for room by then, and that is said too.
    assert not {path.name for path in kept.glob("*.seg")} & set(told["before"])
    assert [gap for gap in gaps_of(kept, 0, 8) if gap[2] in (read.NOT_WRITABLE, read.NOT_RECORDED)]


def test_wherever_a_recorder_is_killed_all_of_its_blocks_are_readable(tmp_path: Path) -> None:
    for number in range(KILLS):
        folder = tmp_path / str(number)
        with subprocess.Popen([*DISK, "write", str(folder)], stdout=subprocess.PIPE, text=True) as writing:
            assert writing.stdout is not None
            for _ in range(number + 1):
                written_s = int(writing.stdout.readline())
            writing.send_signal(signal.SIGKILL)
            written_s = max(written_s, *map(int, writing.stdout.read().split()), 0)
        damaged = [part for part in parts_of(folder) if isinstance(part, Damage)]
        assert all(part.cut for part in damaged)  # at most the block that was being written
        seen = [event.t_ns for event in events_of(folder, 0, written_s) if isinstance(event, TcpRetransmit)]
        assert len(seen) >= written_s - FLUSH_S
        (gap,) = gaps_of(folder, 0, written_s + 60)
        assert gap[1:] == (written_s + 60, read.NOT_WRITTEN) and gap[0] >= written_s - FLUSH_S


def test_a_restart_of_the_node_is_a_named_gap_between_two_boots(tmp_path: Path) -> None:
    """Another boot id, and a monotonic clock that begins anew."""
    before = Fed(tmp_path, up_s=5000)
    for _ in range(22):
        before.second()
    booted = msgspec.structs.replace(hello(), boot_id="00000000-0000-0000-0000-0000000000b2")
    after = Fed(tmp_path, at_s=90, booted=booted, up_s=3)
    for _ in range(20):
        after.second()
    (gap,) = gaps_of(tmp_path, 0, 108)
    assert gap[1:] == (90, read.NOT_RUN) and 22 - FLUSH_S <= gap[0] <= 22
    assert len({part.boot_id for part in parts_of(tmp_path) if isinstance(part, Block)}) == 2
