"""The recorder: what is in trouble is kept whole, the rest as totals, and what is missing is named."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent.record import recorder as recording
from kubectl_genainet.agent.record.lives import MAX_TUPLES, Lives
from kubectl_genainet.agent.record.options import RecordOptions
from kubectl_genainet.agent.record.recorder import Recorder
from kubectl_genainet.history import read
from kubectl_genainet.history.ranges import node_range
from kubectl_genainet.history.read import RangeReader
from kubectl_genainet.history.store import segments
from kubectl_genainet.model.dns import DnsMessage, Question
from kubectl_genainet.model.events import (
    ConnectionCounts,
    DnsEnd,
    DnsMessageSeen,
    DnsPlace,
    DnsTransaction,
    DropCount,
    Event,
    LostEvents,
    Point,
    Sampled,
    Sightings,
)
from kubectl_genainet.model.history import LEFT_OUT, Bucket, ChangeOf, ConnectionKept, Gap, NodeChange
from kubectl_genainet.model.node import Device, NetNs, NodeReport, RulesetDump
from kubectl_genainet.model.packet import ALL_KEPT, FiveTuple, Protocol, port_rank
from kubectl_genainet.wire.sightings import PACKET, unpack
from tests.unit.history.recording import MONO, NODE, SECOND, WALL, hello

CLIENT, SERVICE, BACKEND = "10.244.1.7", "10.96.0.5", "10.244.2.9"
SYN, ACK, FIN, RST = 2, 16, 1, 4


def mapped(ip: str) -> bytes:
    return b"\0" * 10 + b"\xff\xff" + bytes(map(int, ip.split(".")))


def packet(
    at_s: float,
    port: int,
    flags: int,
    *,
    back: bool = False,
    dst: str = SERVICE,
    payload: int = 0,
    seq: int = 0,
) -> bytes:
    """A packet of a connection to `dst`:80 as the kernel writes it."""
    ends = (mapped(dst), mapped(CLIENT), 80, port, 6) if back else (mapped(CLIENT), mapped(dst), port, 80, 6)
    nothing = (bytes(16), bytes(16), 0, 0, 0, 0)
    numbers = (7, 2, seq or port, 0, 60, payload, 0, 1)
    return PACKET.pack(
        MONO + int(at_s * SECOND), 1, *ends, *nothing, *numbers, 1, 1, flags, 0, 0, 0, 0, b"eth0", 0, 0, 64
    )


def healthy(at_s: float, port: int) -> list[bytes]:
    return [
        packet(at_s, port, SYN),
        packet(at_s + 0.001, port, SYN | ACK, back=True),
        packet(at_s + 0.002, port, ACK, payload=10),
        packet(at_s + 0.012, port, ACK, back=True, payload=10),
        packet(at_s + 0.013, port, FIN | ACK),
        packet(at_s + 0.014, port, FIN | ACK, back=True),
    ]


@dataclass
class Node:
    """A recorder with clocks that the test sets."""

    folder: Path
    dns_names: bool = True
    now_s: float = 0.0
    step_s: float = 0.0
    made: list[Recorder] = field(default_factory=list)

    def start(self) -> Recorder:
        options = RecordOptions(folder=str(self.folder), dns_names=self.dns_names)
        clocks = {
            "wall": lambda: WALL + int((self.now_s + self.step_s) * SECOND),
            "mono": lambda: MONO + int(self.now_s * SECOND),
        }
        self.made.append(Recorder(NODE, options, hello(), **clocks))
        return self.made[-1]

    def pass_time(self, recorder: Recorder, until_s: float) -> None:
        while self.now_s < until_s:
            self.now_s += 1
            recorder.tick()

    def events(self, since_s: float, until_s: float) -> list[Event]:
        reader = RangeReader(self.folder, NODE, WALL + int(since_s * SECOND), WALL + int(until_s * SECOND))
        return [record for block in node_range(NODE, reader.blocks()).blocks for record in block.records()]


def ports_of(events: list[Event]) -> set[int]:
    seen = (s for e in events if isinstance(e, Sightings) for s in unpack(e))
    return {max(s.flow.sport, s.flow.dport) for s in seen}


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "history")


def far_ports() -> list[int]:
    """Client's ports in the order in which connections are left out first."""
    return sorted(range(32768, 61000), key=port_rank, reverse=True)


def test_a_quiet_node_keeps_every_connection_whole(node: Node) -> None:
    recorder = node.start()
    for data in healthy(1, 40_000):
        recorder.sighting(data)
    node.pass_time(recorder, 6)
    assert ports_of(node.events(0, 6)) == {40_000}


def busy(node: Node, recorder: Recorder) -> list[int]:
    """Healthy connections until examples only are kept; ports that are no examples now."""
    ports = far_ports()
    for second in range(24):
        for number in range(100):
            for data in healthy(node.now_s, ports[(second * 100 + number) % 3000 + 3000]):
                recorder.sighting(data)
        node.pass_time(recorder, node.now_s + 1)
    assert recorder._lives.share < ALL_KEPT / 2
    return ports[:10]


def test_a_busy_node_keeps_examples_and_what_is_in_trouble(node: Node) -> None:
    recorder = node.start()
    well, reset, slow, unanswered, *_ = busy(node, recorder)
    since = node.now_s
    for data in healthy(since, well):
        recorder.sighting(data)
    recorder.sighting(packet(since, reset, SYN))
    recorder.sighting(packet(since + 0.001, reset, SYN, dst=BACKEND))  # the same SYN, behind its translation
    recorder.sighting(packet(since + 0.002, reset, RST | ACK, back=True, dst=BACKEND))
    for data in healthy(since, slow)[:3]:
        recorder.sighting(data)
    recorder.sighting(packet(since + 0.9, slow, ACK, back=True, payload=10))
    recorder.sighting(packet(since, unanswered, SYN))
    node.pass_time(recorder, since + 12)
    events = node.events(since, since + 12)
    assert ports_of(events) & {well, reset, slow, unanswered} == {reset, slow, unanswered}
    kept = {e.flows[0].sport: e for e in events if isinstance(e, ConnectionKept)}
    assert {port: k.why for port, k in kept.items()} == {
        reset: "refused",
        slow: "slow",
        unanswered: "not answered",
    }
    assert {f.dst for f in kept[reset].flows} == {SERVICE, BACKEND}
    times = [t for e in events if isinstance(e, Bucket) for t in e.times if t.server == SERVICE]
    assert {(t.backend, t.outcome): t.followed for t in times}[BACKEND, "refused"] == 1
    assert sum(t.followed for t in times if not t.outcome) >= 2
    shares = [e.share for e in node.events(0, since + 12) if isinstance(e, Sampled)]
    assert min(shares) < ALL_KEPT


def test_totals_are_what_the_kernel_counted_within_the_bucket(node: Node) -> None:
    recorder = node.start()

    def counted(**numbers: Any) -> ConnectionCounts:
        return ConnectionCounts(node=NODE, t_ns=1, side="client", client=CLIENT, server=SERVICE, port=80, **numbers)

    def sent_on(**numbers: Any) -> ConnectionCounts:
        return msgspec.structs.replace(counted(**numbers), backend=BACKEND, backend_port=8080)

    recorder.counted(counted(opened=5))
    recorder.counted(sent_on(established=3))
    recorder.counted(sent_on(established=1))
    node.pass_time(recorder, 12)
    recorder.counted(counted(opened=4))
    recorder.counted(sent_on(established=2, refused=2))
    node.pass_time(recorder, 26)
    sums = [c for e in node.events(0, 26) if isinstance(e, Bucket) for c in e.connections]
    assert [(c.opened, c.established, c.refused) for c in sums if not c.backend] == [(5, 0, 0), (4, 0, 0)]
    assert [(c.opened, c.established, c.refused) for c in sums if c.backend] == [(0, 4, 0), (0, 2, 2)]


def test_what_is_read_after_the_end_of_a_bucket_is_in_the_next(node: Node) -> None:
    recorder = node.start()
    for read_s, refused in ((9.5, 1), (10.4, 3)):  # before the recorder's own look at the clock
        counts = ConnectionCounts(
            node=NODE,
            t_ns=MONO + int(read_s * SECOND),
            side="client",
            client=CLIENT,
            server=SERVICE,
            port=80,
            refused=refused,
        )
        recorder.counted(counts)
    node.pass_time(recorder, 21)
    buckets = [e for e in node.events(0, 21) if isinstance(e, Bucket) and e.connections]
    assert [((b.since_ns - WALL) // SECOND, b.connections[0].refused) for b in buckets] == [(0, 1), (10, 3)]


def dropped(at_s: float) -> DropCount:
    flow = FiveTuple(CLIENT, 40_000, SERVICE, 80, Protocol.TCP)
    t_ns = MONO + int(at_s * SECOND)
    return DropCount(node=NODE, t_ns=t_ns, netns=1, flow=flow, packets=2, reason="R", location="f", bytes=9)


def test_drops_of_a_second_are_one_count_and_those_of_another_their_own(node: Node) -> None:
    recorder = node.start()
    for at_s in (1.1, 1.2, 3.1):
        recorder.take(dropped(at_s))
    node.pass_time(recorder, 6)
    counts = [(e.t_ns - MONO, e.packets) for e in node.events(0, 6) if isinstance(e, DropCount)]
    assert counts == [(int(1.2 * SECOND), 4), (int(3.1 * SECOND), 2)]


def test_drops_are_counted_by_cause_with_first_and_last(node: Node) -> None:
    recorder = node.start()
    for at_s in (1, 3):
        recorder.take(dropped(at_s))
    node.pass_time(recorder, 12)
    (drops,) = [d for e in node.events(0, 12) if isinstance(e, Bucket) for d in e.drops]
    assert (drops.packets, drops.bytes) == (4, 18)
    assert (drops.at_first_ns, drops.at_last_ns) == (WALL + SECOND, WALL + 3 * SECOND)


def exchange(name: str) -> DnsTransaction:
    asked = DnsMessage(qr=False, length=40, captured=40, questions=(Question(name, "A"),))
    return DnsTransaction(
        node=NODE,
        t_ns=MONO + SECOND,
        id=1,
        end=DnsEnd.EXPIRED,
        flows=(FiveTuple(CLIENT, 40_000, SERVICE, 53, Protocol.UDP),),
        query=(DnsPlace(MONO + SECOND, 1, 2, Point.TX, 0),),
        asked=asked,
    )


def test_names_that_are_not_to_be_recorded_are_nowhere_on_the_disk(tmp_path: Path) -> None:
    node = Node(tmp_path / "history", dns_names=False)
    recorder = node.start()
    seen = exchange("secret-model.prod.example.com.")
    recorder.take(msgspec.structs.replace(seen, answer=seen.asked))
    assert seen.asked is not None
    recorder.take(
        DnsMessageSeen(
            node=NODE,
            t_ns=MONO + SECOND,
            netns=1,
            ifindex=2,
            point=Point.TX,
            flow=seen.flows[0],
            id=1,
            message=seen.asked,
        )
    )
    node.pass_time(recorder, 12)
    events = node.events(0, 12)
    assert {DnsTransaction, DnsMessageSeen} <= {type(e) for e in events}
    assert "secret-model" not in repr(events) and "prod" not in repr(events)


def test_what_changed_on_the_node_is_named(node: Node) -> None:
    recorder = node.start()

    def report(*addresses: str, mtu: int = 1500, full: int = 0) -> NodeReport:
        device = Device(name="eth0", ifindex=2, mtu=mtu, addresses=addresses)
        netns = NetNs(inode=7, host=True, devices=(device,), conntrack_count=full, conntrack_max=100)
        return NodeReport(node=NODE, t_ns=MONO, namespaces=(netns,))

    recorder.take(report("10.0.0.1"))
    recorder.take(report("10.0.0.1", "10.0.0.2", mtu=1400, full=95))
    text = "\n".join(f"-A KUBE-SERVICES {n}" for n in range(50))
    recorder.take(RulesetDump(node=NODE, t_ns=MONO, source="iptables-nft", text=text))
    recorder.take(RulesetDump(node=NODE, t_ns=MONO, source="iptables-nft", text=text + "\n-A KUBE-SERVICES new"))
    for number in (1, 2):  # statistics are no rules
        recorder.take(RulesetDump(node=NODE, t_ns=MONO, source="conntrack-stats", text=f"cpu=0 found={number}"))
    node.pass_time(recorder, 6)
    changes = [(e.what, e.subject, e.before, e.after) for e in node.events(0, 6) if isinstance(e, NodeChange)]
    assert changes == [
        (ChangeOf.ADDRESS, "10.0.0.2", "", "eth0"),
        (ChangeOf.DEVICE, "eth0", "device, up, MTU 1500", "device, up, MTU 1400"),
        (ChangeOf.COUNTER, "conntrack entries", "0 of 100", "95 of 100"),
        (ChangeOf.RULES, "iptables-nft", "50 lines", "51 lines, 1 new and 0 gone"),
    ]


def test_a_recorder_that_is_killed_loses_five_seconds_at_most_and_the_gap_is_named(node: Node) -> None:
    killed = node.start()
    node.pass_time(killed, 23)
    node.now_s = 40
    node.pass_time(node.start(), 46)
    (gap,) = [e for e in node.events(0, 45) if isinstance(e, Gap)]
    assert gap.why == read.NOT_RUN and gap.until_ns == WALL + 40 * SECOND
    assert WALL + 18 * SECOND <= gap.since_ns <= WALL + 23 * SECOND


@pytest.mark.parametrize("step_s", [3600, -3600])
def test_a_clock_that_is_set_is_named_and_what_follows_is_by_the_new_one(node: Node, step_s: int) -> None:
    recorder = node.start()
    node.pass_time(recorder, 10)
    node.step_s = step_s
    node.pass_time(recorder, 20)
    assert len(segments(node.folder)) == 2
    gaps = [e for e in node.events(0, 11 + max(step_s, 0)) if isinstance(e, Gap)]
    assert len(gaps) == 1 and gaps[0].why.startswith("the node's clock was set " + ("forward", "back")[step_s < 0])
    assert not [e for e in node.events(step_s + 12, step_s + 15) if isinstance(e, Gap)]


def test_what_a_full_disk_did_not_take_is_named(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = node.start()
    node.pass_time(recorder, 10)
    writer = recorder._writer
    monkeypatch.setattr(writer, "append", lambda *_: False)
    node.pass_time(recorder, 20)
    monkeypatch.undo()
    node.pass_time(recorder, 30)
    (gap,) = [e for e in node.events(0, 29) if isinstance(e, Gap)]
    assert gap.why == read.NOT_WRITABLE
    assert (gap.since_ns - WALL) // SECOND in (9, 10) and (gap.until_ns - WALL) // SECOND in (19, 20)


def test_quick_exchanges_beyond_the_first_are_totals_and_counted(node: Node) -> None:
    recorder = node.start()
    response = DnsMessage(qr=True, length=40, captured=40)
    place = DnsPlace(MONO + SECOND + 1000, 1, 2, Point.RX, 0)
    answered = {"end": DnsEnd.ANSWERED, "answer": response, "response": (place,)}
    quick = msgspec.structs.replace(exchange("a."), **answered)
    for _ in range(recording.EXCHANGES + 40):
        recorder.take(quick)
    node.pass_time(recorder, 12)
    events = node.events(0, 12)
    assert len([e for e in events if isinstance(e, DnsTransaction)]) == recording.EXCHANGES
    lost = [e for e in events if isinstance(e, LostEvents) and e.where == LEFT_OUT]
    assert sum(e.count for e in lost) == 40
    assert sum(d.count for e in events if isinstance(e, Bucket) for d in e.dns) == recording.EXCHANGES + 40


def test_syns_of_a_scanner_with_one_sequence_number_are_no_single_connection() -> None:
    kept: list[Event] = []
    lives = Lives(NODE, kept.append, lambda _: None)
    lives.share = 0
    for port in range(20_000, 20_100):
        lives.sighting(packet(0.1, port, SYN, seq=7))
    lives.look(MONO + 2 * SECOND)
    assert sum(len(e.flows) for e in kept if isinstance(e, ConnectionKept)) == 100
    assert max(len(e.flows) for e in kept if isinstance(e, ConnectionKept)) == MAX_TUPLES
