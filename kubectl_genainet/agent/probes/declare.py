"""What a probe declares about itself; `agent.loader` does the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from kubectl_genainet.agent.headers import View
from kubectl_genainet.model.events import Event

MapReader = Callable[[str, int, int], Iterable[tuple[bytes, bytes]]]


class Maps(Protocol):
    """A loaded probe's maps that are not per-CPU."""

    def pairs(self, name: str, key_size: int, value_size: int) -> Iterable[tuple[bytes, bytes]]:
        """Every entry."""

    def delete(self, name: str, key: bytes) -> None:
        """Removes an entry; one that is gone already is no error."""


@dataclass(frozen=True, slots=True)
class Attachment:
    """One C function on one raw tracepoint. `group` and `tracepoint` name it as tracefs does."""

    group: str
    tracepoint: str
    function: str
    required: bool = True
    without: str = ""  # what the user misses where the kernel lacks it


@dataclass(frozen=True, slots=True)
class DecodeContext:
    """What decoding needs to know of the node; `options` are the request's."""

    node: str
    drop_reasons: dict[int, str]
    symbol: Callable[[int], str]  # kernel address -> symbol name, "" if unknown
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe: `source` below probes/, the views it reads, where it attaches, and `decode` (ring bytes -> event).

    `drain` turns what the probe counts in maps into events; it gets a reader of maps (name, key size, value size).
    `sweep` takes out of the maps what no packet will complete any more: it gets the maps, the time, and whether the
    session is at its end. `modes` are the values that the request's option "mode" may have, with their numbers in C.
    """

    name: str
    source: str
    views: tuple[View, ...]
    attachments: tuple[Attachment, ...]
    decode: Callable[[bytes, DecodeContext], Event]
    drain: Callable[[MapReader, DecodeContext, dict[bytes, int], int], Iterable[Event]] | None = None
    sweep: Callable[[Maps, DecodeContext, int, bool], Iterable[Event]] | None = None
    modes: dict[str, int] = field(default_factory=dict)
    cflags: tuple[str, ...] = ()
