"""A client, a node with rules, and servers in network namespaces: real first packets, and what became of each.

Three namespaces in a row: a client, a node with the rules, servers that own every address behind it. A packet that the
servers get was forwarded (translated, where its destination changed), one that a raw socket of the node gets was
delivered there, one whose sender is told was rejected; of all others nothing is heard. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import random
import select
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from kubectl_genainet.model.packet import Protocol

CLIENTS = ("10.7.0.2", "10.7.0.3")
NODE_IPS = ("10.7.0.1", "10.8.255.1")
DESTINATIONS = ("10.96.0.1", "10.96.0.2", "10.8.0.2", "10.8.0.3", "10.7.0.1")
PORTS = (53, 80, 443, 8080)
WAIT_S = 0.08
NUMBERS = {Protocol.TCP: 6, Protocol.UDP: 17}
T = TypeVar("T")


@dataclass(frozen=True)
class Flow:
    src: str
    sport: int
    dst: str
    dport: int
    protocol: Protocol


class Wire:
    """The three namespaces and their sockets."""

    def __init__(self) -> None:
        self.name = f"fz{uuid.uuid4().hex[:6]}"
        self.client, self.node, self.servers = (f"{self.name}-{end}" for end in "cns")
        self.sport = 20000

    def __enter__(self) -> Wire:
        for namespace in (self.client, self.node, self.servers):
            run("ip", "netns", "add", namespace)
        self._link(self.client, "eth0", self.node, "cli0")
        self._link(self.node, "srv0", self.servers, "eth0")
        for address in CLIENTS:
            self.inside(self.client, "ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.inside(self.node, "ip", "address", "add", f"{NODE_IPS[0]}/24", "dev", "cli0")
        self.inside(self.node, "ip", "address", "add", f"{NODE_IPS[1]}/16", "dev", "srv0")
        self.inside(self.servers, "ip", "address", "add", "10.8.255.2/16", "dev", "eth0")
        for namespace in (self.client, self.node, self.servers):
            self.inside(namespace, "ip", "link", "set", "lo", "up")
        self.inside(self.client, "ip", "route", "add", "default", "via", NODE_IPS[0])
        self.inside(self.servers, "ip", "route", "add", "default", "via", NODE_IPS[1])
        self.inside(self.node, "ip", "route", "add", "10.96.0.0/16", "via", "10.8.255.2")
        for net in ("10.8.0.0/24", "10.96.0.0/16"):
            self.inside(self.servers, "ip", "route", "add", "local", net, "dev", "lo")
        self.inside(self.node, "ip", "route", "replace", "10.8.0.0/24", "via", "10.8.255.2")
        for setting in ("net.ipv4.ip_forward=1", "net.ipv4.icmp_ratelimit=0", "net.ipv4.conf.all.rp_filter=0"):
            self.inside(self.node, "sysctl", "-qw", setting)
        self.inside(self.servers, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
        self.sender = self._in(self.client, _raw_sender)
        self.answers = self._in(self.client, _sniffer)
        self.arrivals = self._in(self.servers, _sniffer)
        self.local = [self._in(self.node, make) for make in (_raw_tcp, _raw_udp)]
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.sender, self.answers, self.arrivals, *self.local):
            one.close()
        for namespace in (self.client, self.node, self.servers):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    def _link(self, one: str, one_name: str, other: str, other_name: str) -> None:
        run("ip", "-n", one, "link", "add", one_name, "type", "veth", "peer", "name", other_name, "netns", other)
        for namespace, device in ((one, one_name), (other, other_name)):
            self.inside(namespace, "ip", "link", "set", device, "up")

    def inside(self, namespace: str, *command: str, text: str | None = None) -> str:
        return run("nsenter", f"--net=/run/netns/{namespace}", *command, text=text)

    def _in(self, namespace: str, make: Callable[[], T]) -> T:
        """Makes something in a namespace: in a thread, which is the only one that enters it."""
        made: list[T] = []

        def work() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{namespace}", "rb") as file:
                if libc.setns(file.fileno(), 0x40000000):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return made[0]

    def random_flows(self, chance: random.Random, count: int) -> list[Flow]:
        flows = []
        for _ in range(count):
            self.sport = 20000 + (self.sport - 19999) % 40000
            protocol = chance.choice((Protocol.TCP, Protocol.UDP))
            flows.append(
                Flow(chance.choice(CLIENTS), self.sport, chance.choice(DESTINATIONS), chance.choice(PORTS), protocol)
            )
        return flows

    def send(self, flows: list[Flow]) -> dict[int, str]:
        """Sends a first packet of each flow; what each did, by its source port."""
        self._drain()
        for flow in flows:
            self.sender.sendto(_packet(flow), (flow.dst, 0))
        asked = {(NUMBERS[f.protocol], f.sport): f for f in flows}
        marks = {_mark(flow): flow for flow in flows}
        did: dict[int, str] = {}
        told: dict[int, str] = {}
        until = time.monotonic() + WAIT_S
        while (left := until - time.monotonic()) > 0:
            ready, _, _ = select.select([self.answers, self.arrivals, *self.local], [], [], left)
            for one in ready:
                data = one.recv(4096)
                if one is self.answers:
                    if (port := _refused(data, asked)) is not None:
                        told[port] = "REJECT"
                elif (seen := _seen(data, marks)) is not None:
                    flow, text = seen
                    did[flow.sport] = "NODE" if one in self.local else text
        return {f.sport: did.get(f.sport) or told.get(f.sport, "DROP") for f in flows}

    def _drain(self) -> None:
        for one in (self.answers, self.arrivals, *self.local):
            with contextlib.suppress(BlockingIOError):
                while True:
                    one.recv(4096, socket.MSG_DONTWAIT)


def run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[:300]}")
    return done.stdout


def _raw_sender() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _raw_tcp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)


def _raw_udp() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP)


def _sniffer() -> socket.socket:
    """Every IPv4 packet that comes in, from the network header on."""
    return socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))


def _mark(flow: Flow) -> bytes:
    """What NAT leaves alone and tells the flow: the SYN's sequence number, or the datagram's payload."""
    return struct.pack("!I", 0x67000000 | NUMBERS[flow.protocol] << 16 | flow.sport)


def _packet(flow: Flow) -> bytes:
    if flow.protocol is Protocol.TCP:
        body = struct.pack("!HH4sIBBHHH", flow.sport, flow.dport, _mark(flow), 0, 5 << 4, 2, 65535, 0, 0)
        body = body[:16] + struct.pack("!H", _sum(_pseudo(flow, len(body)) + body)) + body[18:]
    else:
        body = struct.pack("!HHHH", flow.sport, flow.dport, 12, 0) + _mark(flow)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(body), flow.sport, 0, 64, NUMBERS[flow.protocol], 0),
        *(socket.inet_aton(flow.src), socket.inet_aton(flow.dst)),
    )
    return head + body


def _pseudo(flow: Flow, length: int) -> bytes:
    return socket.inet_aton(flow.src) + socket.inet_aton(flow.dst) + struct.pack("!HH", NUMBERS[flow.protocol], length)


def _sum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _seen(data: bytes, marks: dict[bytes, Flow]) -> tuple[Flow, str] | None:
    """The flow of a packet that arrived, and where: "ADDRESS:PORT", with " masq" where its source was changed."""
    head = (data[0] & 15) * 4
    protocol, body = data[9], data[head:]
    mark = body[4:8] if protocol == 6 else body[8:12]
    flow = marks.get(mark) if protocol in (6, 17) else None
    if flow is None or NUMBERS[flow.protocol] != protocol or (protocol == 6 and body[13] != 2):
        return None
    dport = struct.unpack("!H", body[2:4])[0]
    masq = "" if socket.inet_ntoa(data[12:16]) == flow.src else " masq"
    return flow, f"{socket.inet_ntoa(data[16:20])}:{dport}{masq}"


def _refused(data: bytes, asked: dict[tuple[int, int], Flow]) -> int | None:
    """The source port of the flow that a reset or an ICMP error is about."""
    head = (data[0] & 15) * 4
    body = data[head:]
    if data[9] == 6 and len(body) >= 14 and body[13] & 4:
        port = struct.unpack("!H", body[2:4])[0]
        return port if (6, port) in asked else None
    if data[9] == 1 and body[:1] == b"\x03" and len(body) >= 36:
        inner = body[8:]
        port = struct.unpack("!H", inner[(inner[0] & 15) * 4 :][:2])[0]
        return port if (inner[9], port) in asked else None
    return None
