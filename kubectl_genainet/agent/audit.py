"""A line in the agent's log for each session: what was asked for, by which connection, for how long. JSON, on stderr."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import msgspec

from kubectl_genainet.wire import FilterEntry, Filters, HistoryRequest, TraceRequest

_SHOWN = 20  # filters; the rest is a number


@dataclass(slots=True)
class AuditEntry:
    """How a session ended: "its own", "the client went away", "overdue", or "refused" where it never ran."""

    end: str = "refused"


@contextlib.asynccontextmanager
async def session(name: str, peer: str, request: TraceRequest) -> AsyncIterator[AuditEntry]:
    """Writes a line at the start of the block and one at its end."""
    entry, begun = AuditEntry(), time.monotonic()
    _write(
        "session",
        session=name,
        peer=peer,
        probes=request.probes,
        exact=request.exact,
        http=request.http,
        timeout_s=request.timeout_s,
        check_connections=msgspec.to_builtins(request.check) if request.check is not None else None,
        **_named(request.filters),
        **_own(request.own_filters),
    )
    try:
        yield entry
    finally:
        _write("session ended", session=name, seconds=round(time.monotonic() - begun, 1), end=entry.end)


@dataclass(slots=True)
class HistoryRead:
    """How many bytes of the recording were sent."""

    sent: int = 0


@contextlib.asynccontextmanager
async def history(peer: str, request: HistoryRequest) -> AsyncIterator[HistoryRead]:
    """Writes a line at the end of the block, however it ends: somebody has read of the node's recording."""
    reading, begun = HistoryRead(), time.monotonic()
    try:
        yield reading
    finally:
        _write(
            "history read",
            peer=peer,
            since=request.since_ns // 10**9,
            until=request.until_ns // 10**9,
            parts=request.parts,
            addresses=len(request.addresses),
            first_addresses=request.addresses[:_SHOWN],
            sent_bytes=reading.sent,
            seconds=round(time.monotonic() - begun, 1),
        )


def changed(name: str, filters: Filters) -> None:
    shown = _own(filters) if isinstance(filters, dict) else _named(filters)
    _write("filters changed", session=name, **shown)


def removed(what: str, name: str) -> None:
    """Something that a session which was killed had left on the node; `name` is "" where that is not known."""
    _write("removed", what=what, session=name)


def _named(filters: tuple[FilterEntry, ...]) -> dict[str, Any]:
    shown = [f"{f.ip} {f.port} {f.protocol}".rstrip() for f in filters[:_SHOWN]]
    return {"filters": len(filters), "first_filters": shown}


def _own(filters: dict[str, tuple[FilterEntry, ...]]) -> dict[str, Any]:
    return {"own_filters": {probe: _named(own) for probe, own in filters.items()}} if filters else {}


def _write(what: str, /, **fields: Any) -> None:
    line = msgspec.json.encode({"audit": what, "time": round(time.time(), 3), **fields})
    print(line.decode(), file=sys.stderr, flush=True)
