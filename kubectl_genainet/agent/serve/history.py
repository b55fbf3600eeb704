"""What the node has recorded, for those who may read it: a range of time, in blocks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kubectl_genainet.agent import audit
from kubectl_genainet.agent.serve.http import HttpConnection
from kubectl_genainet.errors import InputError
from kubectl_genainet.history.blocks import ALIVE
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.select import RecordPart, Selection
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import parse_address
from kubectl_genainet.wire import MAX_HISTORY_ADDRESSES, HistoryRequest

MAX_RANGE_NS = 31 * 24 * 3600 * 10**9
MAX_BYTES = 1 << 30
FRESH_NS = 10_000_000_000  # a range that reaches so near to now wants what is not written yet
READERS = 2
BATCH = 256 << 10  # bytes that are read before they are sent
ALIVE_S = 1.0


@dataclass(slots=True)
class History:
    """The recording in `folder`. `flush` has what is not written yet on the disk."""

    folder: Path
    node: str
    flush: Callable[[], Awaitable[None]]
    _readers: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS))

    async def blocks(self, request: HistoryRequest) -> AsyncGenerator[bytes]:
        """Some at a time; at most `max_bytes`, then nothing: whoever reads sees that the last block is missing. While they
        are searched for, and while others read, ALIVE each second.

        Raises OSError.
        """
        found = self._found(request)
        step = asyncio.ensure_future(anext(found, b""))
        try:
            while True:
                while not (await asyncio.wait({step}, timeout=ALIVE_S))[0]:
                    yield ALIVE
                if not (data := step.result()):
                    return
                yield data
                step = asyncio.ensure_future(anext(found, b""))
        finally:
            step.cancel()
            await asyncio.wait({step})
            await found.aclose()

    async def _found(self, request: HistoryRequest) -> AsyncGenerator[bytes]:
        if request.until_ns > time.time_ns() - FRESH_NS:
            await self.flush()
        parts = tuple(map(RecordPart, request.parts)) or None
        wanted = Selection(parts, request.addresses or None)
        reader = RangeReader(self.folder, self.node, request.since_ns, request.until_ns, wanted).blocks()
        sent = 0
        async with self._readers:
            while data := await asyncio.to_thread(_some, reader, request.max_bytes - sent):
                sent += len(data)
                yield data

    async def answer(self, connection: HttpConnection, request: HistoryRequest, peer: str) -> None:
        """Sends the blocks, and writes in the log who got them."""
        async with audit.history(peer, request) as entry:
            await connection.start(200, "application/octet-stream")
            async with aclosing(self.blocks(request)) as blocks:
                async for block in blocks:
                    await connection.write(block)
                    entry.sent += len(block)
            await connection.end()


def _some(blocks: Generator[bytes], room: int) -> bytes:
    """The next blocks, BATCH bytes or a little more; none after the first that has no room."""
    data = bytearray()
    for block in blocks:
        if len(data) + len(block) > room:
            blocks.close()
            break
        data += block
        if len(data) >= BATCH:
            break
    return bytes(data)


def checked_history(request: HistoryRequest) -> HistoryRequest:
    """The request with canonical addresses. Raises InputError, naming the field, for one that is out of bounds."""
    if not 0 <= request.since_ns < request.until_ns < 1 << 62:
        raise InputError("a range begins before it ends", field="since_ns")
    if request.until_ns - request.since_ns > MAX_RANGE_NS:
        raise InputError("a range has at most 31 days", field="until_ns")
    if not 0 < request.max_bytes <= MAX_BYTES:
        raise InputError(f"{request.max_bytes} is not between 0 and {MAX_BYTES}", field="max_bytes")
    known = {part.value for part in RecordPart}
    if unknown := [name[:64] for name in request.parts if name not in known]:
        raise InputError(f"unknown parts {unknown!r}; there are {', '.join(sorted(known))}", field="parts")
    if len(set(request.parts)) < len(request.parts):
        raise InputError("each part is asked for once", field="parts")
    if len(request.addresses) > MAX_HISTORY_ADDRESSES:
        raise InputError(f"{len(request.addresses)} addresses are more than {MAX_HISTORY_ADDRESSES}", field="addresses")
    addresses = tuple(map(_canonical, request.addresses))
    return msgspec.structs.replace(request, addresses=addresses)


def _canonical(ip: str) -> str:
    try:
        return canonical_ip(str(parse_address(ip)))
    except ValueError:
        raise InputError(f"{ip[:64]!r} is not an IP address", field="addresses") from None
