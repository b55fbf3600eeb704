"""What a probe declares about itself; `agent.loader` does the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from kubectl_genainet.agent.headers import View
from kubectl_genainet.model.events import Event

MapReader = Callable[[str, int, int], Iterable[tuple[bytes, bytes]]]


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
    """What decoding needs to know of the node."""

    node: str
    drop_reasons: dict[int, str]
    symbol: Callable[[int], str]  # kernel address -> symbol name, "" if unknown


@dataclass(frozen=True, slots=True)
class Probe:
    """A probe: `source` below probes/, the views it reads, where it attaches, and `decode` (ring bytes -> event).

    `drain` turns what the probe counts in maps into events; it gets a reader of maps (name, key size, value size).
    """

    name: str
    source: str
    views: tuple[View, ...]
    attachments: tuple[Attachment, ...]
    decode: Callable[[bytes, DecodeContext], Event]
    drain: Callable[[MapReader, DecodeContext, dict[bytes, int], int], Iterable[Event]] | None = None
