"""What TCP answers with a reset, and what it does not, over a full socket and without one: every reset is counted once.

Where the tracepoint of sent resets is not called without a full socket, a kprobe tells the others.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
from pyroute2 import IPRoute

from kubectl_genainet.agent.bpf import kprobes
from kubectl_genainet.agent.bpf.btf import Btf
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import SOME_RESETS_NOT_COUNTED, DropCount, ResetCount
from kubectl_genainet.model.packet import FiveTuple, Protocol
from tests.kernel.kerneltest import PORT, WAIT_S, Row, cache_folder, tells_every_reset

CLOSED, SPORT = PORT + 1, 40000
SYN, RST, ACK = 2, 4, 16
ENDS = {4: ("10.88.2.1", "10.88.2.2"), 6: ("fd88:2::1", "fd88:2::2")}  # the router's and the server's, on one link
EVERYBODY = {4: "10.88.2.255", 6: "ff02::1"}
ETHERTYPES = {4: 0x0800, 6: 0x86DD}
SIGNATURE = bytes((1, 1, 19, 18)) + bytes(16)  # RFC 2385: no operation, twice; the MD5 digest


def checksum(data: bytes) -> bytes:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def segment(source: str, destination: str, dport: int, flags: int, options: bytes = b"") -> bytes:
    """A TCP segment in IP, with its checksums."""
    addresses = b"".join(ipaddress.ip_address(end).packed for end in (source, destination))
    tcp = struct.pack("!HHIIBBHHH", SPORT, dport, 1, 1, 5 + len(options) // 4 << 4, flags, 1000, 0, 0) + options
    tcp = tcp[:16] + checksum(addresses + struct.pack("!II", len(tcp), socket.IPPROTO_TCP) + tcp) + tcp[18:]
    if len(addresses) > 8:
        return struct.pack("!IHBB", 6 << 28, len(tcp), socket.IPPROTO_TCP, 64) + addresses + tcp
    ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 7, 0, 64, socket.IPPROTO_TCP, 0) + addresses
    return ip[:10] + checksum(ip) + ip[12:] + tcp


def is_reset(packet: bytes) -> bool:
    """Of an IP packet without options."""
    header, protocol = (20, packet[9]) if packet[0] >> 4 == 4 else (40, packet[6])
    return protocol == socket.IPPROTO_TCP and bool(packet[header + 13] & RST)


@dataclass
class Link:
    """The router's end of the link to the server, and the probe, which counts what is the server's."""

    probe: LoadedProbe
    row: Row
    device: socket.socket
    mac: bytes

    def send(self, family: int, packet: bytes) -> None:
        """To the server's hardware address, whatever the packet's is."""
        self.device.sendto(packet, ("to-server", ETHERTYPES[family], 0, 0, self.mac))

    def resets_that_come(self, wait_s: float) -> int:
        """How many come within a time; it ends with the first, and a moment for a second."""
        resets, deadline = 0, time.monotonic() + wait_s
        while (left := deadline - time.monotonic()) > 0:
            self.device.settimeout(left)
            try:
                packet, (_, _, kind, *_) = self.device.recvfrom(2048)
            except TimeoutError:
                break
            if kind != socket.PACKET_OUTGOING and is_reset(packet):
                resets, deadline = resets + 1, min(deadline, time.monotonic() + 0.5)
        return resets

    def counts(self) -> tuple[list[ResetCount], int]:
        """Since the last call: the resets that the server has sent, and how many packets to the closed port died there."""
        self.probe.consume()
        events = [event for _ in range(2) for event in self.probe.drain(time.monotonic_ns())]
        died = sum(e.packets for e in events if isinstance(e, DropCount) and e.flow.dport == CLOSED)
        return [event for event in events if isinstance(event, ResetCount) and event.sent], died

    def counted(self) -> list[ResetCount]:
        return self.counts()[0]


@pytest.fixture(scope="module")
def link(row: Row) -> Iterator[Link]:
    with netns.inside(row.router):
        device = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3))  # ETH_P_ALL
    device.bind(("to-server", 3))
    with netns.inside(row.server), IPRoute() as ipr:
        mac = bytes.fromhex(ipr.get_links(ifname="eth0")[0].get_attr("IFLA_ADDRESS").replace(":", ""))
    with device, LoadedProbe(PROBES["drops"], "node", cache_folder()) as probe:
        probe.on_event(lambda _: None)
        probe.configure((), [row.inode(row.server)])
        probe.attach()
        yield Link(probe, row, device, mac)


def listening(row: Row, family: int) -> socket.socket:
    with netns.inside(row.server):
        return socket.create_server((ENDS[family][1], PORT), family=socket.AF_INET if family == 4 else socket.AF_INET6)


@pytest.fixture(params=[4, 6], ids=["IPv4", "IPv6"])
def family(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize("flags", [SYN, ACK], ids=["SYN", "ACK"])
def test_what_comes_to_a_closed_port_is_answered_with_a_reset_that_is_counted(
    link: Link, family: int, flags: int
) -> None:
    link.counted()
    client, server = ENDS[family]
    link.send(family, segment(client, server, CLOSED, flags))
    assert link.resets_that_come(WAIT_S) == 1
    answer = FiveTuple(server, CLOSED, client, SPORT, Protocol.TCP)
    told = [(answer, 1, False, flags == SYN, link.row.inode(link.row.server))] if tells_every_reset() else []
    assert [(sent.flow, sent.packets, sent.active, sent.opening, sent.netns) for sent in link.counted()] == told


def test_a_reset_by_a_full_socket_is_counted_once(link: Link, family: int) -> None:
    """Which the tracepoint tells on every kernel."""
    link.counted()
    with listening(link.row, family):
        link.send(family, segment(*ENDS[family], PORT, ACK))
        assert link.resets_that_come(WAIT_S) == 1
    assert [(sent.packets, sent.active, sent.flow.sport) for sent in link.counted()] == [(1, False, PORT)]


def test_a_reset_for_a_socket_that_is_closed_already_is_counted(link: Link, family: int) -> None:
    """In FIN_WAIT2 what is left of it is no full socket."""
    with listening(link.row, family) as listener, netns.inside(link.row.router):
        client = socket.create_connection((ENDS[family][1], PORT), timeout=WAIT_S)
        served, _ = listener.accept()
        served.shutdown(socket.SHUT_WR)
        assert client.recv(1) == b""
        deadline = time.monotonic() + WAIT_S
        while served.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) != b"\x05" and time.monotonic() < deadline:
            time.sleep(0.01)  # until the client's acknowledgement has come: TCP_FIN_WAIT2
        served.close()
        link.counted()
        with client:
            client.sendall(b"x")
            assert link.resets_that_come(WAIT_S) == 1
    told = [(1, False, PORT)] if tells_every_reset() else []
    assert [(sent.packets, sent.active, sent.flow.sport) for sent in link.counted()] == told


@pytest.mark.parametrize(
    ("flags", "options", "to_everybody"),
    [(RST, b"", False), (RST | ACK, b"", False), (SYN, SIGNATURE, False), (SYN, b"", True)],
    ids=["reset", "reset that acknowledges", "signed", "to everybody on the link"],
)
def test_what_is_not_answered_is_not_counted(
    link: Link, family: int, flags: int, options: bytes, to_everybody: bool
) -> None:
    client, server = ENDS[family]
    link.counted()
    link.send(family, segment(client, EVERYBODY[family] if to_everybody else server, CLOSED, flags, options))
    assert link.resets_that_come(1.0) == 0
    assert link.counts() == ([], 1)


def test_the_kprobe_is_used_where_the_tracepoint_leaves_resets_out_and_nowhere_else(link: Link) -> None:
    arguments = Btf().tracepoint_arguments("tcp_send_reset") or 0
    used = "on_reset_without_socket" in link.probe.statistics()
    assert used == (arguments < 3 and kprobes.available())
    said = any(text.endswith(SOME_RESETS_NOT_COUNTED) for text in link.probe.missing)
    assert said == (not tells_every_reset())


def test_nothing_is_counted_after_the_end(link: Link, family: int) -> None:
    with LoadedProbe(PROBES["drops"], "node", cache_folder()) as probe:
        ended = replace(link, probe=probe)
        probe.configure((), [link.row.inode(link.row.server)])
        probe.attach()
        probe.detach()
        link.send(family, segment(*ENDS[family], CLOSED, SYN))
        assert link.resets_that_come(WAIT_S) == 1
        assert ended.counted() == []
