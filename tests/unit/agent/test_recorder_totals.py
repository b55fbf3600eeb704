"""A recorder's totals stay exact beyond what they name, and what changed on a node is what differs."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import pytest

from kubectl_genainet.agent.record import buckets as buckets_module
from kubectl_genainet.agent.record import histograms
from kubectl_genainet.agent.record.buckets import REST, Buckets
from kubectl_genainet.agent.record.changes import changes
from kubectl_genainet.agent.record.histograms import Times
from kubectl_genainet.agent.record.lives import Life
from kubectl_genainet.model.dns import DnsMessage
from kubectl_genainet.model.events import DnsEnd, DnsPlace, LostEvents, Point
from kubectl_genainet.model.history import ChangeOf, histogram_index
from kubectl_genainet.model.node import Device, NetNs, NodeReport, Route
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.unit.agent.test_agent_recorder import BACKEND, CLIENT, SERVICE, dropped, exchange
from tests.unit.history.recording import MONO, NODE, SECOND, WALL

AHEAD = WALL - MONO


@pytest.fixture
def totals(monkeypatch: pytest.MonkeyPatch) -> Buckets:
    """Of few rows."""
    monkeypatch.setattr(buckets_module, "MAX_ROWS", 2)
    monkeypatch.setattr(histograms, "MAX_ROWS", 2)
    return Buckets(NODE, Times())


def test_drops_beyond_the_rows_are_counted_without_their_ends(totals: Buckets) -> None:
    for number, src in enumerate(("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.1"), 1):
        event = dropped(number)
        totals.take(msgspec.structs.replace(event, flow=msgspec.structs.replace(event.flow, src=src)), AHEAD)
    rows = [(d.src, d.dst, d.dport, d.packets, d.bytes) for d in totals.close(0, 1).drops]
    assert rows == [("10.0.0.1", SERVICE, 80, 4, 18), ("10.0.0.2", SERVICE, 80, 2, 9), ("", "", 0, 4, 18)]
    assert totals.close(1, 2).drops == ()


def test_lookups_beyond_the_rows_are_counted_by_client_and_then_without(totals: Buckets) -> None:
    for client, name in [("10.0.0.1", n) for n in "abcde"] + [("10.0.0.2", "a"), ("10.0.0.3", "a"), ("10.0.0.1", "a")]:
        event = exchange(f"{name}.")
        flow = msgspec.structs.replace(event.flows[0], src=client)
        totals.take(msgspec.structs.replace(event, flows=(flow,)), AHEAD)
    rows = {(d.client, d.name, d.rcode): d.count for d in totals.close(0, 1).dns}
    expired = DnsEnd.EXPIRED.value
    assert rows == {
        ("10.0.0.1", "a.", expired): 2,
        ("10.0.0.1", "b.", expired): 1,
        ("10.0.0.1", REST, expired): 3,
        ("10.0.0.2", REST, expired): 1,
        ("", REST, expired): 1,
    }


def test_an_answered_lookup_has_its_code_and_its_time(totals: Buckets) -> None:
    answer = DnsMessage(qr=True, length=40, captured=40, rcode="NXDOMAIN")
    place = DnsPlace(MONO + SECOND + 3_000_000, 1, 2, Point.RX, 0)
    totals.take(msgspec.structs.replace(exchange("a."), end=DnsEnd.ANSWERED, answer=answer, response=(place,)), AHEAD)
    totals.take(exchange("a."), AHEAD)
    answered, expired = totals.close(0, 1).dns
    assert (answered.rcode, answered.count, sum(answered.times)) == ("NXDOMAIN", 1, 1)
    assert answered.times[histogram_index(3_000)] == 1
    assert (expired.rcode, sum(expired.times)) == (DnsEnd.EXPIRED.value, 0)


def test_what_was_lost_is_counted_once(totals: Buckets) -> None:
    for count in (3, 4):
        totals.take(LostEvents(node=NODE, probe="packet", count=count, where="ring buffer"), AHEAD)
    assert [totals.close(0, 1).lost, totals.close(1, 2).lost] == [7, 0]


def flow(dst: str, port: int = 40_000) -> FiveTuple:
    return FiveTuple(CLIENT, port, dst, 80, Protocol.TCP)


def test_times_are_of_what_was_seen_of_a_connection(totals: Buckets) -> None:
    times = Times()
    whole = Life(b"", MONO, MONO, syn_ns=5_000_000, answer_ns=8_000_000, request_ns=9_000_000, reply_ns=14_000_000)
    joined_late = Life(b"", MONO, MONO, answer_ns=3_000_000, request_ns=4_000_000)
    times.take(whole, flow(SERVICE), flow(BACKEND))
    times.take(joined_late, flow(SERVICE), flow(BACKEND))
    (row,) = times.drain()
    assert (row.client, row.server, row.port, row.backend, row.backend_port) == (CLIENT, SERVICE, 80, BACKEND, 80)
    assert (row.followed, sum(row.connect), sum(row.reply)) == (2, 1, 1)
    assert row.connect[histogram_index(3_000)] == row.reply[histogram_index(5_000)] == 1
    for number, trouble in enumerate(("reset", "slow", "refused", "refused")):
        times.take(Life(b"", MONO, MONO, trouble=trouble), flow(f"10.0.0.{number}"), flow(f"10.0.0.{number}"))
    assert [(r.server, r.backend, r.outcome, r.followed) for r in times.drain()] == [
        ("10.0.0.0", "", "reset", 1),
        ("10.0.0.1", "", "slow", 1),
        ("", "", "refused", 2),
    ]


def netns(
    inode: int = 7,
    *,
    pods: tuple[str, ...] = (),
    host: bool = False,
    routes: tuple[Route, ...] | None = (),
    counters: Mapping[str, int] | None = None,
    nic: Mapping[str, Mapping[str, int]] | None = None,
    entries: int = 0,
    device: Device | None = None,
) -> NetNs:
    return NetNs(
        inode=inode,
        host=host,
        pod_uids=pods,
        devices=(device or Device(name="eth0", ifindex=2, mtu=1500, addresses=("10.0.0.1",)),),
        routes=routes,
        counters=dict(counters or {}),
        nic_counters={name: dict(values) for name, values in (nic or {}).items()},
        conntrack_count=entries,
        conntrack_max=100,
    )


DOWN = Device(name="eth0", ifindex=2, mtu=1500, addresses=("10.0.0.1",), up=False)
ROUTE, MOVED = Route(dst="10.1.0.0/16", device="eth0", via="10.0.0.9"), Route(dst="10.1.0.0/16", device="eth1")


NARROW, WIDE = Route(dst=ROUTE.dst, device="eth0", via="10.0.0.9", mtu=1400), "via 10.0.0.9 dev eth0"


@pytest.mark.parametrize(
    "before, after, expected",
    [
        ((netns(),), (netns(),), []),
        ((netns(counters={"a": 3}),), (netns(counters={"a": 3}),), []),
        ((netns(counters={"a": 3}),), (netns(counters={"a": 5, "b": 1}),), [("a", "3", "5"), ("b", "0", "1")]),
        ((netns(counters={"a": 3}),), (netns(counters={"a": 2}),), []),  # it began anew
        ((netns(nic={"eth0": {"rx": 1}}),), (netns(nic={"eth0": {"rx": 2}}),), [("eth0 rx", "1", "2")]),
        ((netns(nic={"eth0": {"rx": 2}}),), (netns(nic={"eth0": {"rx": 2}}),), []),
        ((netns(),), (netns(device=DOWN),), [("eth0", "device, up, MTU 1500", "device, down, MTU 1500")]),
        ((netns(routes=(ROUTE,)),), (netns(routes=(MOVED,)),), [("10.1.0.0/16", "via 10.0.0.9 dev eth0", "dev eth1")]),
        ((netns(routes=(ROUTE,)),), (netns(routes=(NARROW,)),), [(ROUTE.dst, WIDE, f"{WIDE}, MTU 1400")]),
        ((netns(routes=None),), (netns(routes=(ROUTE,)),), []),  # they were not read before
        ((netns(routes=(ROUTE,)),), (netns(routes=None),), []),
        (
            (netns(host=True, entries=89),),
            (netns(host=True, entries=90),),
            [("conntrack entries", "89 of 100", "90 of 100")],
        ),
        ((netns(entries=89),), (netns(entries=90),), []),  # a pod's has the host's limit
        ((), (netns(),), [("10.0.0.1", "", "eth0"), ("eth0", "", "device, up, MTU 1500")]),
    ],
)
def test_what_changed_is_what_differs(
    before: tuple[NetNs, ...], after: tuple[NetNs, ...], expected: list[tuple[str, str, str]]
) -> None:
    old, new = (NodeReport(node=NODE, t_ns=MONO, namespaces=namespaces) for namespaces in (before, after))
    changed = changes(old, new, WALL, WALL + SECOND)
    assert [(c.subject, c.before, c.after) for c in changed] == expected
    assert all((c.since_ns, c.at_ns, c.netns) == (WALL, WALL + SECOND, 7) for c in changed)


def test_a_pods_namespace_that_comes_or_goes_is_the_pods() -> None:
    without, with_pod = (NodeReport(node=NODE, t_ns=MONO, namespaces=n) for n in ((), (netns(pods=("uid-1",)),)))
    for old, new, pair in ((without, with_pod, ("", "running")), (with_pod, without, ("running", ""))):
        changed = changes(old, new, WALL, WALL + SECOND)
        assert {c.pod_uid for c in changed} == {"uid-1"}
        assert [(c.before, c.after) for c in changed if c.what is ChangeOf.POD] == [pair]
