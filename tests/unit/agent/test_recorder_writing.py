"""What a recorder writes once, what again, and by which clock."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from kubectl_genainet.history.blocks import Block, Flag, scan
from kubectl_genainet.history.store import segments
from kubectl_genainet.model.events import DropCount, FlowCounters, Point
from kubectl_genainet.model.history import Bucket, Gap
from kubectl_genainet.model.node import Device, NetNs, NodeReport
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.unit.agent.test_agent_recorder import CLIENT, SERVICE, Node, dropped
from tests.unit.history.recording import MONO, NODE, SECOND, WALL


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "history")


def blocks(node: Node) -> list[Block]:
    parts = [part for segment in segments(node.folder) for part in scan(segment.path.read_bytes())]
    assert all(isinstance(part, Block) for part in parts)
    return [part for part in parts if isinstance(part, Block)]


def report(at_s: float, mtu: int = 1500, entries: int = 0) -> NodeReport:
    devices = (Device(name="eth0", ifindex=2, mtu=mtu),)
    netns = NetNs(inode=7, host=True, devices=devices, conntrack_count=entries, conntrack_max=1000)
    return NodeReport(node=NODE, t_ns=MONO + int(at_s * SECOND), namespaces=(netns,))


def test_a_report_is_written_when_its_structure_changes_and_each_minute(node: Node) -> None:
    recorder = node.start()
    for second in range(130):
        recorder.take(report(second, mtu=1500 if second < 90 else 1400, entries=second))
        node.pass_time(recorder, second + 1)
    written = [r for block in blocks(node) for r in block.records() if isinstance(r, NodeReport)]
    assert [(r.t_ns - MONO) // SECOND for r in written] == [0, 60, 90]
    assert [r.namespaces[0].devices[0].mtu for r in written] == [1500, 1500, 1400]


def counters(at_s: float, packets: int, device: str = "eth0") -> FlowCounters:
    return FlowCounters(
        node=NODE,
        t_ns=MONO + int(at_s * SECOND),
        netns=7,
        ifindex=2,
        device=device,
        point=Point.TX,
        flow=FiveTuple(CLIENT, 40_000, SERVICE, 80, Protocol.TCP),
        packets=packets,
        bytes=packets * 100,
    )


def test_of_counters_of_a_connection_a_block_has_the_last_of_each_place(node: Node) -> None:
    recorder = node.start()
    for second in range(1, 10):
        recorder.take(counters(second, 10 * second))
        recorder.take(counters(second, second, device="eth1"))
        node.pass_time(recorder, second)
    recorder.close()
    kept = [[(r.device, r.packets) for r in b.records() if isinstance(r, FlowCounters)] for b in blocks(node)]
    assert kept == [[("eth0", 50), ("eth1", 5)], [("eth0", 90), ("eth1", 9)]]


def test_drops_of_a_second_become_one_count_however_many_each_report_had(node: Node) -> None:
    recorder = node.start()
    for packets in (1, 2, 3):
        recorder.take(msgspec.structs.replace(dropped(1.5), packets=packets, bytes=100 * packets))
    node.pass_time(recorder, 6)
    counts = [(e.packets, e.bytes) for e in node.events(0, 6) if isinstance(e, DropCount)]
    assert counts == [(6, 600)]


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_where_a_clock_was_set_the_gap_and_what_follows_have_their_times(node: Node, step_s: int) -> None:
    recorder = node.start()
    node.pass_time(recorder, 10)
    node.step_s = step_s
    node.pass_time(recorder, 31)
    recorder.close()
    (gap,) = [e for e in node.events(0, 11 + max(step_s, 0)) if isinstance(e, Gap)]
    begun_s = (10, 11 + step_s) if step_s > 0 else (11 + step_s, 11)
    assert ((gap.since_ns - WALL) / SECOND, (gap.until_ns - WALL) / SECOND) == pytest.approx(begun_s, abs=1)
    after = [block for block in blocks(node) if block.covers.wall_from >= WALL + (step_s + 5) * SECOND]
    after = after if step_s > 0 else [block for block in blocks(node) if block.covers.wall_until < WALL]
    assert after[0].covers.wall_from == pytest.approx(WALL + (11 + step_s) * SECOND, abs=SECOND)
    assert Flag.WHOLE_STATE in after[0].flags
    assert all(block.covers.ahead == WALL - MONO + step_s * SECOND for block in after)
    buckets = [r for block in after for r in block.records() if isinstance(r, Bucket)]
    assert buckets and all(bucket.since_ns >= after[0].covers.wall_from for bucket in buckets)
    assert all(0 < bucket.until_ns - bucket.since_ns <= 10 * SECOND for bucket in buckets)
