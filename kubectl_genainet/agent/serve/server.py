"""The agent's HTTP interface: typed requests in, NDJSON out. Bound to loopback or to a unix socket, never to a node's port.

    GET  /healthz                   200 while the agent runs
    GET  /v1/hello                  wire.Hello
    GET  /v1/node                   model.node.NodeReport
    GET  /v1/rulesets               NDJSON of model.node.RulesetDump; ?conntrack=1 adds the translated connections
    POST /v1/trace                  wire.TraceRequest -> NDJSON of events, until the time is over or the client goes
    PUT  /v1/trace/ID/filters       list of wire.FilterEntry: changes a running session (ID is in the response header)

Each trace runs in a process of its own (agent.worker), which is ended when the client goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol, TypeVar

import h11
import msgspec

from kubectl_genainet import __version__, wire
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.agent.serve import limits
from kubectl_genainet.agent.serve.worker import ALIVE_S, Job, hello
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import Progress
from kubectl_genainet.wire import FilterEntry, TraceRequest

T = TypeVar("T")

MAX_CONNECTIONS = 64
REQUEST_S = 10.0  # a request must have arrived whole by then
GOODBYE_S = 4.5  # what a worker has to send its last records when the client says no more; its probes are gone by then
STALL_S = 30.0  # a client that takes nothing for so long is gone
_CHUNK = 65536


class Authenticator(Protocol):
    """Says whether a caller may ask. Returns "" or the reason for a refusal."""

    async def refuse(self, authorization: str, path: str) -> str: ...


class AnyCaller:
    """For a unix socket that only root may open: the file's permissions are the authentication."""

    async def refuse(self, authorization: str, path: str) -> str:
        return ""


class HttpError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Connection:
    """One client: reads one request, writes one response, and is closed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.SERVER, max_incomplete_event_size=16384)
        self.started = False

    async def request(self) -> tuple[h11.Request, bytes]:
        """The request and its body. Raises HttpError for one that is too large or not HTTP."""
        request, body = None, bytearray()
        while True:
            try:
                event = self.http.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpError(error.error_status_hint, str(error)) from None
            if event is h11.NEED_DATA:
                self.http.receive_data(await self.reader.read(_CHUNK))
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > limits.MAX_BODY:
                    raise HttpError(413, f"the body is larger than {limits.MAX_BODY} bytes")
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                return request, bytes(body)
            else:
                raise ConnectionResetError

    async def start(self, status: int, content_type: str, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self.started = True
        fields = [("Content-Type", content_type), ("Connection", "close"), (wire.VERSION_HEADER, __version__), *headers]
        await self._send(h11.Response(status_code=status, headers=fields))

    async def write(self, data: bytes) -> None:
        await self._send(h11.Data(data=data))

    async def end(self) -> None:
        await self._send(h11.EndOfMessage())

    async def respond(self, status: int, body: bytes, content_type: str = "application/json") -> None:
        await self.start(status, content_type)
        await self.write(body)
        await self.end()

    async def _send(self, event: h11.Event) -> None:
        self.writer.write(self.http.send(event) or b"")
        async with asyncio.timeout(STALL_S):  # not wait_for: see agent.always
            await self.writer.drain()


class Server:
    """The agent of one node."""

    def __init__(
        self, inventory: Inventory, cache: str, authenticator: Authenticator, budget: limits.Budget | None = None
    ) -> None:
        self.inventory, self.cache, self.authenticator = inventory, cache, authenticator
        self.budget = budget or limits.Budget()
        self.sessions: dict[str, asyncio.subprocess.Process] = {}
        self.connections = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection; whatever a client sends, the agent goes on."""
        connection = Connection(reader, writer)
        self.connections += 1
        try:
            if self.connections > MAX_CONNECTIONS:
                raise HttpError(503, "too many connections")
            async with asyncio.timeout(REQUEST_S):
                request, body = await connection.request()
            await self._route(connection, request, body)
        except HttpError as error:
            await self._refuse(connection, error.status, str(error))
        except GenainetError as error:
            await self._refuse(connection, 400, error.message, error.hint)
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass
        finally:
            self.connections -= 1
            writer.close()
            with contextlib.suppress(ConnectionError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 1)

    async def _refuse(self, connection: Connection, status: int, message: str, hint: str = "") -> None:
        if not connection.started:
            with contextlib.suppress(ConnectionError, TimeoutError, h11.LocalProtocolError):
                await connection.respond(status, msgspec.json.encode({"error": message, "hint": hint}))

    async def _route(self, connection: Connection, request: h11.Request, body: bytes) -> None:
        method = request.method.decode()
        path, _, query = request.target.decode("ascii", "replace").partition("?")
        if (method, path) == ("GET", "/healthz"):
            await connection.respond(200, b"ok\n", "text/plain")
            return
        fields = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        refusal = await self.authenticator.refuse(fields.get("authorization", ""), path)
        if refusal:
            raise HttpError(401, refusal)
        routes: dict[tuple[str, str], Callable[[Connection, bytes], Awaitable[None]]] = {
            ("GET", "/v1/hello"): self._hello,
            ("GET", "/v1/node"): self._node,
            ("POST", "/v1/trace"): self._trace,
        }
        parts = path.split("/")
        if (method, path) == ("GET", "/v1/rulesets"):
            await self._rulesets(connection, limits.check_rulesets_query(query))
        elif (method, path) in routes:
            await routes[method, path](connection, body)
        elif method == "PUT" and len(parts) == 5 and parts[1:3] == ["v1", "trace"] and parts[4] == "filters":
            await self._change_filters(connection, parts[3], body)
        else:
            raise HttpError(404, f"there is no {method} {path[:100]}")

    async def _hello(self, connection: Connection, _: bytes) -> None:
        await connection.respond(200, wire.encode(hello(self.inventory.node, ())))

    async def _node(self, connection: Connection, _: bytes) -> None:
        await connection.respond(200, wire.encode(await asyncio.to_thread(self.inventory.report)))

    async def _rulesets(self, connection: Connection, conntrack: bool) -> None:
        await connection.start(200, "application/x-ndjson")
        dumps = read_rulesets(self.inventory.node, self.inventory.host_netns, conntrack=conntrack)
        while (dump := await asyncio.to_thread(next, dumps, None)) is not None:
            await connection.write(wire.encode(dump))
        await connection.end()

    async def _change_filters(self, connection: Connection, session: str, body: bytes) -> None:
        process = self.sessions.get(session)
        if process is None or process.stdin is None:
            raise HttpError(404, "there is no such session")
        filters = _decode(body, list[FilterEntry])
        limits.check_filters(tuple(filters))
        process.stdin.write(msgspec.json.encode(filters) + b"\n")
        await process.stdin.drain()
        await connection.respond(200, b"{}")

    async def _trace(self, connection: Connection, body: bytes) -> None:
        request = _decode(body, TraceRequest)
        limits.check_request(request)
        if len(self.sessions) >= limits.MAX_SESSIONS:
            raise HttpError(429, f"{limits.MAX_SESSIONS} traces run on this node already")
        name = secrets.token_hex(8)
        async with self._worker(name, request) as process:
            await connection.start(200, "application/x-ndjson", (("Genainet-Session", name),))
            gone = asyncio.create_task(connection.reader.read(1))  # a client says nothing more, so this ends with it
            relay = asyncio.create_task(self._relay(connection, process, request.probes))
            try:
                await asyncio.wait({gone, relay}, return_when=asyncio.FIRST_COMPLETED)
                if not relay.done():
                    # The client has gone, or has ended its side only and still wants the last records.
                    with contextlib.suppress(ProcessLookupError):
                        process.send_signal(signal.SIGTERM)
                    await asyncio.wait({relay}, timeout=GOODBYE_S)
                if relay.done():
                    relay.result()
            finally:
                for task in (gone, relay):
                    task.cancel()
                    with contextlib.suppress(asyncio.CancelledError, ConnectionError, TimeoutError):
                        await task

    async def _relay(
        self, connection: Connection, process: asyncio.subprocess.Process, probes: tuple[str, ...]
    ) -> None:
        """Greets the client, says now and then that the worker starts (on a busy node its interpreter alone may take
        longer than a client waits), and passes on what it sends."""
        assert process.stdout is not None
        await connection.write(wire.encode(hello(self.inventory.node, probes)))
        first = asyncio.create_task(process.stdout.read(_CHUNK))
        try:
            while not (await asyncio.wait({first}, timeout=ALIVE_S))[0]:
                await connection.write(wire.encode(Progress(node=self.inventory.node, stage="loading")))
        except BaseException:
            first.cancel()
            raise
        data = first.result()
        while data:
            await connection.write(data)
            data = await process.stdout.read(_CHUNK)
        await connection.end()

    @contextlib.asynccontextmanager
    async def _worker(self, name: str, request: TraceRequest) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker process that does not outlive the block."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "kubectl_genainet.agent.serve.worker")
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 20)
        self.sessions[name] = process
        try:
            assert process.stdin is not None
            job = Job(request, self.inventory.node, self.inventory.host_netns, self.cache, self.budget, greeted=True)
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            await process.stdin.drain()
            yield process
        finally:
            del self.sessions[name]
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            # Not wait(), which until Python 3.13 waits for ever where a full pipe is not read any more.
            try:
                async with asyncio.timeout(0.5):
                    await process.communicate()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.communicate()


def _decode(body: bytes, shape: type[T]) -> T:
    try:
        return msgspec.json.decode(body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HttpError(400, f"the request can't be read: {error}") from None


async def serve(server: Server, *, socket_path: str = "", host: str = "", port: int = 0) -> None:
    """Serves until SIGTERM or SIGINT. Exactly one of `socket_path` and `host` is given."""
    if socket_path:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(socket_path)
        old = os.umask(0o177)
        try:
            listener = await asyncio.start_unix_server(server.handle, path=socket_path)
        finally:
            os.umask(old)
    else:
        listener = await asyncio.start_server(server.handle, host, port)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with listener:
        await stop.wait()
    tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
