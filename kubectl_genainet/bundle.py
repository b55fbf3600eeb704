"""Record and replay: everything a diagnosis needs in one file.

A bundle is gzip'd NDJSON: a header, the cluster's objects, then the agents' records in the order they came.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from kubectl_genainet import __version__, wire
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged, Event

SCHEMA = 1


class Header(msgspec.Struct, frozen=True, tag_field="kind", tag="bundle"):
    """The first line. `command` and `arguments` say what was recorded, so that a replay can default to the same."""

    schema: int
    tool: str
    created: str
    command: str = ""
    arguments: dict[str, Any] = {}
    redacted: bool = False


@dataclass(frozen=True, slots=True)
class Bundle:
    header: Header
    snapshot: ClusterSnapshot
    events: tuple[Event, ...]


class BundleWriter:
    """Writes a bundle as it happens; use as a context manager. The file is complete only when closed."""

    def __init__(self, path: str | Path, header: Header, snapshot: ClusterSnapshot) -> None:
        try:
            self._file = gzip.open(path, "wb", compresslevel=6)  # noqa: SIM115 - closed by __exit__
        except OSError as error:
            raise GenainetError(f"can't write the bundle {path}: {error.strerror}") from None
        self._file.write(msgspec.json.encode(header) + b"\n")
        self.write(ClusterChanged.of(snapshot))

    def write(self, event: Event) -> None:
        self._file.write(wire.encode(event))

    def __enter__(self) -> BundleWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def new_header(command: str, arguments: dict[str, Any], created: str, *, redacted: bool = False) -> Header:
    return Header(SCHEMA, __version__, created, command, arguments, redacted)


def read_bundle(path: str | Path) -> Bundle:
    """Reads a whole bundle. Raises GenainetError, with what to do, for one that is damaged, cut short or newer."""
    try:
        with gzip.open(path, "rb") as file:
            return _read(path, file)
    except FileNotFoundError:
        raise GenainetError(f"there is no bundle {path}") from None
    except (OSError, EOFError, zlib.error) as error:
        raise GenainetError(
            f"the bundle {path} is damaged or cut short: {error}",
            hint="Copy it again, or record it anew with --record.",
        ) from None


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
    except (StopIteration, msgspec.DecodeError, UnicodeDecodeError):
        raise GenainetError(f"{path} is not a bundle of this tool: its {what} can't be read") from None
