"""What a trace's summary cannot hold is counted and said."""

from __future__ import annotations

import msgspec
import pytest
from rich.console import Console

from kubectl_genainet.model.events import FlowCounters
from kubectl_genainet.model.finding import Finding, Severity
from kubectl_genainet.model.results.losses import COUNTS_LEFT_OUT, Losses
from kubectl_genainet.render.trace.summary import FINDINGS_SHOWN, summary_block
from kubectl_genainet.trace import summary as summing
from kubectl_genainet.trace.summary import SummaryBuilder
from tests.unit.trace_world import SECOND, World


def flow(world: World, port: int, packets: int) -> FlowCounters:
    seen = world.request(port, SECOND)[0]
    return FlowCounters(
        node=seen.node,
        t_ns=seen.t_ns,
        netns=seen.netns,
        ifindex=seen.ifindex,
        device=seen.device,
        point=seen.point,
        flow=seen.flow,
        packets=packets,
        bytes=100 * packets,
        first_ns=seen.t_ns,
        last_ns=seen.t_ns,
    )


def shown(builder: SummaryBuilder, world: World) -> str:
    console = Console(width=500)
    with console.capture() as capture:
        console.print(summary_block(builder.build(world.correlator.identity), 500))
    return capture.get()


def test_flows_beyond_those_that_are_held_are_counted_as_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summing, "MAX_FLOWS", 1)
    world, builder = World(), SummaryBuilder("svc/llm")
    for port, packets in ((40000, 1), (40001, 5), (40000, 3)):
        builder.event(flow(world, port, packets))
    summary = builder.build(world.correlator.identity)
    assert summary.counted == {"packets": 3, "bytes": 300, "flows": 1}
    assert summary.lost == (Losses("node-1", "packets", COUNTS_LEFT_OUT, 1),)
    assert "3 packet sightings counted, without 1 record of flows beyond those that are held" in shown(builder, world)


def test_a_flow_that_came_back_into_the_nodes_table_is_counted_in_both_parts() -> None:
    world, builder = World(), SummaryBuilder("svc/llm")
    for began_ns, packets in ((SECOND, 3), (SECOND, 4), (2 * SECOND, 2)):
        builder.event(msgspec.structs.replace(flow(world, 40000, packets), began_ns=began_ns))
    assert builder.build(world.correlator.identity).counted["packets"] == 6


def test_findings_beyond_those_that_are_held_or_shown_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summing, "MAX_FINDINGS", FINDINGS_SHOWN + 2)
    world, builder = World(), SummaryBuilder("svc/llm")
    (path,) = world.tell(world.request(40000, SECOND))
    for number in [*range(FINDINGS_SHOWN + 3), 0]:
        finding = Finding("unanswered", f"number {number}", Severity.WARNING, ())
        builder.path(msgspec.structs.replace(path, findings=(finding,)))
    assert builder.build(world.correlator.identity).findings_left_out == 1
    text = shown(builder, world)
    assert "… and 2 more findings (all with -o json)" in text and "; 1 finding beyond those that are held" in text
