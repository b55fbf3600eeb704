"""The queue between the probes and a client: every record whole, or counted."""

from __future__ import annotations

import os
import signal
import threading
import time

from kubectl_genainet import wire
from kubectl_genainet.agent.session.outbox import Outbox, write_all
from kubectl_genainet.model.events import Bye, Event, Sightings, Tick
from kubectl_genainet.model.node import NodeReport, RulesetDump


def read_slowly(fd: int, into: list[bytes]) -> threading.Thread:
    def run() -> None:
        while data := os.read(fd, 4096):
            into.append(data)
            time.sleep(0.002)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_write_that_a_signal_cuts_short_is_completed() -> None:
    # A pipe holds 64 KB: the write waits for the reader, and each signal makes the kernel end it with what it has.
    readable, writable = os.pipe()
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    got: list[bytes] = []
    reader = read_slowly(readable, got)
    signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)
    try:
        data = os.urandom(500_000)
        write_all(writable, data)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writable)
        reader.join(20)
        os.close(readable)
    assert b"".join(got) == data


def test_records_stay_whole_and_in_order_however_many_threads_put_them() -> None:
    readable, writable = os.pipe()
    got: list[bytes] = []
    reader = read_slowly(readable, got)
    outbox = Outbox(writable, 1 << 24)

    def ticks(node: str) -> None:
        for i in range(200):
            outbox.put(Tick(node=node, t_ns=i))

    threads = [threading.Thread(target=ticks, args=(f"node-{i}",)) for i in range(3)]
    for thread in threads:
        thread.start()
    for i in range(4):
        outbox.put(RulesetDump(node="big", t_ns=i, source="nft", text='{"rule":\n' * 10_000))
    for thread in threads:
        thread.join()
    outbox.close(20)
    os.close(writable)
    reader.join(20)
    os.close(readable)
    events = [wire.decode(line) for line in b"".join(got).splitlines()]
    assert len(events) == outbox.sent == 604 and outbox.dropped == 0
    for node in ("node-0", "node-1", "node-2", "big"):
        times = [e.t_ns for e in events if isinstance(e, Tick | RulesetDump) and e.node == node]
        assert times == list(range(4 if node == "big" else 200))


def test_nothing_comes_after_the_last_record() -> None:
    readable, writable = os.pipe()
    outbox = Outbox(writable, 1 << 20)
    assert outbox.put(Tick(node="node-1", t_ns=1))
    bye = Bye(node="node-1", emitted=0, sent=0, lost=0, reason="stopped")
    outbox.close(20, bye)
    assert not outbox.put(NodeReport(node="node-1", t_ns=2, namespaces=()), always=True)
    os.close(writable)
    with os.fdopen(readable, "rb") as lines:
        assert [wire.decode(line) for line in lines] == [Tick(node="node-1", t_ns=1), bye]


def test_what_a_slow_reader_costs_is_counted() -> None:
    readable, writable = os.pipe()
    outbox = Outbox(writable, 100_000)  # and nobody reads
    record = RulesetDump(node="n", t_ns=0, source="nft", text="x" * 30_000)
    kept = [outbox.put(record) for _ in range(10)]
    assert outbox.put(Tick(node="n", t_ns=1), always=True)
    os.close(readable)
    assert outbox.broken.wait(5)
    os.close(writable)
    assert kept.count(True) == outbox.sent - 1 and kept.count(False) == outbox.dropped > 0


def test_what_describes_the_node_comes_before_its_first_packet_and_not_where_there_is_none() -> None:
    rules = [RulesetDump(node="node-1", t_ns=t, source="nft", text=f"rules of {t}") for t in (1, 2)]
    reports = [NodeReport(node="node-1", t_ns=t, namespaces=()) for t in (1, 2, 3)]
    tick, packets = Tick(node="node-1", t_ns=3), Sightings(node="node-1", data=b"")
    sent: dict[tuple[Event, ...], list[Event]] = {
        (reports[0], rules[0], tick, rules[1], tick, reports[1]): [tick, tick],
        (reports[0], rules[0], *reports[1:], rules[1], tick, packets, reports[0], rules[0]): [
            *(tick, reports[0], rules[1], reports[2]),
            *(packets, reports[0], rules[0]),
        ],
    }
    for events, wanted in sent.items():
        readable, writable = os.pipe()
        outbox = Outbox(writable, 1 << 20, node_when_seen=True)
        for event in events:
            assert outbox.put(event, always=True)
        outbox.close()
        os.close(writable)
        with os.fdopen(readable, "rb") as lines:
            assert [wire.decode(line) for line in lines] == wanted
