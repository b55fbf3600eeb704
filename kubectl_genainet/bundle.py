"""Record and replay: everything a diagnosis needs in one file.

A bundle is gzip'd NDJSON: a header, the cluster's objects, then the agents' records in the order they came. It is written in
whole gzip members, so that what is on the disk can be read however the recording ends; for its owner only, since it holds
what the cluster's objects and packets say.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import stat
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from kubectl_genainet import __version__, wire
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event

SCHEMA = 1
_MEMBER = 1 << 20  # bytes of records in a gzip member
# What gzip makes of records is a tenth or a twentieth of them; it could make a thousandth of zeros.
_PLAIN, _RATIO = 4 << 20, 100


class Header(msgspec.Struct, frozen=True, tag_field="kind", tag="bundle"):
    """The first line. `command` and `arguments` say what was recorded, so that a replay can default to the same.

    Of a range that recorders kept: `just_changed` has the Services ("namespace/name") whose endpoints changed shortly before it
    began, and when (ns since 1970); `unknown_at_begin` what is missing of the objects then; `objects_unknown` why none of that
    time are known.
    """

    schema: int
    tool: str
    created: str
    command: str = ""
    arguments: dict[str, Any] = {}
    redacted: bool = False
    just_changed: dict[str, int] = {}
    unknown_at_begin: list[str] = []
    objects_unknown: str = ""

    @property
    def renamed_domains(self) -> dict[str, str]:
        """What the search domains were renamed to where names were redacted."""
        renamed = self.arguments.get("search")
        return {str(k): str(v) for k, v in renamed.items()} if isinstance(renamed, dict) else {}


@dataclass(frozen=True, slots=True)
class Bundle:
    """`events` can be gone through as often as one likes; those of a long time are made anew each time."""

    header: Header
    snapshot: ClusterSnapshot
    events: Iterable[Event]


class BundleWriter:
    """Writes a bundle as it happens; use as a context manager.

    A disk that is full does not end the run: the file is finished with what it has, and `problem` says so.
    """

    def __init__(self, path: str | Path, header: Header, snapshot: ClusterSnapshot) -> None:
        self.problem = ""
        self._path = path
        self._waiting: list[bytes] = []
        self._size = 0
        try:
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise GenainetError(f"can't write the bundle {path}: {error.strerror}") from None
        self._is_file = stat.S_ISREG(os.fstat(self._fd).st_mode)
        if self._is_file:  # one that was there may be open to others
            with contextlib.suppress(OSError):
                os.fchmod(self._fd, 0o600)
        self._put(msgspec.json.encode(header) + b"\n")
        self.write(ClusterChanged.of(snapshot))

    def write(self, event: Event) -> None:
        self._put(wire.encode(event))

    def _put(self, line: bytes) -> None:
        self._waiting.append(line)
        self._size += len(line)
        if self._size >= _MEMBER:
            self._flush()

    def _flush(self) -> None:
        """What waits, as one gzip member: all of it is in the file, or nothing."""
        data, self._waiting, self._size = b"".join(self._waiting), [], 0
        if self.problem or not data:
            return
        before = os.lseek(self._fd, 0, os.SEEK_CUR) if self._is_file else 0
        try:
            unwritten = memoryview(gzip.compress(data, compresslevel=6))
            while unwritten:
                unwritten = unwritten[os.write(self._fd, unwritten) :]
        except OSError as error:
            self.problem = f"the bundle {self._path} ends early: {error.strerror}"
            if self._is_file:
                with contextlib.suppress(OSError):
                    os.ftruncate(self._fd, before)

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._flush()
        finally:
            try:
                os.close(self._fd)
            except OSError as failed:  # a network file system tells it now
                self.problem = self.problem or f"the bundle {self._path} may be incomplete: {failed.strerror}"


def new_header(command: str, arguments: dict[str, Any], created: str, *, redacted: bool = False) -> Header:
    return Header(SCHEMA, __version__, created, command, arguments, redacted)


def read_bundle(path: str | Path) -> Bundle:
    """Reads a whole bundle. Raises GenainetError, with what to do, for one that is damaged, cut short or newer."""
    try:
        with gzip.open(path, "rb") as file:
            return _read(path, _lines(path, file, os.path.getsize(path)))
    except FileNotFoundError:
        raise GenainetError(f"there is no bundle {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise GenainetError(
            f"the bundle {path} is damaged or cut short: {error}",
            hint="Copy it again, or record it anew with --record.",
        ) from None


def _lines(path: str | Path, file: gzip.GzipFile, size: int) -> Iterator[bytes]:
    """The lines of the file. Raises GenainetError where they grow beyond what a recording of this size holds."""
    allowed_bytes = _PLAIN + _RATIO * size
    while line := file.readline(min(allowed_bytes, wire.MAX_RECORD) + 1):
        allowed_bytes -= len(line)
        if allowed_bytes < 0 or len(line) > wire.MAX_RECORD:
            raise GenainetError(
                f"the bundle {path} unpacks to more than a recording of its size can hold: it is damaged, or made to be so"
            )
        yield line


def _read(path: str | Path, lines: Iterable[bytes]) -> Bundle:
    reader = iter(lines)
    header = _line(path, reader, "header", Header)
    if header.schema > SCHEMA:
        raise GenainetError(
            f"the bundle {path} has schema {header.schema} (by version {header.tool}); this version reads up to "
            f"{SCHEMA}",
            hint="Install the version that wrote it, or a newer one.",
        )
    stored = _line(path, reader, "snapshot", ClusterChanged)
    return Bundle(header, stored.snapshot, tuple(map(wire.decode, reader)))


def _line(path: str | Path, reader: Iterator[bytes], what: str, shape: type[Any]) -> Any:
    try:
        return msgspec.json.decode(next(reader), type=shape)
    except (StopIteration, *DECODE_ERRORS):
        raise GenainetError(f"{path} is not a bundle of this tool: its {what} can't be read") from None
