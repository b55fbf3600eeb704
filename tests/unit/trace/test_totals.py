"""Totals are of all connections that the kernels counted, by workload, Service and backend."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from kubectl_genainet.context.identity import Identity
from kubectl_genainet.model.events import ConnectionCounts, Hello
from kubectl_genainet.model.results.losses import Losses
from kubectl_genainet.trace import totals as counting
from kubectl_genainet.trace.totals import Totals
from tests.unit.trace_world import BACKEND, CLIENT, SERVICE, SNAPSHOT


def hello(node: str, *probes: str) -> Hello:
    return Hello(
        node=node,
        protocol=2,
        version="0",
        kernel="6",
        boot_id="one",
        t_ns=0,
        realtime_ns=0,
        tier="tracepoint",
        probes=probes,
    )


def counted(node: str, side: str, server: str, port: int, **numbers: Any) -> ConnectionCounts:
    return ConnectionCounts(node=node, t_ns=1, side=side, client=CLIENT, server=server, port=port, **numbers)


def test_the_latest_counts_of_each_end_are_summed() -> None:
    totals = Totals()
    for event in (
        hello("node-1", "packet", "connections"),
        hello("node-2", "packet", "connections"),
        counted("node-1", "client", SERVICE, 80, opened=3, established=2),
        counted("node-1", "client", SERVICE, 80, opened=9, established=8, ended=7, refused=1, sent=70, received=700),
        counted("node-2", "server", BACKEND, 8080, established=8, ended=7, sent=700, received=70),
    ):
        totals.event(event)
    rows = totals.rows(Identity(SNAPSHOT))
    assert rows is not None
    client, server = rows
    assert (client.counted_at, client.service and client.service.name, client.backend) == ("client", "llm", None)
    assert (client.opened, client.established, client.refused, client.sent) == (9, 8, 1, 70)
    assert (server.counted_at, server.service, server.established, server.sent) == ("server", client.service, 8, 700)
    assert server.backend is not None and server.client == client.client


def test_a_clients_connections_are_told_by_service_and_backend() -> None:
    totals = Totals()
    through = counted("node-1", "client", SERVICE, 80, opened=9)
    sent_on = msgspec.structs.replace(through, backend=BACKEND, backend_port=8080, opened=0)
    for event in (
        hello("node-1", "packet", "connections"),
        through,
        msgspec.structs.replace(sent_on, established=6, ended=5, reset=1),
        msgspec.structs.replace(sent_on, backend="10.244.9.9", refused=2),
    ):
        totals.event(event)
    rows = totals.rows(Identity(SNAPSHOT)) or ()
    assert [(r.service and r.service.name, r.backend, r.opened, r.ended, r.reset, r.refused) for r in rows] == [
        ("llm", None, 9, 0, 0, 0),
        ("llm", "10.244.9.9", 0, 0, 0, 2),
        ("llm", "default/llm-0", 0, 5, 1, 0),
    ]


def test_totals_are_not_known_where_an_agent_did_not_count() -> None:
    totals = Totals()
    assert totals.rows(Identity(SNAPSHOT)) is None
    totals.event(hello("node-1", "packet", "connections"))
    totals.event(hello("node-2", "packet"))
    assert totals.rows(Identity(SNAPSHOT)) is None


def test_a_servers_connections_have_no_service_where_their_client_came_by_two_ways() -> None:
    totals = Totals()
    for event in (
        hello("node-1", "connections"),
        counted("node-1", "client", SERVICE, 80, opened=3),
        counted("node-1", "client", BACKEND, 8080, opened=1),
        counted("node-1", "server", BACKEND, 8080, established=4),
    ):
        totals.event(event)
    rows = totals.rows(Identity(SNAPSHOT)) or ()
    assert [(r.counted_at, r.service and r.service.name, r.backend) for r in rows] == [
        ("client", None, "default/llm-0"),
        ("client", "llm", None),
        ("server", None, "default/llm-0"),
    ]


def test_ends_beyond_those_that_are_held_are_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MAX_ENDS", 1)
    totals = Totals()
    for event in (
        hello("node-1", "connections"),
        counted("node-1", "client", SERVICE, 80, opened=1),
        counted("node-1", "client", SERVICE, 81, opened=1),
        counted("node-1", "client", SERVICE, 80, opened=2),
    ):
        totals.event(event)
    assert [row.opened for row in totals.rows(Identity(SNAPSHOT)) or ()] == [2]
    assert totals.lost == (Losses("node-1", "connections", "totals", 1),)
