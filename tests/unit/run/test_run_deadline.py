"""How long a live session waits: as long as agents say that they prepare, and then for the time that was asked for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from kubectl_genainet.agent.serve.limits import checked_request
from kubectl_genainet.model.events import AgentFailed, Event, Progress
from kubectl_genainet.run import agents as waits
from kubectl_genainet.run import session
from kubectl_genainet.run.agents import LOAD_S
from kubectl_genainet.run.session import LiveSession
from kubectl_genainet.wire import MAX_TIMEOUT_S, FilterEntry, TraceRequest

TIMEOUT_S = 20.0
STEP_S = 3.0  # an agent says so often that it is alive


class Agents:
    """The records of agents, one each three seconds of a clock that this drives."""

    done = False

    def __init__(self, *events: Event | None) -> None:
        self.now, self._events = 0.0, list(events)

    def finish(self) -> None:
        """There is nobody to tell."""

    def poll(self, timeout_s: float) -> Event | None:
        self.now += STEP_S
        return self._events.pop(0) if self._events else None

    def poll_line(self) -> Event | None:
        return None  # each record comes alone


def seconds_waited(monkeypatch: pytest.MonkeyPatch, *events: Event | None, due: float = 0.0, nodes: int = 1) -> float:
    agents = Agents(*events)
    monkeypatch.setattr("kubectl_genainet.run.session.time.monotonic", lambda: agents.now)
    view = SimpleNamespace(refresh=lambda: None, warn=lambda text: None, shortened=lambda seconds: None)
    run: Any = SimpleNamespace(view=view, filters=())
    watching: Any = SimpleNamespace(timeout_s=TIMEOUT_S, enough=lambda event: None, due=due)
    source: Any = SimpleNamespace(failed_nodes=set())
    live = LiveSession(run, source, watching)
    live._nodes = nodes
    streams: Any = agents
    follower: Any = SimpleNamespace(newer=lambda: None)
    list(live._records(streams, follower))
    return agents.now


def test_an_agent_that_compiles_slowly_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    compiling = [Progress(node="n", stage="compiling", detail="packet (1 of 1)")]
    loading: list[Event | None] = [Progress(node="n", stage="loading")] * 60
    attached = [Progress(node="n", stage="attached")]
    waited = seconds_waited(monkeypatch, *compiling, *loading, *attached)
    assert waited >= 62 * STEP_S + TIMEOUT_S


def test_an_agent_that_says_nothing_is_not_waited_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert seconds_waited(monkeypatch) <= LOAD_S + TIMEOUT_S + STEP_S


def test_once_attached_the_time_that_was_asked_for_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    waited = seconds_waited(monkeypatch, Progress(node="n", stage="attached"), Progress(node="n", stage="loading"))
    assert TIMEOUT_S <= waited <= STEP_S + TIMEOUT_S + STEP_S


def test_the_time_that_was_asked_for_is_one_in_which_all_nodes_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    first, last = Progress(node="a", stage="attached"), Progress(node="b", stage="attached")
    slow: list[Event | None] = [Progress(node="b", stage="compiling")] * 60
    waited = seconds_waited(monkeypatch, first, *slow, last, nodes=2)
    assert 62 * STEP_S + TIMEOUT_S <= waited <= 62 * STEP_S + TIMEOUT_S + STEP_S


def test_an_agent_watches_on_while_others_prepare_and_takes_the_longest_request() -> None:
    for asked_s in (TIMEOUT_S, MAX_TIMEOUT_S):
        request = TraceRequest(filters=(FilterEntry("10.96.0.10", 80),), timeout_s=asked_s)
        watching: Any = SimpleNamespace(timeout_s=asked_s, request=lambda node, asked=request: asked)
        sent = LiveSession(cast(Any, None), cast(Any, None), watching)._request("n")
        assert checked_request(sent) == sent
        assert sent.timeout_s >= min(asked_s + 60 * STEP_S, MAX_TIMEOUT_S)


def test_a_node_that_has_failed_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    failed, attached = AgentFailed(node="a", message="it is not ready"), Progress(node="b", stage="attached")
    for events in ((failed, attached), (attached, failed)):
        waited = seconds_waited(monkeypatch, *events, nodes=2)
        assert waited <= 2 * STEP_S + TIMEOUT_S + STEP_S


def test_a_run_whose_answer_is_due_watches_for_less_where_its_agents_took_long(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Event | None] = [Progress(node="n", stage="loading")] * 3
    attached = Progress(node="n", stage="attached")
    due, took = 30.0, 4 * STEP_S
    assert seconds_waited(monkeypatch, *started, attached, due=due) <= due - session.WIND_UP_SHARE * took + STEP_S


def test_however_long_agents_took_some_seconds_are_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[Event | None] = [Progress(node="n", stage="loading")] * 20
    waited = seconds_waited(monkeypatch, *started, Progress(node="n", stage="attached"), due=25.0)
    assert 21 * STEP_S + session.LEAST_WATCH_S <= waited <= 21 * STEP_S + session.LEAST_WATCH_S + STEP_S


def test_exact_rules_wait_for_agents_that_say_that_they_load(monkeypatch: pytest.MonkeyPatch) -> None:
    loading: list[Event | None] = [Progress(node="n", stage="loading")] * 60
    agents = Agents(*loading, Progress(node="n", stage="attached"))
    monkeypatch.setattr("kubectl_genainet.run.agents.time.monotonic", lambda: agents.now)
    streams: Any = agents
    assert len(list(waits.records(streams, 1, TIMEOUT_S))) == 61
    assert (
        61 * STEP_S + TIMEOUT_S <= agents.now <= 61 * STEP_S + TIMEOUT_S + waits.GRACE_S + waits.GOODBYE_S + 2 * STEP_S
    )


def test_exact_rules_wait_no_longer_for_agents_that_say_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = Agents()
    monkeypatch.setattr("kubectl_genainet.run.agents.time.monotonic", lambda: agents.now)
    streams: Any = agents
    assert list(waits.records(streams, 1, TIMEOUT_S)) == []
    assert agents.now <= LOAD_S + TIMEOUT_S + waits.GOODBYE_S + 2 * STEP_S
