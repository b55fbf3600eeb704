"""One HTTP connection of the agent's: one request, one response, and it is closed. Nothing is read before it is wanted."""

from __future__ import annotations

import asyncio
import contextlib

import h11

from kubectl_genainet import __version__, wire
from kubectl_genainet.agent.serve import limits

STALL_S = 30.0  # a client that takes nothing for so long is gone
_CHUNK = 65536
_LINGER_S, _LINGER_BYTES = 0.5, 1 << 20


class HttpError(Exception):
    """A request that is refused, with the status that says how."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class HttpConnection:
    """One client: `head` reads its request, `body` what belongs to it, `respond` or `start`, `write`, `end` answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
        self.started = False

    async def head(self) -> h11.Request:
        """The request without its body. Raises HttpError for what is not HTTP."""
        event = await self._event()
        if not isinstance(event, h11.Request):
            raise ConnectionResetError
        return event

    async def body(self) -> bytes:
        """The request's body. Raises HttpError for one that is too large."""
        body = bytearray()
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise ConnectionResetError
            body += event.data
            if len(body) > limits.MAX_BODY:
                raise HttpError(413, f"the body is larger than {limits.MAX_BODY} bytes")
        return bytes(body)

    async def said_more(self) -> None:
        """Returns when the client says something after its request, or says no more. It may have come with the request."""
        if not self.http.trailing_data[0]:
            await self.reader.read(1)

    async def _event(self) -> object:
        while True:
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpError(error.error_status_hint, str(error)) from None
            if event is not h11.NEED_DATA:
                return event
            self.http.receive_data(await self.reader.read(_CHUNK))

    async def start(self, status: int, content_type: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.started = True
        fields = [
            ("Content-Type", content_type),
            ("Connection", "close"),
            (wire.VERSION_HEADER, __version__),
            *headers,
        ]
        await self._send(h11.Response(status_code=status, headers=fields))

    async def write(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def respond(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        await self.start(status, content_type)
        await self.write(body)
        await self.end()

    async def refuse(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        """A response to a request that was not read to its end: what the client still sends is thrown away, for a moment,
        since closing on unread bytes would take the response from it."""
        if self.started:
            return
        with contextlib.suppress(ConnectionError, TimeoutError, h11.LocalProtocolError):
            await self.respond(status, body, content_type)
            self.writer.write_eof()
            async with asyncio.timeout(_LINGER_S):
                left = _LINGER_BYTES
                while left > 0 and (data := await self.reader.read(_CHUNK)):
                    left -= len(data)

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError, TimeoutError):
            await asyncio.wait_for(self.writer.wait_closed(), 1)

    async def _send(self, event: h11.Event) -> None:
        self.writer.write(self.http.send(event) or b"")
        async with asyncio.timeout(STALL_S):  # not wait_for: see agent.always
            await self.writer.drain()
