"""How probes get into the kernel: with typed loads where the verifier takes them, else with copies, and the same events."""

from __future__ import annotations

import os
import socket
import threading
from collections import Counter
from typing import Any

import msgspec
import pytest

from kubectl_genainet.agent.bpf import loader, syscalls
from kubectl_genainet.agent.bpf.btf import Btf
from kubectl_genainet.agent.bpf.headers import KernelFacts, kernel_facts
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.probes.layout import layout
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import Event, PacketDropped, PacketSeen
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.wire import FilterEntry
from tests.kernel.delivered import send_received, send_unreceived
from tests.kernel.kerneltest import (
    ADDRESSES,
    CLIENT_IP,
    PORT,
    SERVER_IP,
    Row,
    cache_folder,
    functions_here,
    missing_here,
    udp_socket,
)

FILTERS = tuple(FilterEntry(ip, PORT) for _, ip in ADDRESSES.values())


def refused_typed_loads(*args: Any) -> KernelFacts:
    """The facts of a kernel on which they call a function that no program may."""
    return msgspec.structs.replace(kernel_facts(*args), typed_cast=Btf().function_id("netif_receive_skb") or 1)


@pytest.fixture(params=[True, False], ids=["typed loads", "copies"])
def typed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the verifier takes the typed loads."""
    if not request.param:
        monkeypatch.setattr(loader, "kernel_facts", refused_typed_loads)
        return False
    return Btf().function_id("bpf_rdonly_cast") is not None


@pytest.mark.parametrize("name", sorted(PROBES))
def test_probe_loads_either_way_and_is_attached_everywhere(name: str, typed: bool) -> None:
    with LoadedProbe(PROBES[name], "node", cache_folder()) as probe:
        probe.attach()
        assert probe.typed_loads == typed
        assert {text.rpartition(": ")[0] for text in probe.missing} == missing_here(name)
        assert probe.statistics().keys() == functions_here(name)


def test_detaching_waits_for_the_programs_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What they had begun when the last one was let begin is in the maps before these are read for the last time."""
    live: list[int] = []
    with LoadedProbe(PROBES["packet"], "node", cache_folder()) as probe:
        probe.attach()
        config = layout("include/genainet.h", "config")
        waiting = syscalls.wait_for_programs

        def wait() -> None:
            live.append(config.read(probe.maps["config"].get(bytes(4)) or b"").live)
            waiting()

        monkeypatch.setattr(syscalls, "wait_for_programs", wait)
        probe.detach()
    assert live == [0]


def one_connection(row: Row) -> None:
    """A TCP connection over IPv4 with data, to its end. The client's FIN follows when the server has all: one that goes with the
    last data is of another length."""
    with netns.inside(row.server):
        listener = socket.create_server((SERVER_IP, PORT))
    with netns.inside(row.client):
        client = socket.socket()

    def serve() -> None:
        with listener, listener.accept()[0] as sock:
            left = 20_000
            while left:
                left -= len(sock.recv(left))
            sock.sendall(b"y")
            sock.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    with client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        client.bind((CLIENT_IP, 0))
        client.connect((SERVER_IP, PORT))
        client.sendall(b"x" * 20_000)
        client.recv(1)
        client.shutdown(socket.SHUT_WR)
        client.recv(1)
    thread.join(10)


def wanted(event: Event) -> bool:
    """Not the middle of the connection, of which only the first data is reported; nor what a closed socket held unread, which
    the kernel frees in no namespace once RCU lets it."""
    if not isinstance(event, PacketSeen | PacketDropped) or not event.netns:
        return False
    return event.tcp is None or event.tcp.flags & 7 != 0


def what(event: Event) -> tuple[object, ...]:
    """All of an event that two runs have in common."""
    assert isinstance(event, PacketSeen | PacketDropped)
    drop = (event.reason, event.hook) if isinstance(event, PacketDropped) else (event.point.value, "")
    flow = (event.flow.protocol.value, event.flow.src, event.flow.dst, event.flow.dport == PORT)
    payload = event.payload if event.tcp is None else -1
    return type(event).__name__, event.netns, event.ifindex, event.device, *drop, *flow, payload, event.length


def test_both_ways_see_the_same_of_the_same_packets(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    def seen_by(probe: LoadedProbe) -> list[tuple[object, ...]]:
        events: list[Event] = []
        probe.on_event(events.append)
        probe.configure(FILTERS, None)
        probe.attach()
        for family in (4, 6):
            send_received(row, 20, family)
            send_unreceived(row, 5, family)  # dropped, and an ICMP error comes back
        with udp_socket(row, row.client, 4) as sock:
            sock.sendto(b"x" * 4000, (SERVER_IP, PORT))  # in fragments
        one_connection(row)
        probe.consume()
        found = Counter(map(what, filter(wanted, events)))
        # On a busy machine TCP may send a packet again.
        return sorted(
            event for event, times in found.items() for _ in range(1 if Protocol.TCP.value in event else times)
        )

    with LoadedProbe(PROBES["packet"], "node", cache_folder()) as probe:
        typed = seen_by(probe)
    original = kernel_facts
    monkeypatch.setattr(loader, "kernel_facts", lambda *a: msgspec.structs.replace(original(*a), typed_cast=0))
    with LoadedProbe(PROBES["packet"], "node", cache_folder()) as probe:
        assert not probe.typed_loads
        copies = seen_by(probe)
    assert typed == copies
    names = [line[0] for line in typed]
    # 20 datagrams at four places in each family, 5 more that die at the server's socket, and what the connection opens with.
    assert names.count("PacketSeen") >= 2 * 25 * 4, names
    assert names.count("PacketDropped") >= 2 * 5


def test_what_measuring_a_program_takes_is_measured() -> None:
    statistics = syscalls.enable_statistics()
    assert statistics is not None
    try:
        assert 5 < syscalls.measuring_ns() < 2000
    finally:
        os.close(statistics)
