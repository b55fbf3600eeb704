"""What a live session asks of the agents of a few nodes, and of many."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_genainet.run.agents import Agents
from kubectl_genainet.run.session import EVENTS_PER_SECOND, LEAST_EVENTS, MANY_NODES, LiveSession, Watching
from kubectl_genainet.wire import TraceRequest


class Asked(Exception):
    pass


def requests_of(monkeypatch: pytest.MonkeyPatch, nodes: int) -> list[TraceRequest]:
    asked: list[TraceRequest] = []

    def streams(dials: Any, requests: dict[str, TraceRequest], token: str) -> None:
        asked.extend(requests.values())
        raise Asked

    monkeypatch.setattr("kubectl_genainet.run.session.Streams", streams)
    dials: dict[str, Any] = {f"node-{number}": None for number in range(nodes)}
    source: Any = SimpleNamespace(agents=lambda: Agents(dials))
    watching = Watching("trace", lambda node: TraceRequest(filters=()), 1.0, {})
    with pytest.raises(Asked):
        LiveSession(SimpleNamespace(), source, watching).watch()
    return asked


def test_few_nodes_send_their_rules_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests_of(monkeypatch, MANY_NODES)
    assert len(asked) == MANY_NODES and not any(request.node_when_seen for request in asked)
    assert {request.events_per_second for request in asked} == {max(LEAST_EVENTS, EVENTS_PER_SECOND // MANY_NODES)}


def test_many_nodes_send_theirs_when_they_see_a_packet(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = requests_of(monkeypatch, MANY_NODES + 1)
    assert all(request.node_when_seen and request.rulesets for request in asked)
