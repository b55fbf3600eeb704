"""The packet probe's flow table: nothing that passes while it is read is lost, and what is over leaves it."""

from __future__ import annotations

import contextlib
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.probes.packet import FLOW, FLOW_KEY
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import FlowCounters, FlowSilence, Held, Point
from kubectl_genainet.wire import FilterEntry
from tests.kernel.kerneltest import CLIENT_IP, PORT, SERVER_IP, Row, cache_folder


@contextlib.contextmanager
def connection(row: Row) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connection's two ends, the client's first."""
    with netns.inside(row.server):
        listener = socket.create_server((SERVER_IP, PORT))
    with listener:
        with netns.inside(row.client):
            client = socket.create_connection((SERVER_IP, PORT), source_address=(CLIENT_IP, 0))
        with client, listener.accept()[0] as server:
            yield client, server


@pytest.fixture
def probe(row: Row) -> Iterator[LoadedProbe]:
    with LoadedProbe(PROBES["packet"], "node", cache_folder()) as probe:
        probe.configure((FilterEntry(SERVER_IP, PORT, "TCP"),), None)
        probe.attach()
        yield probe


def kept(probe: LoadedProbe) -> int:
    return len(list(probe.take("flows", FLOW_KEY.size, FLOW.size)))


def sent_and_read(server: socket.socket, client: socket.socket) -> None:
    server.sendall(b"token")
    assert client.recv(100) == b"token"
    while fcntl.ioctl(server, termios.TIOCOUTQ, bytes(4)) != bytes(4):  # SIOCOUTQ: what the client has not acknowledged
        time.sleep(0.01)


def segments(sock: socket.socket) -> int:
    """How many segments a socket has sent, by its own TCP (tcpi_segs_out of struct tcp_info)."""
    return int(struct.unpack_from("=I", sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256), 136)[0])


def test_a_reply_that_comes_while_the_table_is_read_is_counted(row: Row, probe: LoadedProbe) -> None:
    """After the client's FIN its acknowledgements go on, and each reading is met by one."""
    parts: dict[int, FlowCounters] = {}  # of the client's packets where it sends them, by when they began to be counted

    def drain(*, server: socket.socket | None = None) -> None:
        for event in probe.drain(time.monotonic_ns()):
            assert isinstance(event, FlowCounters)
            if event.netns == row.inode(row.client) and event.point is Point.TX:
                parts[event.began_ns] = event
            if server is not None:
                sent_and_read(server, client)
                server = None

    with connection(row) as (client, server):
        client.shutdown(socket.SHUT_WR)
        for _ in range(4):
            sent_and_read(server, client)
            drain(server=server)
            drain()  # nothing new: a flow that has ended may leave now
        drain()
        news = 2  # SYN and FIN are events
        assert sum(part.packets for part in parts.values()) == segments(client) - news
    assert len(parts) == 1


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_what_is_over_leaves_the_table_and_what_goes_on_stays(row: Row, probe: LoadedProbe, reset: bool) -> None:

    def drain() -> int:
        list(probe.drain(time.monotonic_ns()))
        return kept(probe)

    with connection(row) as (client, server):
        client.sendall(b"prompt")
        assert server.recv(100) == b"prompt"
        sent_and_read(server, client)
        places = 2 * 4  # two directions, each in and out of three namespaces
        assert (drain(), drain()) == (places, places)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            client.shutdown(socket.SHUT_WR)
            assert (drain(), drain()) == (places, places)
    over = time.monotonic() + 10
    while drain() and time.monotonic() < over:
        time.sleep(0.05)
    assert kept(probe) == 0


def test_a_packet_that_is_delivered_after_the_end_leaves_the_table_too(row: Row, probe: LoadedProbe) -> None:
    """As an acknowledgement that a busy node's softirq passes on when the flow was taken out already."""

    def drain() -> list[FlowCounters]:
        return [event for event in probe.drain(time.monotonic_ns()) if isinstance(event, FlowCounters)]

    with connection(row) as (client, server):
        sent_and_read(server, client)
        port = client.getsockname()[1]
    over = time.monotonic() + 10
    while drain() or kept(probe):
        assert time.monotonic() < over
        time.sleep(0.05)
    with netns.inside(row.client):
        late = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
    with late:
        late.bind((CLIENT_IP, 0))
        late.sendto(struct.pack("!HHIIBBHHH", port, PORT, 1, 1, 5 << 4, 0x10, 512, 0, 0), (SERVER_IP, 0))
    assert [(event.flow.sport, event.packets) for event in drain()] == [(port, 1)] * 4
    assert (drain(), kept(probe)) == ([], 0)


PAUSE_S = 0.6


def at_silence(row: Row, probe: LoadedProbe) -> tuple[int, FlowSilence]:
    """(length, what was so when it ended) of the reply's longest silence, where the server sends."""
    for event in probe.drain(time.monotonic_ns()):
        assert isinstance(event, FlowCounters)
        if (event.netns, event.point, event.flow.sport) == (row.inode(row.server), Point.TX, PORT):
            assert event.at_silence is not None
            return event.silence_ns, event.at_silence
    raise AssertionError("the reply was not counted")


def test_a_server_that_had_nothing_to_send_is_known_by_its_socket(row: Row, probe: LoadedProbe) -> None:
    with connection(row) as (client, server):
        for _ in range(2):
            sent_and_read(server, client)
            time.sleep(PAUSE_S)
        server.sendall(b"token")
        length, at = at_silence(row, probe)
    assert length >= PAUSE_S * 1e9 and at.asked_ns == 0
    assert at.held is Held.UNACKNOWLEDGED and at.held_ns < length / 4  # what it has just written


def test_a_window_that_the_client_closed_is_known_by_the_servers_socket(row: Row, probe: LoadedProbe) -> None:
    with connection(row) as (client, server):
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                server.send(bytes(65536))
        time.sleep(PAUSE_S)
        while fcntl.ioctl(server, termios.TIOCOUTQ, bytes(4)) != bytes(4):
            client.recv(65536)
        length, at = at_silence(row, probe)
    assert length >= PAUSE_S * 1e9 * 0.8 and at.held is Held.WINDOW and at.held_ns > length / 2


def test_when_the_client_asked_is_known(row: Row, probe: LoadedProbe) -> None:
    with connection(row) as (client, server):
        sent_and_read(server, client)
        time.sleep(PAUSE_S)
        client.sendall(b"prompt")
        assert server.recv(100) == b"prompt"
        server.sendall(b"token")
        length, at = at_silence(row, probe)
    assert PAUSE_S * 1e9 <= at.asked_ns <= length
