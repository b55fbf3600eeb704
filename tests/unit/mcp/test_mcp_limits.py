"""`mcp`: what a call may take, what becomes of one that fails, and what an answer leaves out is said."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import mcp_types as types
import msgspec
import pytest

from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.mcp import arguments as given
from kubectl_genainet.mcp import server, tools, worker
from kubectl_genainet.mcp.answer import MAX_TEXT, MAX_WARNINGS, AnswerStatus, Failure, bounded_answer
from kubectl_genainet.mcp.server import MAX_CALLS, GenainetServer, Limits
from kubectl_genainet.mcp.tools import TOOLS, Outcome
from kubectl_genainet.mcp.worker import ToolCall, perform
from kubectl_genainet.model.results.fleet import Versions
from kubectl_genainet.run.fleet.status import FleetStatus
from kubectl_genainet.run.sources.choice import SourceChoice

NOTHING: Any = None
OFFLINE = SourceChoice(bundle="incident.genainet")
WELL, DEAD = {"verdict": "forwarded"}, {"verdict": "dropped"}


def kept(records: list[Any], most: int) -> list[Any]:
    return [json.loads(bytes(record)) for record in bounded_answer(Outcome(ExitStatus.OK, records), most).records]


def test_warnings_are_so_many_printable_and_so_long() -> None:
    warnings = ["\x1b[31mred", "x" * 10_000, *map(str, range(MAX_WARNINGS))]
    said = bounded_answer(Outcome(ExitStatus.OK, (), warnings), 100).warnings
    assert said[0].isprintable() and "red" in said[0]
    assert said[1].endswith(f"({10_000 - MAX_TEXT} more characters)") and len(said[1]) < MAX_TEXT + 50
    assert (len(said), said[-1]) == (MAX_WARNINGS + 1, "2 more warnings")
    assert str(Failure(error="no", hint="\x1b[31mred")).splitlines() == ["no", "\\x1b[31mred"]


def test_what_is_wrong_is_kept_first_and_all_of_it_within_the_room() -> None:
    size = len(json.dumps(WELL, separators=(",", ":")))
    assert kept([WELL, DEAD, WELL], size) == [DEAD]
    assert kept([WELL] * 9, 3 * size) == [WELL] * 3
    assert kept([{"verdict": "x" * 1000}, WELL], size) == [WELL]
    for key in ("findings", "drop"):
        noted = {"verdict": "forwarded", key: ["f"]}
        assert kept([WELL, noted], len(json.dumps(noted))) == [noted]
    cut = bounded_answer(Outcome(ExitStatus.OK, [WELL] * 9), 3 * size)
    assert cut.left_out == 6 and cut.warnings[-1].startswith("6 of 9 records found no room")


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (ExitStatus.OK, AnswerStatus.NOTHING_WRONG),
        (ExitStatus.FOUND, AnswerStatus.SOMETHING_FOUND),
        (ExitStatus.TIMED_OUT, AnswerStatus.NOTHING_SEEN),
        (ExitStatus.FAILED, AnswerStatus.INCOMPLETE),
    ],
)
def test_an_answer_says_how_its_command_would_have_ended(status: ExitStatus, says: AnswerStatus) -> None:
    assert bounded_answer(Outcome(status, ()), 100).status is says


@pytest.mark.parametrize(
    ("shape", "arguments"),
    [
        (given.TraceArguments, {"seconds": 121}),
        (given.TraceArguments, {"seconds": 0.5}),
        (given.TraceArguments, {"last": 1_000_001}),
        (given.TraceArguments, {"since_minutes": 44_641}),
        (given.TraceArguments, {"until_minutes": 44_641}),
        (given.TraceArguments, {"nobody_knows": 1}),
        (given.StatusArguments, {"nobody_knows": 1}),
        (given.NoArguments, {"nobody_knows": 1}),
        (given.MatrixArguments, {"port": 65_536}),
        (given.FabricArguments, {"seconds": 121}),
        (given.DoctorArguments, {"measure_seconds": 121}),
        (given.ExplainArguments, {"client": "", "destination": "10.0.0.1"}),
        (given.ExplainArguments, {"client": "10.0.0.1", "destination": ""}),
    ],
)
def test_every_number_of_an_argument_has_a_bound(shape: type[Any], arguments: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(arguments, shape)


def call(name: str, arguments: dict[str, Any], found: GenainetServer | None = None) -> types.CallToolResult:
    found = found or GenainetServer(OFFLINE, Limits())
    return anyio.run(found._call, NOTHING, types.CallToolRequestParams(name=name, arguments=arguments))


def text_of(result: types.CallToolResult) -> str:
    assert result.is_error
    return "".join(content.text for content in result.content if isinstance(content, types.TextContent))


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("reboot", {}, "there is no tool 'reboot'"),
        ("trace", {"target": "x" * (64 << 10)}, "have more than 65536 bytes"),
        ("trace", {"target": "\ud800"}, "can't be read"),
        ("trace", {"target": nested(100_000)}, "can't be read"),
    ],
)
def test_what_is_no_call_starts_no_worker(
    name: str, arguments: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(GenainetServer, "_run", lambda *asked: started.append(asked))
    request = SimpleNamespace(name=name, arguments=arguments)  # the SDK's own type may not take it
    found: Any = GenainetServer(OFFLINE, Limits())
    assert says in text_of(anyio.run(found._call, NOTHING, request))
    assert started == []


def test_so_many_calls_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    running: list[int] = []

    async def run(*_: object) -> bytes:
        running.append(1)
        most.append(len(running))
        await anyio.sleep(0.02)
        running.pop()
        return b"{}"

    async def calls() -> None:
        found = GenainetServer(OFFLINE, Limits())
        params = types.CallToolRequestParams(name="trace", arguments={})
        async with anyio.create_task_group() as tasks:
            for _ in range(3 * MAX_CALLS):
                tasks.start_soon(found._call, NOTHING, params)

    most: list[int] = []
    monkeypatch.setattr(GenainetServer, "_run", run)
    anyio.run(calls)
    assert (max(most), len(most), MAX_CALLS) == (4, 12, 4)


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo '{}'; exit 1", "trace ended without an answer"),
        ("exit 0", "trace ended without an answer"),
        ("exec sleep 600", "trace took longer than 0.1 s"),
    ],
)
def test_a_worker_that_fails_or_does_not_end_is_no_answer(
    script: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "python"
    program.write_text(f"#!/bin/sh\ncat >/dev/null\n{script}\n")
    program.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(program))
    found = GenainetServer(OFFLINE, Limits(seconds=0.1 if "sleep" in script else 600.0))
    assert says in text_of(call("trace", {}, found))
    assert not found._workers


@pytest.mark.timeout(60)
def test_a_worker_is_a_group_of_its_own_and_ends_with_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: dict[str, Any] = {}

    async def open_process(_: object, **options: Any) -> Any:
        opened.update(options)
        raise InterruptedError

    monkeypatch.setattr(anyio, "open_process", open_process)
    with pytest.raises(InterruptedError):
        call("trace", {})
    assert opened["start_new_session"] is True
    command = ["sh", "-c", "sleep 600 & echo started; wait"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as started:
        assert started.stdout is not None and started.stdout.readline() == b"started\n"
        plugin: Any = started
        server._kill(plugin)
        assert started.stdout.read() == b""  # which the child held open
        assert started.wait() == -signal.SIGKILL


def test_what_a_worker_prints_is_no_answer_and_it_ends_with_its_time_and_its_server() -> None:
    code = """
import ctypes, signal
from kubectl_genainet.mcp import worker
def perform(call):
    print("noise")
    ends_with = ctypes.c_int()
    ctypes.CDLL(None).prctl(2, ctypes.byref(ends_with))
    return worker.Failure(error=f"{call.max_s:g} {60 < signal.alarm(0) <= 62} {ends_with.value}")
worker.perform = perform
worker.main()
"""
    asked = msgspec.json.encode(ToolCall(tool="trace", arguments={}, choice=OFFLINE, max_bytes=1, max_s=60.0))
    done = subprocess.run([sys.executable, "-c", code], input=asked, capture_output=True, check=True, timeout=60)
    assert json.loads(done.stdout)["error"] == f"60 True {int(signal.SIGKILL)}"
    assert b"noise" in done.stderr


def test_a_worker_whose_server_has_gone_before_it_began_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, ...]] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(prctl=lambda *given: asked.append(given)))
    monkeypatch.setattr(os, "getppid", lambda: 1)
    monkeypatch.setattr(sys, "stdin", None)
    worker.main()
    assert asked == [(1, signal.SIGKILL)]


class Source:
    """A source one of whose nodes did not answer."""

    failed_nodes = frozenset({"node-2"})


class Choice:
    """Notes the scope in which it is opened."""

    scope: tuple[object, ...] = ()

    def within(self, *scope: object) -> Choice:
        self.scope = scope
        return self

    def open(self, _: Callable[[str], None]) -> Source:
        return Source()


def test_a_node_that_did_not_answer_makes_an_answer_incomplete() -> None:
    choice: Any = Choice()
    asked = given.TraceArguments(namespace="chat", all_namespaces=True)
    outcome = tools._over_source(lambda *_: Outcome(ExitStatus.OK, ()))(choice, asked)
    assert choice.scope == ("chat", True)
    assert outcome.status is ExitStatus.FAILED
    assert list(outcome.warnings) == ["the agent on node node-2 did not answer"]


def test_kinds_that_doctor_could_not_read_make_its_answer_incomplete(monkeypatch: pytest.MonkeyPatch) -> None:
    examined = SimpleNamespace(report=SimpleNamespace(worst=lambda _: False), unread=("pods",))
    monkeypatch.setattr(tools, "doctor", lambda *_: examined)
    monkeypatch.setattr(tools, "records_of", lambda _: ())
    assert tools._doctor(NOTHING, given.DoctorArguments(), NOTHING).status is ExitStatus.FAILED


def test_agents_of_a_file_are_refused_and_a_cluster_is_asked_as_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def performed(name: str, choice: SourceChoice) -> Any:
        return perform(ToolCall(tool=name, arguments={}, choice=choice, max_bytes=1000, max_s=5.0))

    assert "only a cluster or a lab has agents" in performed("status", OFFLINE).error
    asked: list[dict[str, Any]] = []

    def versions(**options: Any) -> tuple[Versions, tuple[str, ...]]:
        asked.append(options)
        return Versions("1", 2), ()

    def status(_: str, **options: Any) -> FleetStatus:
        asked.append(options)
        return FleetStatus((), ())

    monkeypatch.setattr(tools, "versions", versions)
    monkeypatch.setattr(tools, "status", status)
    for choice in (OFFLINE, SourceChoice(user="ana", groups=("sre",))):
        performed("version", choice)
    performed("status", SourceChoice(user="ana", groups=("sre",)))
    assert [(a.get("client_only"), a["user"].name, a["user"].groups) for a in asked] == [
        (True, "", ()),
        (False, "ana", ("sre",)),
        (None, "ana", ("sre",)),
    ]


def test_a_time_ends_after_it_began() -> None:
    """One that only ended was taken for now: the tool watched live."""
    for arguments in ({"since_minutes": 5, "until_minutes": 5}, {"until_minutes": 2}):
        failed = perform(ToolCall(tool="trace", arguments=arguments, choice=OFFLINE, max_bytes=1000, max_s=5.0))
        assert isinstance(failed, Failure) and "more than until_minutes" in failed.error
    with pytest.raises(Exception, match="more than until_minutes"):
        tools._range(given.TraceArguments(since_minutes=5, until_minutes=5))


def test_every_tool_says_that_it_only_reads() -> None:
    listed = [server._listed(tool).annotations for tool in TOOLS.values()]
    assert all(note is not None and note.read_only_hint and not note.destructive_hint for note in listed)


def test_a_signal_ends_the_workers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def receiver(*_: object) -> Iterator[Any]:
        async def signals() -> AsyncIterator[int]:
            yield signal.SIGTERM

        yield signals()

    def exiting(status: int) -> None:
        raise InterruptedError(status)

    killed: list[object] = []
    monkeypatch.setattr(anyio, "open_signal_receiver", receiver)
    monkeypatch.setattr(os, "_exit", exiting)
    monkeypatch.setattr(server, "_kill", killed.append)
    found: Any = GenainetServer(OFFLINE, Limits())
    found._workers = {"first", "second"}
    with pytest.raises(InterruptedError, match="143"):
        anyio.run(found._end_on_signal)
    assert set(killed) == {"first", "second"}


def test_what_an_answer_could_not_hold_and_what_was_not_evaluated_is_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    summary = SimpleNamespace(lost=("what was lost",))
    collected = SimpleNamespace(paths=["a path"], summary=summary, warnings=(), for_target=None)
    monkeypatch.setattr(tools, "TraceCollector", lambda: collected)
    monkeypatch.setattr(tools, "trace", lambda *_: ExitStatus.OK)
    assert tools._trace(NOTHING, given.TraceArguments(), NOTHING).records == ("a path", summary, "what was lost")
    between = SimpleNamespace(engine=SimpleNamespace(enforcer=None), flows=(), all_start=True)
    monkeypatch.setattr(tools, "FlowsBetween", lambda *_, **__: between)
    monkeypatch.setattr(tools, "warn_of_unknown", lambda _, __, warn: warn("a policy was not evaluated"))
    warned: list[str] = []
    quiet: Any = SimpleNamespace(warn=warned.append)
    tools._explain(NOTHING, given.ExplainArguments(client="a", destination="b"), quiet)
    assert warned == ["a policy was not evaluated"]
