"""What a client hears of a session whose worker is slow to start: it is greeted, and told that the agent is at work."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_genainet import wire
from kubectl_genainet.agent.serve import server
from kubectl_genainet.model.events import Bye, Hello, Progress


class SlowPipe:
    """A worker's standard output: nothing for a while, then one record, then its end."""

    def __init__(self, seconds: float, data: bytes) -> None:
        self.seconds, self.data = seconds, [data, b""]

    async def read(self, _: int) -> bytes:
        await asyncio.sleep(self.seconds)
        self.seconds = 0.0
        return self.data.pop(0)


class Client:
    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.ended = False

    async def write(self, data: bytes) -> None:
        self.lines += data.splitlines(keepends=True)

    async def end(self) -> None:
        self.ended = True


def relayed(seconds: float) -> tuple[list[Any], bool]:
    bye = Bye(node="node-1", emitted=0, sent=0, lost=0, reason="timeout")
    agent = server.Server(SimpleNamespace(node="node-1"), "", server.AnyCaller())  # type: ignore[arg-type]
    client, process = Client(), SimpleNamespace(stdout=SlowPipe(seconds, wire.encode(bye)))
    asyncio.run(agent._relay(client, process, ("packet",)))  # type: ignore[arg-type]
    return [wire.decode(line) for line in client.lines], client.ended


def test_a_worker_that_is_slow_to_start_leaves_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ALIVE_S", 0.05)
    records, ended = relayed(0.3)
    assert isinstance(records[0], Hello) and records[0].probes == ("packet",)
    waiting = records[1:-1]
    assert len(waiting) >= 3 and all(isinstance(r, Progress) and r.stage == "loading" for r in waiting)
    assert isinstance(records[-1], Bye) and ended


def test_a_worker_that_starts_at_once_is_greeted_once() -> None:
    records, ended = relayed(0.0)
    assert [type(record) for record in records] == [Hello, Bye] and ended
