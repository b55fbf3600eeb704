"""What the verbs that watch packets share: Ctrl-C never in the middle of a record, what can't be judged."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from kubectl_genainet import wire
from kubectl_genainet.assets import recordings
from kubectl_genainet.bundle import BundleWriter, read_bundle
from kubectl_genainet.cli import cli
from kubectl_genainet.context.context import Context
from kubectl_genainet.errors import ExitStatus
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import AgentFailed, Event, Tick
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import NodeReport
from kubectl_genainet.run import session as session_module
from kubectl_genainet.run.agents import Agents, read_nodes
from kubectl_genainet.run.interrupts import Interrupts
from kubectl_genainet.run.session import LiveSession
from kubectl_genainet.stream import Dial


def test_ctrl_c_waits_until_a_record_is_taken_in() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(signal.SIGINT)
            done.append("the rest of the record")
        with interrupts.held():
            done.append("the next record")
    assert done == ["the rest of the record", "the next record"]


def test_ctrl_c_between_records_and_a_second_one_interrupt_at_once() -> None:
    done = []
    with Interrupts() as interrupts:
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt), interrupts.held():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            done.append("never")
        with interrupts.held():
            done.append("what follows")
    assert done == ["what follows"]


def test_what_was_there_for_sigint_is_there_again() -> None:
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with Interrupts() as interrupts, interrupts.held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, ignored)


def test_a_policy_that_is_not_valid_is_named_and_the_verdict_is_left_open(tmp_path: Path) -> None:
    recorded = read_bundle(recordings() / "policy-service-port.gnb")
    broken = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"namespace": "default", "name": "odd"},
        "spec": {"podSelector": {"matchExpressions": [{"key": "app", "operator": "Near", "values": ["x"]}]}},
    }
    snapshot = ClusterSnapshot((*recorded.snapshot.objects, KubeObject(broken)))
    with BundleWriter(tmp_path / "odd.gnb", recorded.header, snapshot) as bundle:
        for event in recorded.events:
            bundle.write(event)
    done = CliRunner().invoke(cli, ["trace", "svc/my-llama-svc", "--from", str(tmp_path / "odd.gnb")])
    assert "warning: not evaluated" in done.stderr and "odd" in done.stderr and "Near" in done.stderr
    assert "the rule is lab's, for default/my-llama-ingress-policy [derived]" in done.stdout
    assert "the policies' verdict is not known: NetworkPolicy default/odd" in done.stdout
    assert "by the API's objects" not in done.stdout


def test_a_field_that_is_not_evaluated_leaves_the_verdict_open(tmp_path: Path) -> None:
    recorded = read_bundle(recordings() / "policy-service-port.gnb")
    seventh = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"namespace": "default", "name": "l7"},
        "spec": {
            "endpointSelector": {},
            "ingress": [
                {
                    "fromEndpoints": [{}],
                    "toPorts": [
                        {"ports": [{"port": "8080", "protocol": "TCP"}], "rules": {"http": [{"method": "GET"}]}}
                    ],
                }
            ],
        },
    }
    objects = tuple(o for o in recorded.snapshot.objects if o.kind != "NetworkPolicy")
    with BundleWriter(tmp_path / "l7.gnb", recorded.header, ClusterSnapshot((*objects, KubeObject(seventh)))) as bundle:
        for event in recorded.events:
            bundle.write(event)
    done = CliRunner().invoke(cli, ["trace", "svc/my-llama-svc", "--from", str(tmp_path / "l7.gnb")])
    assert "the policies' verdict is not known: CiliumNetworkPolicy default/l7" in done.stdout
    assert "by the API's objects" not in done.stdout


def _with_failure(path: Path) -> str:
    recorded = read_bundle(recordings() / "healthy.gnb")
    with BundleWriter(path, recorded.header, recorded.snapshot) as bundle:
        for event in recorded.events:
            bundle.write(event)
        bundle.write(AgentFailed(node="node-9", message="the probe packet can't make its maps"))
    return str(path)


def test_a_run_with_a_failed_node_does_not_end_as_if_nothing_were_wrong(tmp_path: Path) -> None:
    def status(bundle: str) -> object:
        arguments = ["trace", "svc/my-llama-svc", "--from", bundle]
        return CliRunner().invoke(cli, arguments, standalone_mode=False).return_value

    assert status(str(recordings() / "healthy.gnb")) == ExitStatus.OK
    assert status(_with_failure(tmp_path / "b")) == ExitStatus.FAILED


def test_with_a_node_missing_neither_nothing_wrong_nor_nothing_seen_is_the_status() -> None:
    assert [status.with_failures(True) for status in ExitStatus] == [2, 1, 2, 2, 130]
    assert [status.with_failures(False) for status in ExitStatus] == list(ExitStatus)


def test_nodes_that_do_not_answer_are_remembered_and_unreadable_things_are_said() -> None:
    report = NodeReport(node="good", t_ns=0, namespaces=(), unreadable=tuple(f"namespace {n}" for n in range(7)))
    said: list[str] = []
    failed: set[str] = set()
    with agents_that_say({"good": report}) as dials:
        answers = read_nodes(Agents({**dials, "bad": _dead}), said.append, failed)
    assert set(answers) == {"good"} and failed == {"bad"}
    assert said[0].startswith("the agent on node bad can't be reached")
    assert said[1:] == [f"node good: unreadable: namespace {n}" for n in range(5)] + [
        "node good: unreadable: 2 other things"
    ]


def _dead() -> socket.socket:
    raise ConnectionRefusedError("refused")


@contextlib.contextmanager
def agents_that_say(reports: dict[str, NodeReport]) -> Iterator[dict[str, Dial]]:
    """Diallers of agents that answer any request with a report."""
    threads = []

    def dial(report: NodeReport) -> socket.socket:
        ours, theirs = socket.socketpair()

        def answer() -> None:
            with theirs:
                theirs.recv(65536)
                body = wire.encode(report)
                theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        threads.append(threading.Thread(target=answer))
        threads[-1].start()
        return ours

    yield {node: functools.partial(dial, report) for node, report in reports.items()}
    for thread in threads:
        thread.join(5)


class Interrupted:
    """Two records of an agent, that came together or not; Ctrl-C comes when the first has left the queue."""

    done = False

    def __init__(self, *, in_one_line: bool) -> None:
        self._records = [Tick(node="a", t_ns=1), Tick(node="a", t_ns=2)]
        self._in_one_line = in_one_line

    def poll(self, timeout_s: float) -> Event | None:
        if len(self._records) == 2:
            signal.raise_signal(signal.SIGINT)
        return self._records.pop(0) if self._records else None

    def poll_line(self) -> Event | None:
        return self._records.pop(0) if self._in_one_line and self._records else None

    def finish(self) -> None:
        """There is nobody to tell."""


def live_session(taken: list[Event]) -> LiveSession:
    view: Any = SimpleNamespace(refresh=lambda: None, warn=lambda text: None)
    run: Any = SimpleNamespace(view=view, filters=(), take=taken.append)
    watching: Any = SimpleNamespace(timeout_s=20, enough=lambda event: None, due=0)
    source: Any = SimpleNamespace(failed_nodes=set())
    return LiveSession(run, source, watching)


@pytest.mark.parametrize("in_one_line", [False, True])
def test_ctrl_c_costs_no_record_that_was_polled(monkeypatch: pytest.MonkeyPatch, in_one_line: bool) -> None:
    monkeypatch.setattr("kubectl_genainet.run.session.GOODBYE_S", 0.2)
    taken: list[Event] = []
    session, streams = live_session(taken), Interrupted(in_one_line=in_one_line)
    follower: Any = SimpleNamespace(newer=lambda: None)
    with session._interrupts:
        with pytest.raises(KeyboardInterrupt):
            for event in session._records(streams, follower):  # type: ignore[arg-type]
                session._take(event, None)
        for event in session._last_records(streams):  # type: ignore[arg-type]
            session._take(event, None)
    assert taken == [Tick(node="a", t_ns=1), Tick(node="a", t_ns=2)]


def test_a_node_that_fails_on_the_way_is_remembered_by_the_source() -> None:
    """Whoever asks the source next (`diagnose`, `mcp`) knows that its answer is not of all nodes."""
    taken: list[Event] = []
    session, failure = live_session(taken), AgentFailed(node="node-2", message="out of order")
    session._take(failure, None)
    assert session.source.failed_nodes == {"node-2"} and session.failed == taken == [failure]


@pytest.mark.parametrize(("watches", "status"), [(False, ExitStatus.INTERRUPTED), (True, ExitStatus.OK)])
def test_ctrl_c_before_any_agent_watches_is_no_result(
    monkeypatch: pytest.MonkeyPatch, watches: bool, status: ExitStatus
) -> None:
    class Stopped(LiveSession):
        def watch(self) -> None:
            self.interrupted = True
            self._attached |= {"a"} if watches else set()

    monkeypatch.setattr(session_module, "LiveSession", Stopped)
    context = Context(ClusterSnapshot(objects=()))
    view = SimpleNamespace(warn=lambda text: None)
    run: Any = SimpleNamespace(
        view=contextlib.nullcontext(view),
        correlator=SimpleNamespace(context=context),
        finish=lambda live: ExitStatus.OK,
    )
    assert session_module._watch(run, SimpleNamespace(), SimpleNamespace()) is status  # type: ignore[arg-type]


def test_ctrl_c_waits_for_the_result_and_a_second_one_does_not() -> None:
    session, times = live_session([]), 1

    def finish(*, live: bool) -> ExitStatus:
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
        return ExitStatus.FOUND

    session.run.finish = finish  # type: ignore[method-assign]
    assert session.result() is ExitStatus.FOUND
    times = 2
    with pytest.raises(KeyboardInterrupt):
        session.result()
