"""What a client hears of a session whose worker is slow to start: it is greeted, and told that the agent is at work."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_genainet import wire
from kubectl_genainet.agent.serve import server
from kubectl_genainet.agent.serve.http import HttpConnection
from kubectl_genainet.agent.session.job import END
from kubectl_genainet.model.events import AgentFailed, Bye, Hello, Progress, Tick
from kubectl_genainet.wire import TraceRequest


class SlowPipe:
    """A worker's standard output: each piece after a while, then its end."""

    def __init__(self, *pieces: tuple[float, bytes]) -> None:
        self._pieces = [*pieces, (0.0, b"")]

    async def read(self, _: int) -> bytes:
        seconds, data = self._pieces.pop(0)
        await asyncio.sleep(seconds)
        return data


class Client:
    def __init__(self) -> None:
        self.received = b""
        self.ended = False

    async def write(self, data: bytes) -> None:
        self.received += data

    async def end(self) -> None:
        self.ended = True


BYE = wire.encode(Bye(node="node-1", emitted=0, sent=0, lost=0, reason="timeout"))
TICK = wire.encode(Tick(node="node-1", t_ns=1))


class EndedWorker:
    """A worker that ends with its output."""

    def __init__(self, pieces: tuple[tuple[float, bytes], ...], status: int) -> None:
        self.stdout = SlowPipe(*pieces)
        self.returncode: int | None = None
        self._status = status

    async def wait(self) -> int:
        self.returncode = self._status
        return self._status


def relayed(*pieces: tuple[float, bytes], status: int = 0) -> tuple[list[Any], bool]:
    agent = server.Server(SimpleNamespace(node="node-1"), "", server.AnyCaller())  # type: ignore[arg-type]
    client, process = Client(), EndedWorker(pieces, status)
    asyncio.run(agent._relay(client, process, ("packet",)))  # type: ignore[arg-type]
    return [wire.decode(line) for line in client.received.splitlines(keepends=True)], client.ended


def test_a_worker_that_is_slow_to_start_leaves_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ALIVE_S", 0.05)
    records, ended = relayed((0.3, BYE))
    assert isinstance(records[0], Hello) and records[0].probes == ("packet",)
    waiting = records[1:-1]
    assert len(waiting) >= 3 and all(isinstance(r, Progress) and r.stage == "loading" for r in waiting)
    assert isinstance(records[-1], Bye) and ended


def test_a_worker_that_starts_at_once_is_greeted_once() -> None:
    records, ended = relayed((0.0, BYE))
    assert [type(record) for record in records] == [Hello, Bye] and ended


def test_a_worker_that_has_no_time_is_said_to_be_busy_between_whole_records_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server, "ALIVE_S", 0.05)
    records, _ = relayed((0.0, TICK), (0.3, TICK[:5]), (0.3, TICK[5:]), (0.0, BYE))
    said = [record.stage if isinstance(record, Progress) else type(record) for record in records]
    busy = said.count("busy")
    assert busy >= 3 and said == [Hello, Tick, *["busy"] * busy, Tick, Bye]


def test_nothing_follows_the_last_record_however_long_its_worker_takes_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ALIVE_S", 0.05)
    records, ended = relayed((0.0, TICK + BYE[:9]), (0.0, BYE[9:]), (0.3, b""))
    assert [type(record) for record in records] == [Hello, Tick, Bye] and ended


@pytest.mark.parametrize(
    ("status", "how"), [(-11, "was ended by signal 11"), (1, "ended with status 1")], ids=["signal", "status"]
)
def test_a_worker_that_ends_without_its_last_record_is_told_by_how_it_ended(status: int, how: str) -> None:
    records, ended = relayed((0.0, TICK), status=status)
    assert [type(record) for record in records] == [Hello, Tick, AgentFailed] and ended
    assert records[-1].message.startswith(f"the process of the trace {how}, without its last record")


def test_a_byte_that_comes_with_the_request_asks_for_the_end_as_one_that_comes_later_does() -> None:
    async def asked(*pieces: bytes) -> bool:
        reader = asyncio.StreamReader()
        connection = HttpConnection(reader, None)  # type: ignore[arg-type]
        reader.feed_data(pieces[0])
        await connection.head()
        await connection.body()
        said = asyncio.create_task(connection.said_more())
        for piece in pieces[1:]:
            await asyncio.sleep(0)
            assert not said.done()
            reader.feed_data(piece)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.2):
                await said
                return True
        return False

    request = b"POST /v1/trace HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{}"
    assert asyncio.run(asked(request + b"\n"))
    assert asyncio.run(asked(request, b"\n"))
    assert not asyncio.run(asked(request))


def test_an_agent_that_is_stopped_has_its_sessions_end_and_waits_for_their_clients() -> None:
    async def stopped() -> tuple[bytes, bool]:
        agent = server.Server(SimpleNamespace(node="node-1"), "", server.AnyCaller())  # type: ignore[arg-type]
        told, served = bytearray(), asyncio.Event()
        stdin = SimpleNamespace(write=told.extend, is_closing=lambda: False)
        request = TraceRequest(filters=())

        async def serve() -> None:
            await asyncio.sleep(0.2)
            served.set()

        task = asyncio.create_task(serve())
        agent.sessions["s"] = server.Running(SimpleNamespace(stdin=stdin), request, task)  # type: ignore[arg-type]
        await agent.end_sessions()
        return bytes(told), served.is_set()

    assert asyncio.run(stopped()) == (END + b"\n", True)
