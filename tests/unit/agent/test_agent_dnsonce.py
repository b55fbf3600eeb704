"""A masqueraded DNS exchange is counted for the pod that asked, once, in whatever order its halves come."""

from __future__ import annotations

import itertools

import pytest

from kubectl_genainet.agent.dns.once import HELD, HELD_NS, ExchangesOnce
from kubectl_genainet.model.dns import DnsMessage, Question
from kubectl_genainet.model.events import DnsEnd, DnsPlace, DnsTransaction, Event, Point, Tick
from kubectl_genainet.model.node import NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol

HOST, POD = 1, 2
MS = 1_000_000
SERVER = "203.0.113.53"


def exchange(
    netns: int,
    start: float,
    end: float | None,
    *,
    sport: int = 0,
    name: str = "models.example.",
    number: int = 7,
    how: DnsEnd | None = None,
) -> DnsTransaction:
    """`start` and `end` in ms; without `end` there was no response."""
    flow = FiveTuple("10.244.1.5" if netns == POD else "172.18.0.2", sport or 4000 + netns, SERVER, 53, Protocol.UDP)
    query = (DnsPlace(int(start * MS), netns, 2, Point.TX, 0),)
    response = (DnsPlace(int(end * MS), netns, 2, Point.RX, 0),) if end is not None else ()
    return DnsTransaction(
        node="node-1",
        t_ns=(response or query)[-1].t_ns,
        id=number,
        flows=(flow,),
        query=query,
        response=response,
        end=how or (DnsEnd.ANSWERED if response else DnsEnd.EXPIRED),
        asked=DnsMessage(qr=False, length=40, captured=40, questions=(Question(name, "A"),)),
    )


def counted(*events: Event) -> list[DnsTransaction]:
    once = ExchangesOnce()
    report = NodeReport(node="node-1", t_ns=0, namespaces=(NetNs(inode=HOST, host=True), NetNs(inode=POD, host=False)))
    last = max(getattr(e, "t_ns", 0) for e in events)
    ends = (Tick(node="node-1", t_ns=last), Tick(node="node-1", t_ns=last + HELD_NS + 1))
    given = [e for event in (report, *events, *ends) for e in once.feed(event)]
    assert [e for e in given if not isinstance(e, DnsTransaction)] == [report, *ends]
    return [e for e in given if isinstance(e, DnsTransaction)]


OUTER, INNER = exchange(POD, 100, 103), exchange(HOST, 100.1, 102.9)
LOST_OUTER, LOST_INNER = exchange(POD, 100, None), exchange(HOST, 100.1, None)


@pytest.mark.parametrize(("inner", "outer"), [(INNER, OUTER), (LOST_INNER, LOST_OUTER)])
def test_masqueraded_exchange_is_counted_for_the_pod(inner: DnsTransaction, outer: DnsTransaction) -> None:
    assert counted(inner, outer) == [outer]


def test_without_a_response_the_halves_come_in_any_order() -> None:
    assert counted(LOST_OUTER, LOST_INNER) == [LOST_OUTER]
    again = [exchange(n, t, None, how=DnsEnd.REPEATED) for n, t in ((POD, 100), (HOST, 100.1))]
    for order in itertools.permutations(again):
        assert counted(*order) == [again[0]]


@pytest.mark.parametrize(
    "other",
    [
        exchange(HOST, 100.1, 102.9, name="other.example."),
        exchange(HOST, 100.1, 102.9, number=8),
        exchange(HOST, 99.9, 102.9),
        exchange(HOST, 100.1, 103.1),
        exchange(HOST, 160, 162),
        exchange(HOST, 100.1, None),
    ],
)
def test_a_query_of_the_node_itself_is_counted_too(other: DnsTransaction) -> None:
    assert sorted(counted(other, OUTER), key=lambda e: e.flows[0].src) == [OUTER, other]


def test_what_is_held_is_bounded_and_nothing_is_lost() -> None:
    once = ExchangesOnce()
    report = NodeReport(node="node-1", t_ns=0, namespaces=(NetNs(inode=HOST, host=True),))
    fed: list[Event] = [report, *(exchange(HOST, 1, 2, number=n) for n in range(HELD + 10))]
    given = [e for event in fed for e in once.feed(event)]
    assert len(given) == 1 + 10
