"""200 simulated agents in one process: their streams run side by side, and bad nodes hold up nobody."""

import asyncio
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from kubectl_genainet import stream
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import AgentFailed, Bye, Event, Hello, LostEvents
from kubectl_genainet.stream import Streams
from kubectl_genainet.wire import PROTOCOL, FilterEntry, TraceRequest, encode

AGENTS, RECORDS = 200, 50
REQUEST = TraceRequest(filters=(FilterEntry("10.96.0.10", 80, "TCP"),))
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nGenainet-Session: s\r\nConnection: close\r\n\r\n"


def hello(node: str) -> Hello:
    return Hello(
        node=node,
        protocol=PROTOCOL,
        version="0.1.0",
        kernel="6.1",
        boot_id=node,
        t_ns=1,
        realtime_ns=1,
        tier="tracepoint",
    )


class Agents:
    """Every agent of a cluster, in one event loop of a thread of its own."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def dial(self, node: str, behaviour: str) -> Callable[[], socket.socket]:
        def connect() -> socket.socket:
            if behaviour == "refuses":
                raise GenainetError(f"port-forward to {node} is forbidden")
            client, server = socket.socketpair()
            self.loop.call_soon_threadsafe(self.begin, server, node, behaviour)
            return client

        return connect

    def begin(self, server: socket.socket, node: str, behaviour: str) -> None:
        self.tasks.append(self.loop.create_task(self.serve(server, node, behaviour)))  # the loop keeps weak references

    async def serve(self, server: socket.socket, node: str, behaviour: str) -> None:
        reader, writer = await asyncio.open_connection(sock=server)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            # All of it: a socket closed with bytes unread resets the connection, and the answer's end may be lost.
            await reader.readexactly(int(head.partition("content-length: ")[2].split()[0]))
            await self.answer(writer, node, behaviour)
        finally:
            writer.transport.abort() if behaviour == "hangs" else writer.close()

    @staticmethod
    async def answer(writer: asyncio.StreamWriter, node: str, behaviour: str) -> None:
        if behaviour == "hangs":
            await asyncio.sleep(3600)
        writer.write(HEAD + encode(hello(node)))
        for number in range(RECORDS // 2 if behaviour == "dies" else RECORDS):
            writer.write(encode(LostEvents(node=node, probe="packet", count=number, where="ring buffer")))
            await writer.drain()
            await asyncio.sleep(0)
        if behaviour != "dies":
            writer.write(encode(Bye(node=node, emitted=RECORDS, sent=RECORDS, lost=0, reason="timeout")))
            await writer.drain()

    def stop(self) -> None:
        async def end() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0.1)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture
def agents() -> Iterator[Agents]:
    agents = Agents()
    yield agents
    agents.stop()


def collect(streams: Streams, seconds: float) -> list[Event]:
    events, deadline = [], time.monotonic() + seconds
    while not streams.done and time.monotonic() < deadline:
        event = streams.poll(0.2)
        if event is not None:
            events.append(event)
    return events


def test_two_hundred_streams_run_side_by_side(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "SILENT_S", 6.0)  # two busy CPUs, 200 agents in one thread
    behaviour = {f"node-{i:03d}": {3: "refuses", 50: "hangs", 120: "dies"}.get(i, "works") for i in range(AGENTS)}
    dials = {node: agents.dial(node, how) for node, how in behaviour.items()}
    streams = Streams(dials, dict.fromkeys(dials, REQUEST), "token")
    try:
        events = collect(streams, 30)
        assert streams.done
    finally:
        streams.close()
    byes = {e.node for e in events if isinstance(e, Bye)}
    failed = {e.node: e.message for e in events if isinstance(e, AgentFailed)}
    records = Counter(e.node for e in events if isinstance(e, LostEvents))
    assert byes == {node for node, how in behaviour.items() if how == "works"}
    assert set(failed) == {"node-003", "node-050", "node-120"}
    assert "forbidden" in failed["node-003"]
    assert all(records[node] == RECORDS for node in byes)
    assert records["node-120"] == RECORDS // 2  # what came before the end is kept
