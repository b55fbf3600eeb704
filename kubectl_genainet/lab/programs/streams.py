"""Token streams of the lab's pods: server-sent events with a known rhythm, and a client that keeps one connection.

What each stream did is written to a log as one JSON object a line: the truth that a trace can be compared with.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

TOKEN = b'data: {"token": "lorem"}\n\n'
HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: close() sends a RST
_RETRY_S = 0.5


@dataclass(frozen=True, slots=True)
class Rhythm:
    """A reply of `tokens`, `gap_ms` apart; the header goes at once, the first token `first_ms` after the request. After
    `stall_after` tokens nothing comes for `stall_ms`; after `reset_after` tokens the connection is reset, after `end_after` it is
    closed in order."""

    tokens: int = 20
    gap_ms: int = 50
    first_ms: int = 50
    stall_after: int = 0
    stall_ms: int = 0
    reset_after: int = 0
    end_after: int = 0

    @classmethod
    def of(cls, behaviour: dict[str, Any]) -> Self | None:
        """The rhythm of a pod's behaviour; None for one that does not stream."""
        return cls(**behaviour["stream"]) if "stream" in behaviour else None


class StreamLog:
    """Appends records to a file; without a path they are let go."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def write(self, **record: Any) -> None:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(record) + "\n")


class _Reply:
    """One reply and its times (CLOCK_MONOTONIC, as the kernel's events have them)."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self.asked_ns = self.last_ns = time.monotonic_ns()
        self.header_ns = self.first_token_ns = 0
        self.silence_ns = self.silence_at_ns = 0
        self.tokens = self.sent = 0

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        now = time.monotonic_ns()
        if self.sent and now - self.last_ns > self.silence_ns:
            self.silence_ns, self.silence_at_ns = now - self.last_ns, self.last_ns
        self.last_ns, self.sent = now, self.sent + len(data)
        await self._writer.drain()

    async def header(self) -> None:
        await self.send(HEADER)
        self.header_ns = self.last_ns

    async def token(self) -> None:
        await self.send(TOKEN)
        self.tokens += 1
        self.first_token_ns = self.first_token_ns or self.last_ns

    def record(self, pod: str, ended: str) -> dict[str, Any]:
        peer = self._writer.get_extra_info("peername") or ("", 0)
        return {
            "what": "served",
            "pod": pod,
            "client": peer[0],
            "port": peer[1],
            "asked_ns": self.asked_ns,
            "header_after_ns": self.header_ns - self.asked_ns,
            "first_token_after_ns": self.first_token_ns - self.asked_ns if self.first_token_ns else None,
            "silence_ns": self.silence_ns,
            "silence_after_ns": self.silence_at_ns - self.asked_ns,
            "tokens": self.tokens,
            "bytes": self.sent,
            "ended": ended,
            "lasted_ns": time.monotonic_ns() - self.asked_ns,
        }


async def serve_stream(writer: asyncio.StreamWriter, rhythm: Rhythm, pod: str, log: StreamLog) -> None:
    """Answers a request with a stream of server-sent events."""
    reply, ended = _Reply(writer), "fin"
    try:
        await reply.header()
        await asyncio.sleep(rhythm.first_ms / 1000)
        for number in range(1, rhythm.tokens + 1):
            await reply.token()
            if number == rhythm.reset_after:
                reset(writer)
                ended = "reset"
                return
            if number == rhythm.end_after:
                break
            await asyncio.sleep((rhythm.stall_ms if number == rhythm.stall_after else rhythm.gap_ms) / 1000)
        writer.close()
    except OSError:
        ended = "client"
    finally:
        log.write(**reply.record(pod, ended))


def reset(writer: asyncio.StreamWriter) -> None:
    """Ends the connection with a RST."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()


Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def hold_connection(connect: Connect, request: bytes, rate: float, pod: str, log: StreamLog) -> None:
    """Sends requests on one connection, `rate` a second, as an HTTP/2 or gRPC client does; a new one where it is lost."""
    while True:
        with contextlib.suppress(OSError, ValueError, asyncio.IncompleteReadError):
            reader, writer = await connect()
            await _ask_for_ever(reader, writer, request, 1 / rate, pod=pod, log=log)
        await asyncio.sleep(_RETRY_S)


async def _ask_for_ever(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    request: bytes,
    pause_s: float,
    *,
    pod: str,
    log: StreamLog,
) -> None:
    ip, port = writer.get_extra_info("sockname")[:2]
    asked = 0
    try:
        while True:
            writer.write(request)
            asked += 1
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(content_length(head))
            await asyncio.sleep(pause_s)
    finally:
        log.write(what="held", pod=pod, client=ip, port=port, requests=asked, bytes=asked * len(request))
        writer.close()


def content_length(head: bytes) -> int:
    """The length that a header gives of its body; 0 where it gives none."""
    lines = [line.partition(b":")[2] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    return int(lines[0]) if lines else 0
