"""The agent's HTTP interface: typed requests in, NDJSON out. Bound to loopback or to a unix socket, never to a node's port.

    GET  /healthz                   200 while the agent runs
    GET  /v1/hello                  wire.Hello
    GET  /v1/node                   model.node.NodeReport
    GET  /v1/rulesets               NDJSON of model.node.RulesetDump; ?conntrack=1 adds the translated connections
    GET  /v1/fabric?at=IP,IP        model.fabric.FabricReport, with the TCP connections of who has these addresses
    POST /v1/history                wire.HistoryRequest -> blocks of the node's recording (history/blocks.py); a right of its own
    POST /v1/trace                  wire.TraceRequest -> NDJSON of events, until the time is over or the client goes
    PUT  /v1/trace/ID/filters       wire.Filters: changes a running session (ID is in the response header)

Each trace runs in a process of its own (agent.session.worker), which is ended when the client goes away.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import socket
import struct
import sys
import traceback
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

import h11
import msgspec

from kubectl_genainet import wire
from kubectl_genainet.agent import audit
from kubectl_genainet.agent.exact.node import remove_leftovers
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.agent.serve import limits, memory
from kubectl_genainet.agent.serve.history import History, checked_history
from kubectl_genainet.agent.serve.http import HttpConnection, HttpError
from kubectl_genainet.agent.serve.slots import ConnectionSlots
from kubectl_genainet.agent.session.job import ALIVE_S, END, Job, hello
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.model.events import AgentFailed, Progress
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.wire import Filters, HistoryRequest, TraceRequest

HISTORY = "/v1/history"
MAX_CONNECTIONS = 64
MAX_KNOWN = 48  # of them with a token: the kubelet's probe always finds a place
MAX_BODIES = 4  # that are read at a time
HEAD_S = 10.0  # a request's head must have arrived by then
REQUEST_S = 10.0  # and its body
RULES_S = 120.0
START_S = 900.0  # a worker has this long to compile and load its probes, beyond the time that was asked for
_TAIL = 4096  # bytes; a last record is shorter
_BYE = b'{"kind":"bye"'
WORKER_END_S = 2.0  # between the end of a worker's output and its own
GOODBYE_S = 20.0  # what a worker has to send its last records when the client says no more; its probes are gone by then
LAST_S = (
    15.0  # and when the agent ends: less than its pod's terminationGracePeriodSeconds, of which the recorder needs some
)
_CHUNK = 65536


def _is_last(lines: bytes) -> bool:
    """Whether they end with the last record of a stream."""
    return lines[lines.rfind(b"\n", 0, -1) + 1 :].startswith(_BYE)


async def _sudden_end(process: asyncio.subprocess.Process) -> str:
    """How a worker ended that sent no last record."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(WORKER_END_S):
            await process.wait()
    status = process.returncode
    if status is None:
        how = "closed its output and goes on"
    else:
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
    return f"the process of the trace {how}, without its last record: what it lost is not known"


class Authenticator(Protocol):
    """Says whether a caller may ask. Returns "" or the reason for a refusal."""

    async def refuse(self, authorization: str, path: str) -> str: ...


class AnyCaller:
    """For a unix socket that only root may open: the file's permissions are the authentication."""

    async def refuse(self, authorization: str, path: str) -> str:
        return ""


@dataclass(frozen=True, slots=True)
class Running:
    """A session, the process that runs it, and the task that serves its client."""

    process: asyncio.subprocess.Process
    request: TraceRequest
    serving: asyncio.Task[None] | None


class Server:
    """The agent of one node."""

    def __init__(
        self,
        inventory: Inventory,
        cache: str,
        authenticator: Authenticator,
        budget: limits.Budget | None = None,
        memory_mib: int | None = None,
        readers: Authenticator | None = None,
    ) -> None:
        """`readers` says who may read what the node recorded; None: whoever may ask for anything."""
        self.inventory, self.cache, self.authenticator = inventory, cache, authenticator
        self.budget = budget or limits.Budget()
        self.memory_mib = memory_mib
        self.readers = readers or authenticator
        self.history: History | None = None
        self.sessions: dict[str, Running] = {}
        self.always_on: tuple[str, ...] = ()  # probes of the session that metrics are made of
        self._places = ConnectionSlots(MAX_CONNECTIONS, MAX_KNOWN)
        self._bodies = asyncio.Semaphore(MAX_BODIES)
        self._inventories = asyncio.Lock()
        self._rules = asyncio.Lock()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection; whatever a client sends, the agent goes on."""
        connection = HttpConnection(reader, writer)
        try:
            self._places.enter()
            await self._serve(connection)
        except HttpError as error:
            await self._refuse(connection, error.status, str(error))
        except GenainetError as error:
            await self._refuse(connection, 400, error.message, error.hint)
        except (ConnectionError, TimeoutError, h11.LocalProtocolError):
            pass
        except Exception as error:
            traceback.print_exc()
            await self._refuse(connection, 500, f"the agent failed: {type(error).__name__}", "Its log says where.")
        finally:
            self._places.leave()
            await connection.close()

    async def _serve(self, connection: HttpConnection) -> None:
        async with asyncio.timeout(HEAD_S):
            request = await connection.head()
        method = request.method.decode()
        path, _, query = request.target.decode("ascii", "replace").partition("?")
        if (method, path) == ("GET", "/healthz"):
            await connection.respond(200, b"ok\n", "text/plain")
            return
        fields = {name.decode(): value.decode("latin-1") for name, value in request.headers}
        authenticator = self.readers if path == HISTORY else self.authenticator
        refusal = await authenticator.refuse(fields.get("authorization", ""), path)
        if refusal:
            raise HttpError(401, refusal)
        self._places.known()
        await self._route(connection, method, path, query)

    async def _refuse(self, connection: HttpConnection, status: int, message: str, hint: str = "") -> None:
        await connection.refuse(status, msgspec.json.encode({"error": message, "hint": hint}))

    async def _body(self, connection: HttpConnection, shape: Any) -> Any:
        """A request's body as a value; only so many at a time, since each may take megabytes."""
        async with asyncio.timeout(REQUEST_S), self._bodies:
            return decoded(await connection.body(), shape)

    async def _route(self, connection: HttpConnection, method: str, path: str, query: str) -> None:
        parts = path.split("/")
        match method, path:
            case "GET", "/v1/hello":
                await connection.respond(200, wire.encode(hello(self.inventory.node, ())))
            case "GET", "/v1/node":
                await self._node(connection)
            case "GET", "/v1/rulesets":
                await self._rulesets(connection, limits.check_rulesets_query(query))
            case "GET", "/v1/fabric":
                await self._fabric(connection, limits.checked_addresses(query))
            case "POST", "/v1/history":
                await self._history(connection)
            case "POST", "/v1/trace":
                await self._trace(connection)
            case "PUT", _ if len(parts) == 5 and parts[1:3] == ["v1", "trace"] and parts[4] == "filters":
                await self._change_filters(connection, parts[3])
            case _:
                raise HttpError(404, f"there is no {method} {path[:100]}")

    async def _node(self, connection: HttpConnection) -> None:
        async with self._inventories:
            report = await asyncio.to_thread(self.inventory.report)
        await connection.respond(200, wire.encode(report))

    async def _fabric(self, connection: HttpConnection, addresses: list[str]) -> None:
        async with self._inventories:
            report = await asyncio.to_thread(self.inventory.fabric, addresses)
        await connection.respond(200, wire.encode(report))

    async def _history(self, connection: HttpConnection) -> None:
        request = checked_history(await self._body(connection, HistoryRequest))
        if self.history is None:
            raise GenainetError("this node records nothing", hint="kubectl genainet deploy --record")
        await self.history.answer(connection, request, peer(connection.writer))

    async def _rulesets(self, connection: HttpConnection, conntrack: bool) -> None:
        async with asyncio.timeout(RULES_S), self._rules:  # one at a time: a dump may have many megabytes
            await connection.start(200, "application/x-ndjson")
            dumps = read_rulesets(self.inventory.node, self.inventory.host_netns, conntrack=conntrack)
            while (dump := await asyncio.to_thread(next, dumps, None)) is not None:
                await connection.write(wire.encode(dump))
            await connection.end()

    async def _change_filters(self, connection: HttpConnection, session: str) -> None:
        running = self.sessions.get(session)
        if running is None or running.process.stdin is None:
            raise HttpError(404, "there is no such session")
        filters: Filters = limits.checked_changes(await self._body(connection, Filters))
        audit.changed(session, filters)
        running.process.stdin.write(msgspec.json.encode(filters) + b"\n")
        async with asyncio.timeout(REQUEST_S):
            await running.process.stdin.drain()
        await connection.respond(200, b"{}")

    def _check_room(self, request: TraceRequest) -> None:
        """Raises HttpError where the node can't have this session beside those that run."""
        running = [session.request for session in self.sessions.values()]
        if len(running) >= limits.MAX_SESSIONS:
            raise HttpError(429, f"{limits.MAX_SESSIONS} traces run on this node already")
        others = [r.probes for r in running] + ([self.always_on] if self.always_on else [])
        if not memory.fits(others, request.probes, self.memory_mib):
            raise HttpError(
                429, f"{len(others)} traces run on this node already, and its agent has memory for no other"
            )
        if request.exact and any(r.exact for r in running):
            raise HttpError(429, "another exact trace runs on this node: each would get the other's rules")

    async def _trace(self, connection: HttpConnection) -> None:
        request: TraceRequest = limits.checked_request(await self._body(connection, TraceRequest))
        self._check_room(request)
        name = secrets.token_hex(8)
        async with (
            audit.session(name, peer(connection.writer), request) as entry,
            self._worker(name, request) as process,
        ):
            await connection.start(200, "application/x-ndjson", (("Genainet-Session", name),))
            # Whatever a client says after its request tells the worker to end; so does the end of its side, and its going.
            gone = asyncio.create_task(connection.said_more())
            relay = asyncio.create_task(self._relay(connection, process, request.probes))
            try:
                longest = request.timeout_s + START_S + GOODBYE_S
                await asyncio.wait({gone, relay}, return_when=asyncio.FIRST_COMPLETED, timeout=longest)
                entry.end = "its own" if relay.done() else "the client went away" if gone.done() else "overdue"
                if not relay.done():
                    # The client has gone, or it still wants the last records.
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
        self, connection: HttpConnection, process: asyncio.subprocess.Process, probes: tuple[str, ...]
    ) -> None:
        """Greets the client, passes on what the worker sends, and says now and then that there is one: on a busy node it may
        have no time for longer than a client waits, its interpreter's start included."""
        assert process.stdout is not None
        await connection.write(wire.encode(hello(self.inventory.node, probes)))
        stage, tail = "loading", b"\n"  # what it does while it says nothing; the end of what it has said
        while True:
            chunk = asyncio.create_task(process.stdout.read(_CHUNK))
            try:
                while not (await asyncio.wait({chunk}, timeout=ALIVE_S))[0]:
                    if tail.endswith(b"\n") and not _is_last(tail):
                        await connection.write(wire.encode(Progress(node=self.inventory.node, stage=stage)))
            except BaseException:
                chunk.cancel()
                raise
            data = chunk.result()
            if not data:
                break
            await connection.write(data)
            stage, tail = "busy", (tail + data)[-_TAIL:]
        if tail.endswith(b"\n") and not _is_last(tail):
            failure = AgentFailed(
                node=self.inventory.node, message=await _sudden_end(process), hint="Its log says more."
            )
            await connection.write(wire.encode(failure))
        await connection.end()

    @contextlib.asynccontextmanager
    async def _worker(self, name: str, request: TraceRequest) -> AsyncIterator[asyncio.subprocess.Process]:
        """A worker process that does not outlive the block."""
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "kubectl_genainet.agent.session.worker")
        process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, limit=1 << 20)
        self.sessions[name] = Running(process, request, asyncio.current_task())
        try:
            assert process.stdin is not None
            node = (self.inventory.node, self.inventory.host_netns, self.cache, self.budget)
            job = Job(request, *node, session=name, greeted=True)
            process.stdin.write(msgspec.json.encode(job) + b"\n")
            await process.stdin.drain()
            yield process
        finally:
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
            if request.exact and process.returncode:  # it was killed before it had taken its rules back
                await asyncio.to_thread(self._clean_up, name)
            del self.sessions[name]

    async def end_sessions(self) -> None:
        """Has every session end, with its accounts and the reason; waits until their clients have them, but not for ever."""
        running = [session for session in self.sessions.values() if session.serving is not None]
        for session in running:
            if session.process.stdin is not None and not session.process.stdin.is_closing():
                session.process.stdin.write(END + b"\n")
        if running:
            await asyncio.wait([session.serving for session in running if session.serving], timeout=LAST_S)

    def _clean_up(self, name: str) -> None:
        for what in remove_leftovers(self.inventory.host_netns):
            audit.removed(what, name)


def peer(writer: asyncio.StreamWriter) -> str:
    """Which connection it is: a port of the agent's own loopback, which the kubelet's forward opened, or a process."""
    address = writer.get_extra_info("peername")
    if isinstance(address, tuple):
        return address_text(str(address[0]), int(address[1]))
    try:
        sock = writer.get_extra_info("socket")
        pid, uid, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    except (OSError, AttributeError):
        return "unknown"
    return f"process {pid} of user {uid}"


def decoded(body: bytes, shape: Any) -> Any:
    """A request's body as a value. Raises HttpError for one that is none."""
    try:
        return msgspec.json.decode(body, type=shape)
    except DECODE_ERRORS as error:
        raise HttpError(400, f"the request can't be read: {error}") from None
