"""What waits to be taken of the agents' streams is bounded, and so is the time for their rules."""

from __future__ import annotations

import contextlib
import socket
from types import SimpleNamespace
from typing import Any

import pytest

from kubectl_genainet import __version__, stream, wire
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import AgentFailed, Bye, Event, Hello, Tick
from kubectl_genainet.model.node import NodeReport
from kubectl_genainet.stream import Dial, Streams
from tests.unit.agentfleet import (
    REQUEST,
    Fleet,
    Talk,
    everything,
    replaces_the_clusters_objects,
    speaks_for_another_node,
    trickles,
    well,
)

HELLO = Hello(
    node="node-1",
    protocol=wire.PROTOCOL,
    version=__version__,
    kernel="6.18.0",
    boot_id="b",
    t_ns=0,
    realtime_ns=0,
    tier="kprobe",
)
BYE = Bye(node="node-1", emitted=0, sent=0, lost=0, reason="timeout")


def test_records_wait_within_a_number_and_the_bytes_that_they_came_in(monkeypatch: pytest.MonkeyPatch) -> None:
    bounds: list[tuple[int, int]] = []
    taken: list[tuple[Event | None, int]] = []

    class Waiting:
        def __init__(self, most: int, most_bytes: int) -> None:
            bounds.append((most, most_bytes))

        def put(self, record: Event | None, size: int, given_up: Any) -> None:
            taken.append((record, size))

    monkeypatch.setattr(stream, "WaitingRecords", Waiting)
    lines = [wire.encode(event).strip() for event in (HELLO, Tick(node="node-1", t_ns=1), BYE)]
    agent: Any = SimpleNamespace(node="node-1", decode=wire.decode)
    Streams({}, {})._pump(agent, lines)
    assert bounds == [(stream.WAITING_RECORDS, stream.WAITING_BYTES)]
    assert [size for _, size in taken] == [len(line) for line in lines]


def test_rules_have_a_time_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []

    def ask_all(_: object, path: str, __: str, *, within_s: float) -> dict[str, Any]:
        asked.append((path, within_s))
        return {}

    monkeypatch.setattr(stream, "ask_all", ask_all)
    stream.rulesets({}, conntrack=True)
    assert asked == [("/v1/rulesets?conntrack=1", stream.RULES_S)]


def watched(dials: dict[str, Dial]) -> list[Event]:
    """All that agents send to the end."""
    with contextlib.closing(Streams(dials, dict.fromkeys(dials, REQUEST))) as streams:
        return everything(streams)


def test_who_trickles_a_hello_is_hung_up_on_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "HELLO_S", 0.3)
    fleet = Fleet()
    dials = {"slow": fleet.dial("slow", trickles), "well": fleet.dial("well", well)}
    events = watched(dials)
    late = AgentFailed(node="slow", message="node slow has not said who it is within 0.3 s")
    assert [e for e in events if isinstance(e, AgentFailed)] == [late]
    assert sum(isinstance(e, Bye) for e in events) == 1
    for thread in fleet.threads:
        thread.join(10)


@pytest.mark.parametrize("forges", [speaks_for_another_node, replaces_the_clusters_objects])
def test_an_agent_says_nothing_of_another_node_or_of_the_clusters_objects(forges: Talk) -> None:
    """Who has one node is not to say what the others saw, nor which policies and endpoints there are."""
    fleet = Fleet()
    dials = {"bad": fleet.dial("bad", forges), "well": fleet.dial("well", well)}
    events = watched(dials)
    (failed,) = (e for e in events if isinstance(e, AgentFailed))
    assert failed.node == "bad" and "node bad sent a record of" in failed.message
    assert {getattr(e, "node", "") for e in events if not isinstance(e, AgentFailed | Hello)} == {"well"}


def test_a_report_of_another_node_is_no_report() -> None:
    """Rules of one node would be taken for those of another."""

    def forges(sock: socket.socket, node: str) -> None:
        sock.recv(65536)
        body = wire.encode(NodeReport(node=f"not-{node}", t_ns=0, namespaces=()))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

    (answer,) = stream.node_reports({"a": Fleet().dial("a", forges)}).values()
    assert isinstance(answer, GenainetError) and "node a sent a record of node not-a" in answer.message
