"""What the agent's server grants nobody: another's role, places without number, waits without end, requests unchecked."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent import audit
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.serve import http, limits, server
from kubectl_genainet.agent.serve.history import History
from kubectl_genainet.agent.serve.http import HttpConnection, HttpError
from kubectl_genainet.agent.serve.listening import serve_until_stopped
from kubectl_genainet.agent.serve.server import AnyCaller, Authenticator, Running, Server
from kubectl_genainet.agent.serve.slots import ConnectionSlots
from kubectl_genainet.wire import FilterEntry, HistoryRequest, TraceRequest
from tests.unit.agent.worker_programs import worker_that_is

REQUEST = TraceRequest(filters=(FilterEntry("10.0.0.1", 80, "TCP"),))
NOTHING: Any = None
SECOND = 10**9


class Only:
    """Lets in who shows this token."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def refuse(self, authorization: str, path: str) -> str:
        return "" if authorization == f"Bearer {self._token}" else f"no {self._token}"


def agent(authenticator: Authenticator | None = None, readers: Authenticator | None = None) -> Server:
    return Server(Inventory("node-1", "/proc/self/ns/net"), "", authenticator or AnyCaller(), readers=readers)


def answers(found: Server, tmp_path: Path, *requests: bytes) -> list[bytes]:
    """What the agent answers to each, one after the other."""

    async def run() -> list[bytes]:
        said, path = [], str(tmp_path / "agent.sock")
        async with await asyncio.start_unix_server(found.handle, path=path), asyncio.timeout(30):
            for request in requests:
                reader, writer = await asyncio.open_unix_connection(path)
                writer.write(request)
                said.append(await reader.read())
                writer.close()
        return said

    return asyncio.run(run())


def request(method: str, path: str, body: bytes = b"", *fields: bytes) -> bytes:
    head = (f"{method} {path} HTTP/1.1".encode(), b"Host: x", b"Content-Length: %d" % len(body), *fields)
    return b"\r\n".join((*head, b"", body))


def end_of(action: Callable[[], Any]) -> BaseException | str | None:
    """What it ends with, by a bound of its own: the one here is met by a failure only."""

    async def run() -> BaseException | str | None:
        task = asyncio.ensure_future(action())
        done, _ = await asyncio.wait({task}, timeout=20)
        task.cancel()
        return task.exception() if done else "it waits without end"

    return asyncio.run(run())


def test_each_token_opens_what_its_role_may_and_nothing_else(tmp_path: Path) -> None:
    asked = msgspec.json.encode(HistoryRequest(since_ns=1, until_ns=2))
    tracer, reader = b"Authorization: Bearer tracer", b"Authorization: Bearer reader"
    said = answers(
        agent(Only("tracer"), Only("reader")),
        tmp_path,
        request("POST", "/v1/history", asked, tracer),
        request("GET", "/v1/hello", b"", reader),
        request("POST", "/v1/history", asked, reader),
        request("GET", "/v1/hello", b"", tracer),
    )
    assert [answer[9:12] for answer in said] == [b"401", b"401", b"400", b"200"]
    assert b"this node records nothing" in said[2]


def test_who_has_shown_a_token_takes_a_place_of_those(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MAX_KNOWN", 0)
    said = answers(agent(), tmp_path, request("GET", "/v1/hello"), request("GET", "/healthz"))
    assert b"503" in said[0] and b"too many requests at a time" in said[0]
    assert said[1].startswith(b"HTTP/1.1 200 ")


def test_a_place_is_free_again_and_one_that_is_taken_is_not() -> None:
    async def run() -> None:
        slots = ConnectionSlots(1, 1)
        for _ in range(3):
            slots.enter()
            slots.leave()
        slots.enter()
        slots.known()
        with pytest.raises(HttpError, match="too many connections"):
            await asyncio.create_task(_entering(slots))

    asyncio.run(run())


async def _entering(slots: ConnectionSlots) -> None:
    slots.enter()


def test_a_head_or_a_body_beyond_its_size_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_BODY", 100)
    monkeypatch.setattr(server, "HEAD_S", 600.0)  # it is not time that ends it
    endless = b"GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + b"x" * 40_000
    large, head = answers(agent(), tmp_path, request("POST", "/v1/trace", b" " * 101), endless)
    assert large.startswith(b"HTTP/1.1 413 ")
    assert head.startswith(b"HTTP/1.1 431 ")


class Never:
    """A client that neither sends nor takes anything."""

    async def head(self, *_: object) -> Any:
        await asyncio.Event().wait()

    body = drain = read = head

    def write(self, _: bytes) -> None:
        """It goes nowhere."""

    write_eof = write


def test_who_does_not_finish_a_request_or_take_an_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_S", 0.01)
    monkeypatch.setattr(server, "REQUEST_S", 0.01)
    monkeypatch.setattr(http, "STALL_S", 0.01)
    silent: Any = Never()
    assert isinstance(end_of(lambda: agent()._serve(silent)), TimeoutError)
    assert isinstance(end_of(lambda: agent()._body(silent, dict)), TimeoutError)
    assert isinstance(end_of(lambda: HttpConnection(silent, silent).start(200, "text/plain")), TimeoutError)


class Flood:
    """Sends without end, and at once."""

    def __init__(self) -> None:
        self.sent = 0

    async def read(self, size: int) -> bytes:
        self.sent += size
        await asyncio.sleep(0)
        return bytes(size)

    async def drain(self) -> None:
        """It takes all."""

    def write(self, _: bytes) -> None:
        """It takes all."""

    def write_eof(self) -> None:
        """As above."""


def refused_after(reader: Any, writer: Any) -> Callable[[], Any]:
    connection = HttpConnection(reader, writer)
    connection.http.receive_data(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.http.next_event()
    return lambda: connection.refuse(401, b"{}")


def test_what_follows_a_refused_request_is_read_for_a_moment_and_to_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    flood = Flood()
    monkeypatch.setattr(http, "_LINGER_S", 600.0)
    assert end_of(refused_after(flood, flood)) is None
    assert flood.sent <= http._LINGER_BYTES + http._CHUNK
    monkeypatch.setattr(http, "_LINGER_S", 0.01)
    assert end_of(refused_after(Never(), Flood())) is None


def with_sessions(*requests: TraceRequest) -> Server:
    found = agent()
    found.sessions = {str(n): Running(NOTHING, running, NOTHING) for n, running in enumerate(requests)}
    return found


def test_a_trace_without_a_place_starts_no_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[object] = []
    monkeypatch.setattr(Server, "_worker", lambda *given: started.append(given))
    exact = msgspec.structs.replace(REQUEST, exact=True)
    wanted = request("POST", "/v1/trace", msgspec.json.encode(exact))
    (full,) = answers(with_sessions(*[REQUEST] * limits.MAX_SESSIONS), tmp_path, wanted)
    (beside,) = answers(with_sessions(exact), tmp_path, wanted)
    assert full.startswith(b"HTTP/1.1 429 ") and b"4 traces run on this node already" in full
    assert beside.startswith(b"HTTP/1.1 429 ") and b"another exact trace runs on this node" in beside
    assert started == []


class Taker:
    """A worker's standard input."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: bytes) -> None:
        self.taken += data

    async def drain(self) -> None:
        """It takes all."""


def test_filters_of_a_running_session_are_checked_and_logged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, taker = agent(), Taker()
    process: Any = SimpleNamespace(stdin=taker)
    found.sessions = {"abc": Running(process, REQUEST, NOTHING)}
    evil, own_evil, spelled = (
        msgspec.json.encode(value)
        for value in (
            [FilterEntry("fe80::1%\nflush ruleset")],
            {"packet": [FilterEntry("fe80::1%\nflush ruleset")]},
            [FilterEntry("FD00:0::01", 80, "tcp")],
        )
    )
    path = "/v1/trace/abc/filters"
    said = answers(found, tmp_path, *(request("PUT", path, body) for body in (evil, own_evil, spelled)))
    assert [answer[9:12] for answer in said] == [b"400", b"400", b"200"]
    assert msgspec.json.decode(taker.taken) == [{"ip": "fd00::1", "port": 80, "protocol": "TCP"}]
    (line,) = map(msgspec.json.decode, capsys.readouterr().err.splitlines())
    assert (line["audit"], line["session"], line["first_filters"]) == ("filters changed", "abc", ["fd00::1 80 TCP"])


def test_one_report_and_one_dump_of_rules_is_made_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = threading.Event()

    def ask(*_: object, **__: object) -> Any:
        asked.set()
        return iter(())

    monkeypatch.setattr(Inventory, "report", ask)
    monkeypatch.setattr(server, "read_rulesets", ask)
    silent: Any = Never()

    async def waits(lock: asyncio.Lock, action: Any) -> None:
        async with lock:
            task = asyncio.ensure_future(action)
            await asyncio.wait({task}, timeout=0.1)
            assert not asked.is_set() and not task.done()
            task.cancel()

    async def run() -> None:
        found = agent()
        await waits(found._inventories, found._node(silent))
        await waits(found._rules, found._rulesets(silent, conntrack=False))

    asyncio.run(run())


def test_who_waits_for_rules_does_not_wait_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "RULES_S", 0.01)
    silent: Any = Never()

    async def behind_another() -> None:
        found = agent()
        async with found._rules:
            await found._rulesets(silent, conntrack=False)

    assert isinstance(end_of(behind_another), TimeoutError)


def test_a_session_that_does_not_end_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Server, "_worker", worker_that_is("cat"))
    monkeypatch.setattr(server, "START_S", 0.0)
    monkeypatch.setattr(server, "GOODBYE_S", 0.05)
    body = msgspec.json.encode(msgspec.structs.replace(REQUEST, timeout_s=0.01))
    (said,) = answers(agent(), tmp_path, request("POST", "/v1/trace", body))
    assert b"200" in said
    assert msgspec.json.decode(capsys.readouterr().err.splitlines()[-1])["end"] == "overdue"


def test_a_session_that_fails_is_logged_to_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    asked = msgspec.structs.replace(REQUEST, own_filters={"packet": REQUEST.filters})

    async def failing() -> None:
        async with audit.session("abc", "a process", asked):
            raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        asyncio.run(failing())
    begun, ended = map(msgspec.json.decode, capsys.readouterr().err.splitlines())
    assert begun["own_filters"] == {"packet": {"filters": 1, "first_filters": ["10.0.0.1 80 TCP"]}}
    assert (ended["audit"], ended["session"]) == ("session ended", "abc")


def test_who_read_what_of_the_recording_is_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async def flush() -> None:
        """Nothing waits."""

    asked = HistoryRequest(since_ns=SECOND, until_ns=2 * SECOND, parts=("dns",), addresses=("10.0.0.1",))
    found = agent()
    found.history = History(tmp_path / "recording", "node-1", flush)
    (said,) = answers(found, tmp_path, request("POST", "/v1/history", msgspec.json.encode(asked)))
    assert b"200" in said
    (line,) = map(msgspec.json.decode, capsys.readouterr().err.splitlines())
    assert (line["audit"], line["peer"]) == ("history read", f"process {os.getpid()} of user {os.getuid()}")
    assert (line["since"], line["until"], line["parts"]) == (1, 2, ["dns"])
    assert (line["addresses"], line["first_addresses"]) == (1, ["10.0.0.1"])
    assert line["sent_bytes"] > 0


def test_the_agents_socket_is_its_owners_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def started(*_: object, path: str) -> None:
        Path(path).touch()
        raise InterruptedError

    monkeypatch.setattr(asyncio, "start_unix_server", started)
    path = tmp_path / "agent.sock"
    (tmp_path / "before").touch()
    with pytest.raises(InterruptedError):
        asyncio.run(serve_until_stopped(agent().handle, socket_path=str(path)))
    assert path.stat().st_mode & 0o777 == 0o600
    (tmp_path / "other").touch()
    assert (tmp_path / "other").stat().st_mode == (tmp_path / "before").stat().st_mode  # of this file alone
