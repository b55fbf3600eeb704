"""Segments on a disk: appended block by block, bounded in size and age, the oldest removed first.

A block is on the disk when `append` returns, or it is counted as not written: what a disk that is full, or a machine that
stops, takes away is a named gap. Files are for their owner only.
"""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

_NAME = re.compile(r"(\d{20})-(\d{20})\.seg")
SEGMENTS = 16  # that a recording is divided into: so much of it goes at once
LEAST_SEGMENT = 256 << 10


@dataclass(frozen=True, slots=True)
class RecordingLimits:
    """What a recording may take: bytes on the disk, and seconds into the past."""

    size: int = 256 << 20
    age_s: float = 24 * 3600.0

    @property
    def segment(self) -> int:
        return max(LEAST_SEGMENT, self.size // SEGMENTS)


@dataclass(frozen=True, slots=True)
class Segment:
    """A file. `since_ns` is the wall-clock time of its start; segments follow each other by `number`, whatever the clocks did."""

    path: Path
    number: int
    since_ns: int


def segments(folder: Path) -> list[Segment]:
    """Those in a folder, in the order in which they were written; none where there is no folder. Raises OSError for one
    that can't be read."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = filter(None, map(_NAME.fullmatch, names))
    listed = (Segment(folder / match[0], int(match[1]), int(match[2])) for match in matches)
    return sorted(listed, key=lambda segment: segment.number)


class SegmentWriter:
    """Appends blocks. `full` says why the last one is not on the disk ("": it is), `removed_until_ns` up to which wall-clock
    time the oldest were removed (0: none were)."""

    def __init__(self, folder: Path, bounds: RecordingLimits) -> None:
        """Raises OSError where the folder can't be made or read."""
        self.folder, self.bounds = folder, bounds
        self.full = ""
        self.removed_until_ns = 0
        self._fd: int | None = None
        self._size = 0
        self._began_ns = 0
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)

    @property
    def needs_state(self) -> bool:
        """Whether the next block begins a segment, and so must hold all that later ones build on."""
        return self._fd is None or self._size >= self.bounds.segment

    def append(self, block: bytes, now_ns: int) -> bool:
        """Writes a block, to the disk; False where that failed. A new segment is begun where the last is large enough, or a
        part of the age old."""
        if self.needs_state:
            self._close()
        self.retain(now_ns, room_for=len(block))
        for last_try in (False, True):
            try:
                self._write(block, now_ns)
                self.full = ""
                return True
            except OSError as error:
                self.full = error.strerror or str(error)
                if last_try or not self._remove_oldest():
                    break
        return False

    def end_segment(self) -> None:
        """The next block begins another segment."""
        self._close()

    def is_old(self, now_ns: int) -> bool:
        """Whether the current segment should end: it holds a part of the age that would go at once."""
        return self._fd is not None and abs(now_ns - self._began_ns) >= self.bounds.age_s / SEGMENTS * 1e9

    def _write(self, block: bytes, now_ns: int) -> None:
        if self._fd is None:
            self._open(now_ns)
        assert self._fd is not None
        try:
            unwritten = memoryview(block)
            while unwritten:
                unwritten = unwritten[os.write(self._fd, unwritten) :]
            os.fdatasync(self._fd)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self._size)  # half a block would cost its readers a search
            raise
        self._size += len(block)

    def _open(self, now_ns: int) -> None:
        number = max((s.number for s in segments(self.folder)), default=0) + 1
        path = self.folder / f"{number:020d}-{max(now_ns, 0):020d}.seg"
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size, self._began_ns = 0, now_ns
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def retain(self, now_ns: int, *, room_for: int = 0) -> None:
        """Removes what is too old, and the oldest beyond the size."""
        listed = segments(self.folder)
        sizes = {s.path: _size(s.path) for s in listed}
        total = sum(sizes.values()) + room_for
        for number, segment in enumerate(listed[:-1] if self._fd is not None else listed):
            # A segment lasts until the next begins.
            until = listed[number + 1].since_ns if number + 1 < len(listed) else segment.since_ns
            too_old = until < now_ns - self.bounds.age_s * 1e9 and number + 1 < len(listed)
            if total <= self.bounds.size and not too_old:
                return
            if not self._remove(segment, until):
                return
            total -= sizes[segment.path]

    def _remove_oldest(self) -> bool:
        listed = segments(self.folder)
        mine = 1 if self._fd is not None else 0
        if len(listed) <= mine:
            return False
        return self._remove(listed[0], listed[1].since_ns if len(listed) > 1 else listed[0].since_ns)

    def _remove(self, segment: Segment, until_ns: int) -> bool:
        try:
            segment.path.unlink()
        except OSError:
            return False
        self.removed_until_ns = max(self.removed_until_ns, until_ns)
        return True

    def _close(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        self._size = 0

    close = _close


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
