"""A reset that arrived and that nobody was seen to send: it is from outside only where its sender would have been seen."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from kubectl_genainet.drops.drops import DropCorrelator
from kubectl_genainet.drops.rows import Rows
from kubectl_genainet.model.events import (
    SOME_RESETS_NOT_COUNTED,
    AgentFailed,
    Event,
    Hello,
    LostEvents,
    Progress,
    ResetCount,
    Tick,
)
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from kubectl_genainet.wire import PROTOCOL
from tests.unit.drops.droprows import REQUEST, UI, UI_NS, VIP, report, snapshot, tcp

S = 10**9
NODE = "node-1"
OUTSIDE = "203.0.113.7"


def hello() -> Hello:
    return Hello(
        node=NODE,
        protocol=PROTOCOL,
        version="0",
        kernel="6",
        boot_id="b",
        t_ns=1,
        realtime_ns=100 * S,
        tier="tracepoint",
    )


def received(src: str = REQUEST.dst, sport: int = 8080) -> ResetCount:
    flow = tcp(src, sport, UI, 40000)
    return ResetCount(node=NODE, t_ns=11 * S, netns=UI_NS, flow=flow, packets=1, sent=False, reason="")


BEFORE = (
    hello(),
    report(S),
    Progress(node=NODE, stage="attached", t_ns=2 * S),
    Tick(node=NODE, t_ns=10 * S, counted_ns=10 * S),
)
AFTER = (Tick(node=NODE, t_ns=12 * S, counted_ns=12 * S), report(13 * S))


def row_of(events: Iterable[Event]) -> tuple[str, str]:
    correlator = DropCorrelator(snapshot())
    for event in events:
        correlator.feed(event)
    built = Rows(correlator)
    built.is_final = True
    (row,) = built.build()
    return row.check, row.title


@pytest.mark.parametrize("src", [(REQUEST.dst, 8080), (VIP, 80)], ids=["pod", "service"])
def test_reset_that_no_end_sent_though_all_was_watched_is_from_outside(src: tuple[str, int]) -> None:
    assert row_of([*BEFORE, received(*src), *AFTER])[0] == "reset-from-outside"


MISSING: dict[str, tuple[list[Event], str]] = {
    "not counted": ([*BEFORE, received(), report(13 * S)], "ended before it had counted"),
    "counts lost": (
        [*BEFORE, LostEvents(node=NODE, probe="drops", count=1, where="flow table"), received(), *AFTER],
        "lost counts",
    ),
    "kernel tells of some only": (
        [
            *BEFORE,
            Progress(node=NODE, stage="missing", detail=f"tcp:tcp_send_reset: {SOME_RESETS_NOT_COUNTED}"),
            received(),
            *AFTER,
        ],
        "does not tell of every reset",
    ),
    "failed": ([*BEFORE, received(), *AFTER, AgentFailed(node=NODE, message="gone")], "was interrupted"),
    "new namespace": ([hello(), *BEFORE[2:], received(), AFTER[0], report(13 * S)], "may not have been followed"),
    "gone namespace": ([*BEFORE, received(), AFTER[0]], "may not have been followed"),
    "unknown namespace": ([*BEFORE[:1], *BEFORE[2:], received(), AFTER[0]], "no agent has reported"),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_may_be_missing_leaves_the_sender_unknown(case: str) -> None:
    events, why = MISSING[case]
    check, title = row_of(events)
    assert check == "reset-unattributed" and why in title


def test_lost_samples_take_no_counts_away() -> None:
    lost = LostEvents(node=NODE, probe="drops", count=1, where="ring buffer")
    assert row_of([*BEFORE, lost, received(), *AFTER])[0] == "reset-from-outside"


def test_address_at_which_no_agent_looks_is_outside() -> None:
    assert row_of([*BEFORE, received(OUTSIDE, 443)])[0] == "reset-from-outside"


def sent(src: str, sport: int, dst: str, dport: int, netns: int) -> ResetCount:
    flow = tcp(src, sport, dst, dport)
    return ResetCount(node=NODE, t_ns=11 * S, netns=netns, flow=flow, packets=1, sent=True, reason="NO_SOCKET")


def test_what_the_receiver_itself_sent_afterwards_is_not_what_it_received() -> None:
    correlator = DropCorrelator(snapshot())
    answer = sent(UI, 40000, REQUEST.dst, 8080, UI_NS)  # to the server, which does not know of the reset
    events: list[Event] = [*BEFORE, received(), answer, *AFTER]
    for event in events:
        correlator.feed(event)
    built = Rows(correlator)
    built.is_final = True
    assert {row.check for row in built.build()} == {"reset-from-outside", "reset-by-kernel"}


def test_what_a_pod_sent_to_itself_it_may_have_received() -> None:
    its_own = received(UI, 8080)
    assert row_of([*BEFORE, its_own, sent(UI, 8080, UI, 40000, UI_NS), *AFTER])[0] == "reset-by-kernel"


def of_node(node: str, t_ns: int, ip: str) -> NodeReport:
    device = Device(name="eth0", ifindex=2, mtu=1500, addresses=(ip,))
    return NodeReport(node=node, t_ns=t_ns, namespaces=(NetNs(inode=UI_NS, host=False, devices=(device,)),))


@pytest.mark.parametrize(
    ("begun", "ended", "why"),
    [
        (2 * S, 12 * S, ""),
        (2 * S, 10 * S + 9, "node-2 ended before it had counted"),
        (10 * S + 5, 12 * S, "node-2 was watched from a moment later on"),
    ],
)
def test_sender_is_known_where_its_node_has_counted_all_that_the_receivers_may_have(
    begun: int, ended: int, why: str
) -> None:
    """As a recording's range ends: the receiver's node has emptied its tables, the sender's empties them a moment later."""
    events: list[Event] = []
    for node, ip, times in ((NODE, UI, (2 * S, 12 * S)), ("node-2", REQUEST.dst, (begun, ended))):
        events += [
            msgspec.structs.replace(hello(), node=node),
            of_node(node, S, ip),
            Progress(node=node, stage="attached", t_ns=times[0]),
            Tick(node=node, t_ns=10 * S, counted_ns=10 * S),
            *([received()] if node == NODE else ()),
            of_node(node, 13 * S, ip),
            Progress(node=node, stage="detached", t_ns=times[1]),
        ]
    check, title = row_of(events)
    assert (check, why in title) == ("reset-unattributed" if why else "reset-from-outside", True)
