"""A session that can't go on says so: a node that does not watch is not one on which nothing was seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_genainet import wire
from kubectl_genainet.agent.exact import reports
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.session import node_reports, session
from kubectl_genainet.agent.session.job import Job
from kubectl_genainet.agent.session.session import Session
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import AgentFailed, Bye, Event, Progress
from kubectl_genainet.model.node import NetNs, NodeReport
from kubectl_genainet.wire import FilterEntry, TraceRequest

REQUEST = TraceRequest(
    filters=(FilterEntry("10.0.0.1", 80, "TCP"),), probes=(), exact=True, rulesets=False, timeout_s=1
)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Callable[..., list[Event]]:
    """Runs a session whose parts are as given; returns its records."""
    inodes = {1}
    report = NodeReport(node="node-1", t_ns=0, namespaces=(NetNs(inode=1, host=True),))

    def records(request: TraceRequest = REQUEST, **parts: Callable[..., object]) -> list[Event]:
        monkeypatch.setattr(Inventory, "own_inodes", parts.get("own_inodes", lambda _: inodes))
        monkeypatch.setattr(Inventory, "report", parts.get("report", lambda _, fresh=True: report))
        monkeypatch.setattr(reports, "ExactTracer", parts.get("exact", _Quiet))
        monkeypatch.setattr(session, "LoadedProbe", parts.get("probe", _refuse))
        monkeypatch.setattr(node_reports, "read_rulesets", parts.get("rulesets", lambda *_: iter(())))
        out, sink = os.pipe()
        silent, client = os.pipe()
        job = Job(request, "node-1", "/proc/self/ns/net", str(tmp_path), namespaces_s=0.05)
        with os.fdopen(silent, "rb") as commands, os.fdopen(out, "rb") as stream:
            running = Session(job, commands, sink)
            thread = threading.Thread(target=running.run)
            thread.start()
            thread.join(20)
            os.close(sink)
            os.close(client)
            return [wire.decode(line) for line in stream]

    return records


class _Quiet:
    lost = 0
    removed: tuple[str, ...] = ()

    def __init__(self, *_: object, **__: object) -> None:
        """Nothing to start."""

    def __enter__(self) -> _Quiet:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to take back."""

    def hits(self, seconds: float) -> list[Event]:
        threading.Event().wait(seconds)
        return []


def _refuse(*_: object, **__: object) -> object:
    raise OSError(7, "Argument list too long")


def _raising(error: Exception) -> Callable[..., object]:
    def broken(*_: object, **__: object) -> object:
        raise error

    return broken


def test_signals_ask_for_the_end_and_are_not_blocked_in_the_commands_that_it_runs() -> None:
    program = """
import os, signal, subprocess
from kubectl_genainet.agent.session.worker import end_signals
signals = end_signals()
for number in (signal.SIGTERM, signal.SIGINT):
    os.kill(os.getpid(), number)
    assert os.read(signals, 9) == bytes([number])
print(subprocess.run(["grep", "-E", "Sig(Blk|Ign)", "/proc/self/status"], capture_output=True, text=True).stdout)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    masks = {name: int(value, 16) for name, value in (line.split(":") for line in done.stdout.split("\n") if line)}
    asked = 1 << (signal.SIGTERM - 1) | 1 << (signal.SIGINT - 1)
    assert masks.keys() == {"SigBlk", "SigIgn"} and not any(mask & asked for mask in masks.values())


def failures(events: list[Event]) -> list[str]:
    return [event.message for event in events if isinstance(event, AgentFailed)]


def test_a_session_that_nothing_happens_to_ends_by_its_time(run: Callable[..., list[Event]]) -> None:
    events = run()
    assert failures(events) == []
    assert isinstance(events[-1], Bye) and events[-1].reason == "timeout"


@pytest.mark.parametrize("part", ["own_inodes", "report", "exact"])
@pytest.mark.parametrize(
    "error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), ValueError("²"), OSError(5, "I/O")]
)
def test_whatever_fails_the_session_fails(run: Callable[..., list[Event]], part: str, error: Exception) -> None:
    events = run(**{part: _raising(error)})
    assert failures(events), events
    assert isinstance(events[-1], Bye) and events[-1].reason == "failed"


def test_a_probe_that_can_not_be_loaded_fails_the_session(run: Callable[..., list[Event]]) -> None:
    events = run(TraceRequest(filters=REQUEST.filters, rulesets=False))
    (text,) = failures(events)
    assert "Argument list too long" in text


def test_what_fails_beside_the_stream_fails_it_too(run: Callable[..., list[Event]]) -> None:
    calls = []

    def report(*_: object, **__: object) -> NodeReport:
        calls.append(1)
        if len(calls) > 1:
            raise ValueError("a namespace that nobody thought of")
        return NodeReport(node="node-1", t_ns=0, namespaces=())

    assert "a namespace that nobody thought of" in failures(run(report=report))[0]


def test_an_errors_own_words_go_on(run: Callable[..., list[Event]]) -> None:
    events = run(own_inodes=_raising(GenainetError("no BTF", "Use another kernel.")))
    failed = next(event for event in events if isinstance(event, AgentFailed))
    assert (failed.message, failed.hint) == ("no BTF", "Use another kernel.")


def test_exact_tracing_that_is_slow_to_begin_is_waited_for(run: Callable[..., list[Event]]) -> None:
    class Slow(_Quiet):
        def __enter__(self) -> _Quiet:
            threading.Event().wait(1.5)
            began.append(time.monotonic_ns())
            return self

    began: list[int] = []
    events = run(exact=Slow)
    (attached,) = [e for e in events if isinstance(e, Progress) and e.stage == "attached"]
    assert attached.t_ns > began[0] and failures(events) == []


def test_what_can_not_be_read_is_said_once(run: Callable[..., list[Event]]) -> None:
    report = NodeReport(node="node-1", t_ns=0, namespaces=(), unreadable=("network namespace 7: EIO",))
    events = run(report=lambda *_, **__: report)
    missing = [event.detail for event in events if isinstance(event, Progress) and event.stage == "missing"]
    assert missing == ["unreadable: network namespace 7: EIO"]
    assert failures(events) == []


@pytest.mark.parametrize(("probes", "says"), [(("packet",), ["exact rules: no nft here"]), ((), None)])
def test_exact_tracing_that_fails_is_said_and_fails_the_session_where_nothing_else_was_asked_for(
    probes: tuple[str, ...], says: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_reports(*_: object) -> Any:
        return SimpleNamespace(run=_raising(GenainetError("no nft here")), runs=threading.Event())

    monkeypatch.setattr(session, "ExactReports", no_reports)
    missing, stop = list[str](), threading.Event()
    stop.set()
    running: Any = SimpleNamespace(
        filters=(),
        outbox=SimpleNamespace(put=None),
        node="node-1",
        inventory=SimpleNamespace(host_netns=""),
        job=SimpleNamespace(session="abc", request=SimpleNamespace(probes=probes)),
        stop=stop,
        _missing=missing.append,
        _thread=lambda action: action(),
    )
    if says is None:
        with pytest.raises(GenainetError, match="no nft here"):
            Session._start_exact(running)
    else:
        Session._start_exact(running)
        assert missing == says
