"""Where a node's rules sent a connection is counted beside what its client asked for, of every connection."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import ConnectionCounts
from kubectl_genainet.model.packet import ALL_KEPT
from kubectl_genainet.wire import FilterEntry
from tests.kernel.accepting import accepting
from tests.kernel.kerneltest import ADDRESSES, PORT, WAIT_S, Row, cache_folder

ALL_TCP = FilterEntry("::", 0, "TCP")
SERVICES = {4: "10.96.0.10", 6: "fd96::10"}
SERVICE_PORT, CLOSED = 80, PORT + 9
Ways = Counter[tuple[str, int, str]]  # backend, its port, what became of the connection


@contextlib.contextmanager
def translated(row: Row, family: int, *, masqueraded: bool) -> Iterator[None]:
    """A Service with two backends, one of which nothing listens on, in turn."""
    ip = "ip" if family == 4 else "ip6"
    server = ADDRESSES[family][1] if family == 4 else f"[{ADDRESSES[family][1]}]"
    rules = f"""
    table {ip} ways {{
        chain services {{
            type nat hook prerouting priority -100;
            {ip} daddr {SERVICES[family]} tcp dport {SERVICE_PORT} numgen inc mod 2 0 dnat to {server}:{PORT}
            {ip} daddr {SERVICES[family]} tcp dport {SERVICE_PORT} dnat to {server}:{CLOSED}
        }}
        chain out {{
            type nat hook postrouting priority 100;
            {"masquerade" if masqueraded else ""}
        }}
    }}"""
    row.run(row.router, "nft", rules)
    try:
        yield
    finally:
        row.run(row.router, "nft", "delete", "table", ip, "ways")


@contextlib.contextmanager
def listening(row: Row, family: int) -> Iterator[None]:
    with netns.inside(row.server):
        listener = socket.create_server((ADDRESSES[family][1], PORT), family=_family(family), backlog=64)
    with accepting(listener, socket.socket.close):
        yield


def _family(family: int) -> socket.AddressFamily:
    return socket.AF_INET if family == 4 else socket.AF_INET6


def ask(row: Row, address: tuple[str, int], family: int) -> None:
    with netns.inside(row.client):
        sock = socket.socket(_family(family))
    sock.settimeout(10)
    with sock, contextlib.suppress(ConnectionRefusedError):
        sock.connect(address)
        assert sock.recv(1) == b""


def ways_of_clients(probe: LoadedProbe, over: int) -> Ways:
    """When so many connections are over."""
    end = time.monotonic() + WAIT_S
    ways: Ways = Counter()
    while time.monotonic() < end:
        for counts in probe.drain(1):
            assert isinstance(counts, ConnectionCounts)
            if counts.side == "client":
                for outcome in ("opened", "established", "refused", "ended"):
                    ways[counts.backend, counts.backend_port, outcome] += getattr(counts, outcome)
        if sum(n for (_, _, outcome), n in ways.items() if outcome in ("refused", "ended")) >= over:
            return +ways
        time.sleep(0.01)
    raise AssertionError(f"of {over} connections: {ways}")


@pytest.mark.parametrize("masqueraded", [False, True])
@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("followed", [ALL_KEPT, 0])
def test_each_connection_is_counted_with_its_backend(row: Row, family: int, followed: int, masqueraded: bool) -> None:
    server = ADDRESSES[family][1]
    with (
        LoadedProbe(PROBES["packet"], "node", cache_folder()) as packets,
        LoadedProbe(PROBES["connections"], "node", cache_folder(), others=[packets]) as totals,
        listening(row, family),
        translated(row, family, masqueraded=masqueraded),
    ):
        packets.maps["sampling"].set(bytes(4), struct.pack("=II", ALL_KEPT - followed, 0))
        for probe in (packets, totals):
            probe.configure([ALL_TCP], [netns.inode(name) for name in (row.client, row.router, row.server)])
            probe.attach()
        for _ in range(20):
            ask(row, (SERVICES[family], SERVICE_PORT), family)
        for _ in range(3):
            ask(row, (server, PORT), family)
        ways = ways_of_clients(totals, 23)
    assert ways == {
        ("", 0, "opened"): 23,
        ("", 0, "established"): 3,
        ("", 0, "ended"): 3,
        (server, PORT, "established"): 10,
        (server, PORT, "ended"): 10,
        (server, CLOSED, "refused"): 10,
    }


def test_without_the_packet_probe_no_backend_is_claimed(row: Row) -> None:
    with (
        LoadedProbe(PROBES["connections"], "node", cache_folder()) as totals,
        listening(row, 4),
        translated(row, 4, masqueraded=False),
    ):
        totals.configure([ALL_TCP], [netns.inode(row.client)])
        totals.attach()
        for _ in range(4):
            ask(row, (SERVICES[4], SERVICE_PORT), 4)
        ways = ways_of_clients(totals, 4)
    assert {backend for backend, _, _ in ways} == {""}
