"""Connections counted at their sockets, and those that are followed where not all are: of a known number, known bytes."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.probes.connections import ROW_KEY
from kubectl_genainet.agent.session.totals import RunningTotals
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import ConnectionCounts, Event, PacketSeen
from kubectl_genainet.model.packet import ALL_KEPT, FiveTuple, Protocol, followed
from kubectl_genainet.wire import FilterEntry
from tests.kernel.accepting import accepting
from tests.kernel.kerneltest import CLIENT_IP, PORT, SERVER_IP, Row, cache_folder

ASKED, ANSWERED = 300, 5000  # bytes
FILTERS = (FilterEntry(SERVER_IP, PORT, "TCP"), FilterEntry(SERVER_IP, PORT + 1, "TCP"))
RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds


def receive(sock: socket.socket, size: int) -> None:
    while size:
        size -= len(sock.recv(size))


def connect(row: Row, port: int = PORT) -> socket.socket:
    with netns.inside(row.client):
        sock = socket.socket()
    sock.settimeout(10)
    try:
        sock.connect((SERVER_IP, port))
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def server(row: Row) -> Iterator[None]:
    """Answers each connection and closes it: in order where it got all that a client asks, else with a reset."""
    with netns.inside(row.server):
        listener = socket.create_server((SERVER_IP, PORT))

    def answer(sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            first = sock.recv(1, socket.MSG_PEEK)
            if first == b"r":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            elif first:
                receive(sock, ASKED)
                sock.sendall(b"a" * ANSWERED)

    with accepting(listener, lambda sock: threading.Thread(target=answer, args=(sock,), daemon=True).start()):
        yield


def ask(row: Row) -> int:
    """One whole connection; returns the client's port."""
    with connect(row) as sock:
        sock.sendall(b"q" * ASKED)
        receive(sock, ANSWERED)
        assert sock.recv(1) == b""  # the server's end
        return int(sock.getsockname()[1])


class Drained:
    """What a probe has counted since it was attached."""

    def __init__(self, probe: LoadedProbe) -> None:
        self._probe, self._totals = probe, RunningTotals()
        self._rows: dict[str, ConnectionCounts] = {}

    def changes(self) -> list[ConnectionCounts]:
        """Since the last call."""
        events = list(self._probe.drain(1))
        return [event for event in events if isinstance(event, ConnectionCounts)]

    def until_over(self, over: int) -> dict[str, ConnectionCounts]:
        """By side, when so many are over at each; the row has one client and one server."""
        while True:
            for event in map(self._totals.with_earlier, self.changes()):
                assert event is not None and (event.client, event.server) == (CLIENT_IP, SERVER_IP)
                if event.port == PORT or event.refused:
                    self._rows[event.side if event.port == PORT else "closed port"] = event
            ended = [e.ended + e.reset for side, e in self._rows.items() if side != "closed port"]
            if ended and min(ended) >= over:
                return self._rows
            time.sleep(0.01)


def test_connections_and_their_bytes_are_counted_at_both_ends(row: Row) -> None:
    with LoadedProbe(PROBES["connections"], "node", cache_folder()) as probe, server(row):
        probe.configure(FILTERS, None)
        before = connect(row)  # older than the probe: not counted, even when it ends
        probe.attach()
        for _ in range(7):
            ask(row)
        with connect(row) as sock, contextlib.suppress(ConnectionResetError):
            sock.sendall(b"r")
            sock.recv(1)
        for _ in range(2):
            with contextlib.suppress(ConnectionRefusedError):
                connect(row, PORT + 1)
        before.close()
        found = Drained(probe).until_over(8)
    client, backend = found["client"], found["server"]
    assert (client.opened, client.established, client.ended, client.reset) == (8, 8, 7, 1)
    assert (backend.opened, backend.established, backend.ended, backend.reset) == (0, 8, 7, 1)
    assert (client.sent, client.received) == (7 * ASKED + 1, 7 * ANSWERED)
    assert (backend.sent, backend.received) == (7 * ANSWERED, 7 * ASKED + 1)
    assert (found["closed port"].opened, found["closed port"].refused, found["closed port"].established) == (2, 2, 0)


def disconnect(sock: socket.socket) -> None:
    """Ends its connection and leaves it as it was before, to be connected again: connect(2), AF_UNSPEC."""
    if ctypes.CDLL(None, use_errno=True).connect(sock.fileno(), bytes(16), 16):
        raise OSError(ctypes.get_errno(), "connect to AF_UNSPEC")


def test_a_connection_whose_end_was_not_seen_is_not_taken_for_the_next_one_at_its_sockets_address(row: Row) -> None:
    """As where a softirq interrupts the program: the kernel skips a program that would run inside itself."""
    with LoadedProbe(PROBES["connections"], "node", cache_folder()) as probe, server(row):
        probe.configure(FILTERS, None)
        probe.attach()
        with connect(row) as sock:
            rows = probe.pairs("sockets", 8, ROW_KEY.size)
            ((address, counted),) = [
                (a, counted) for a, counted in rows if ROW_KEY.read(counted).side == 0
            ]  # the client's
            disconnect(sock)
            found = Drained(probe).until_over(1)
            probe.put("sockets", address, counted)
            with netns.inside(row.server):
                listener = socket.create_server((SERVER_IP, PORT + 2))  # none that is counted
            with accepting(listener, lambda other: other.close()):
                sock.connect((SERVER_IP, PORT + 2))
                assert sock.recv(1) == b""
                assert address not in dict(probe.pairs("sockets", 8, ROW_KEY.size))
        assert Drained(probe).changes() == []
    assert (found["client"].established, found["server"].established) == (1, 1)


def test_those_that_are_followed_are_whole_and_all_are_counted(row: Row) -> None:
    events: list[Event] = []
    kept = ALL_KEPT // 3
    with (
        LoadedProbe(PROBES["packet"], "node", cache_folder()) as packets,
        LoadedProbe(PROBES["connections"], "node", cache_folder()) as totals,
        server(row),
    ):
        packets.on_event(events.append)
        packets.maps["sampling"].set(bytes(4), struct.pack("=II", ALL_KEPT - kept, 0))
        for probe in (packets, totals):
            probe.configure(FILTERS, None)
            probe.attach()
        ports = [ask(row) for _ in range(60)]
        packets.consume()
        found = Drained(totals).until_over(60)
    named = {PORT, PORT + 1}
    wanted = {p for p in ports if followed(FiveTuple(CLIENT_IP, p, SERVER_IP, PORT, Protocol.TCP), kept, named)}
    opening = Counter(
        e.flow.sport for e in events if isinstance(e, PacketSeen) and e.tcp is not None and e.tcp.flags == 2
    )
    answers = Counter(
        e.flow.dport for e in events if isinstance(e, PacketSeen) and e.tcp is not None and e.tcp.flags == 18
    )
    assert 0 < len(wanted) < 60
    assert opening == answers == dict.fromkeys(wanted, 4)  # out of and into each of the namespaces on the way
    assert (found["client"].opened, found["server"].established) == (60, 60)


def refused_by_ports(row: Row, first: int, count: int) -> None:
    """A connection to each of these ports, at which nothing listens: pairs of ends that differ."""
    with netns.inside(row.client):
        for port in range(first, first + count):
            with socket.socket() as sock, contextlib.suppress(ConnectionRefusedError):
                sock.connect((SERVER_IP, port))


ROWS = 16384  # connections.bpf.c


def test_more_ends_than_the_table_has_rows_are_all_counted_where_it_is_emptied(row: Row) -> None:
    with LoadedProbe(PROBES["connections"], "node", cache_folder()) as probe:
        probe.configure([FilterEntry(SERVER_IP, 0, "TCP")], None)
        probe.attach()
        drained, counted = Drained(probe), Counter[int]()
        for first in range(1_000, 1_000 + 6 * 4_000, 4_000):
            refused_by_ports(row, first, 4_000)
            counted.update({event.port: event.refused for event in drained.changes()})
        counted.update({event.port: event.refused for event in drained.changes()})
        assert probe.accounts()["flow table"] == 0
    assert counted == dict.fromkeys(range(1_000, 25_000), 1)


def test_what_finds_no_row_is_counted_as_lost(row: Row) -> None:
    """A connection is looked for in the table when it begins, and when it ends."""
    beyond = 500
    with LoadedProbe(PROBES["connections"], "node", cache_folder()) as probe:
        probe.configure([FilterEntry(SERVER_IP, 0, "TCP")], None)
        probe.attach()
        refused_by_ports(row, 1_000, ROWS + beyond)
        lost, counted = probe.accounts()["flow table"], Drained(probe).changes()
    assert lost == 2 * beyond
    assert sum(event.opened for event in counted) == sum(event.refused for event in counted) == ROWS
