"""Probes that share tracepoints: one program runs them all there, and each sees what it sees alone."""

from __future__ import annotations

import contextlib
import errno
import time
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from kubectl_genainet.agent.bpf import syscalls
from kubectl_genainet.agent.bpf.joined import attach_all
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.session.meter import KernelTime
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import DropCount, Event, PacketDropped, PacketSeen
from kubectl_genainet.wire import FilterEntry
from tests.kernel.delivered import send_received, send_unreceived
from tests.kernel.kerneltest import ADDRESSES, PORT, Row, cache_folder, missing_here

FILTERS = tuple(FilterEntry(ip, PORT) for _, ip in ADDRESSES.values())
SENT, DEAD = 20, 5


@contextlib.contextmanager
def loaded(row: Row, *names: str) -> Iterator[tuple[list[LoadedProbe], list[Event]]]:
    """The probes, following the row's traffic, and the events of all of them. `names` are attached together."""
    probes: list[LoadedProbe] = []
    events: list[Event] = []
    with contextlib.ExitStack() as stack:
        for name in names:
            probe = stack.enter_context(LoadedProbe(PROBES[name], "node", cache_folder(), others=tuple(probes)))
            probe.on_event(events.append)
            probe.configure(FILTERS, [netns.inode(n) for n in (row.client, row.router, row.server)])
            probes.append(probe)
        attach_all(probes)
        yield probes, events


def send(row: Row) -> None:
    """Datagrams that are received, and some that nobody waits for."""
    send_received(row, SENT)
    send_unreceived(row, DEAD)


def seen(probes: Sequence[LoadedProbe], events: list[Event]) -> Counter[tuple[str, int]]:
    """Events by kind and place, and packets that the drops probe counted."""
    for probe in probes:
        probe.consume()
    drained = [event for probe in probes for event in probe.drain(time.monotonic_ns())]
    found = Counter((type(e).__name__, e.netns) for e in events if isinstance(e, PacketSeen | PacketDropped))
    for count in (e for e in drained if isinstance(e, DropCount)):
        found["dropped", count.netns] += count.packets
    return found


def lacks_what_it_must(probe: LoadedProbe) -> bool:
    """Whether the probe misses what it misses on this kernel when it is alone, and no more."""
    return {text.rpartition(": ")[0] for text in probe.missing} == missing_here(probe.probe.name)


def shared_programs(probes: Sequence[LoadedProbe]) -> set[int]:
    numbers = Counter(s.program for probe in probes for s in probe.statistics().values())
    return {number for number, users in numbers.items() if users > 1}


def test_probes_that_run_as_one_program_see_what_each_sees_alone(row: Row) -> None:
    alone = Counter[tuple[str, int]]()
    for name in ("packet", "drops", "dns"):
        with loaded(row, name) as (probes, events):
            assert not shared_programs(probes)
            send(row)
            alone += seen(probes, events)
    with loaded(row, "packet", "drops", "dns") as (probes, events):
        assert len(shared_programs(probes)) == 4  # kfree_skb, tcp_retransmit_skb, netif_receive_skb, net_dev_queue
        assert all(lacks_what_it_must(probe) for probe in probes)
        send(row)
        together = seen(probes, events)
    assert together == alone
    assert together["dropped", netns.inode(row.server)] == DEAD
    assert together["PacketDropped", netns.inode(row.server)] == DEAD


def test_a_program_that_the_kernel_refuses_leaves_each_probe_its_own(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def load(code: bytes, name: str, kind: int) -> int:
        if not name.startswith("on_"):
            refused.append(name)
            raise OSError(errno.EACCES, "the stack is too deep")
        return original(code, name, kind)

    original = syscalls.load_program
    monkeypatch.setattr(syscalls, "load_program", load)
    with loaded(row, "packet", "drops") as (probes, events):
        assert sorted(refused) == ["kfree_skb", "netif_receive_skb", "tcp_retransmit_skb"]
        assert not shared_programs(probes)
        assert all(lacks_what_it_must(probe) for probe in probes)
        send(row)
        assert seen(probes, events)["dropped", netns.inode(row.server)] == DEAD


def test_a_probe_that_is_detached_leaves_the_others_running(row: Row) -> None:
    with loaded(row, "packet", "drops") as (probes, events):
        packets, drops = probes
        packets.detach()
        send(row)
        assert seen([packets], events) == Counter()
        drops.consume()
        assert sum(e.packets for e in drops.drain(time.monotonic_ns()) if isinstance(e, DropCount)) == DEAD
        packets.close()
        send(row)
        assert sum(e.packets for e in drops.drain(time.monotonic_ns()) if isinstance(e, DropCount)) == DEAD


def run_ns(probes: Sequence[LoadedProbe]) -> int:
    return sum({s.program: s.run_ns for probe in probes for s in probe.statistics().values()}.values())


def test_the_time_of_a_shared_program_counts_once(row: Row) -> None:
    with loaded(row, "packet", "drops", "dns") as (probes, _):
        time_of = KernelTime(probes)
        time_of.begin()
        before = run_ns(probes)
        for _ in range(10):
            send(row)
        took_s = (run_ns(probes) - before) / 1e9
        time_of.end()
        assert took_s > 0
        assert time_of.spent_s == pytest.approx(took_s, rel=0.3)
