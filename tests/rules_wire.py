"""A client, a node with rules, and servers in network namespaces: real first packets, and what became of each.

Three namespaces in a row: a client, a node with the rules, servers that own every address behind it. A packet that the
servers get was forwarded (translated, where its destination changed), one that a raw socket of the node gets was
delivered there, one whose sender is told was rejected; of all others nothing is heard. Needs root.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import select
import socket
import struct
import subprocess
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from kubectl_genainet.model.packet import Protocol

CLIENTS = ("10.7.0.2", "10.7.0.3")
NODE_IPS = ("10.7.0.1", "10.8.255.1")
DESTINATIONS = ("10.96.0.1", "10.96.0.2", "10.8.0.2", "10.8.0.3", "10.7.0.1")
PORTS = (53, 80, 443, 8080)
PATIENCE_S = 2.0  # for a frame that no rule of IP can drop
NUMBERS = {Protocol.ICMP: 1, Protocol.TCP: 6, Protocol.UDP: 17}
MARKER = 0x88B5  # an Ethernet type for experiments (IEEE 802): the kernel's IP rules don't see it


@dataclass(frozen=True)
class Flow:
    """A first packet. A source that is the node's own leaves a socket of the node; `dport` of ICMP is the type."""

    src: str
    sport: int
    dst: str
    dport: int
    protocol: Protocol
    out_device: str = "srv0"  # by which it leaves the node, if it does

    @property
    def local(self) -> bool:
        return self.src in NODE_IPS


class Wire:
    """The three namespaces and their sockets."""

    def __init__(self) -> None:
        self.name = f"fz{uuid.uuid4().hex[:6]}"
        self.client, self.node, self.servers = (f"{self.name}-{end}" for end in "cns")
        self.sport = 20000
        self.legacy = False  # whether rules of iptables-legacy are loaded
        self.sockets: list[socket.socket] = []
        self.cpus = os.sched_getaffinity(0)

    def __enter__(self) -> Wire:
        for namespace in (self.client, self.node, self.servers):
            run("ip", "netns", "add", namespace)
            self.inside(namespace, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
        self.link(self.client, "eth0", self.node, "cli0")
        self.link(self.node, "srv0", self.servers, "eth0")
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
        self.inside(self.node, "sysctl", "-qw", "net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=10000")
        self.inside(self.servers, "sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0")
        self._know_neighbours()
        self.sender, self.own_sender = self._in(self.client, _raw_sender), self._in(self.node, _raw_sender)
        self.answers = [self._in(self.client, _sniffer)]
        self.arrivals = self._in(self.servers, _sniffer)
        self.local = [self._in(self.node, partial(_raw, number)) for number in NUMBERS.values()]
        self.ends = [
            (self._in(self.client, partial(_marker, "eth0")), self._in(self.node, partial(_marker, "cli0"))),
            (self._in(self.node, partial(_marker, "srv0")), self._in(self.servers, partial(_marker, "eth0"))),
        ]
        os.sched_setaffinity(0, {min(self.cpus)})  # one queue of packets, so that they stay in order
        return self

    def __exit__(self, *_: object) -> None:
        os.sched_setaffinity(0, self.cpus)
        for one in self.sockets:
            one.close()
        for namespace in (self.client, self.node, self.servers):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    def link(self, one: str, one_name: str, other: str, other_name: str) -> None:
        run("ip", "-n", one, "link", "add", one_name, "type", "veth", "peer", "name", other_name, "netns", other)
        for namespace, device in ((one, one_name), (other, other_name)):
            self.inside(namespace, "ip", "link", "set", device, "up")

    def _know_neighbours(self) -> None:
        """Both ends of each link know each other: rules of an ingress hook may drop what asks for them."""
        for here, device, there, at, address in (
            (self.client, "eth0", self.node, "cli0", NODE_IPS[0]),
            *((self.node, "cli0", self.client, "eth0", client) for client in CLIENTS),
            (self.node, "srv0", self.servers, "eth0", "10.8.255.2"),
            (self.servers, "eth0", self.node, "srv0", NODE_IPS[1]),
        ):
            link = json.loads(self.inside(there, "ip", "-j", "link", "show", at))[0]["address"]
            self.inside(here, "ip", "neigh", "replace", address, "lladdr", link, "dev", device)

    def inside(self, namespace: str, *command: str, text: str | None = None) -> str:
        return run("nsenter", f"--net=/run/netns/{namespace}", *command, text=text)

    def in_node(self, make: Callable[[], socket.socket]) -> socket.socket:
        """Makes a socket on the node, as a program there does."""
        return self._in(self.node, make)

    def _in(self, namespace: str, make: Callable[[], socket.socket]) -> socket.socket:
        """Makes a socket in a namespace: in a thread, which is the only one that enters it."""
        made: list[socket.socket] = []

        def work() -> None:
            libc = ctypes.CDLL(None, use_errno=True)
            with open(f"/run/netns/{namespace}", "rb") as file:
                if libc.setns(file.fileno(), 0x40000000):
                    raise OSError(ctypes.get_errno(), "setns")
            made.append(make())

        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.sockets.append(made[0])
        return made[0]

    def port(self) -> int:
        """A source port that no flow had for long."""
        self.sport = 20000 + (self.sport - 19999) % 40000
        return self.sport

    def random_flows(self, chance: random.Random, count: int) -> list[Flow]:
        flows = []
        for _ in range(count):
            protocol = chance.choice((Protocol.TCP, Protocol.TCP, Protocol.UDP, Protocol.UDP, Protocol.ICMP))
            src = chance.choice((*CLIENTS, *CLIENTS, NODE_IPS[0]))
            dport = chance.choice((8, 13)) if protocol is Protocol.ICMP else chance.choice(PORTS)
            flows.append(Flow(src, self.port(), chance.choice(DESTINATIONS), dport, protocol))
        return flows

    def send(self, flows: list[Flow]) -> dict[int, str]:
        """Sends a first packet of each flow; what each did, by its source port."""
        self._receive()
        for flow in flows:
            with contextlib.suppress(PermissionError):  # a rule of OUTPUT refuses it
                (self.own_sender if flow.local else self.sender).sendto(_packet(flow), (flow.dst, 0))
        self._wait()
        asked = {(NUMBERS[f.protocol], f.sport): f for f in flows}
        marks = {_mark(flow): flow for flow in flows}
        did: dict[int, str] = {}
        told: dict[int, str] = {}
        for one, data in self._receive():
            if one is not self.arrivals and (port := _refused(data, asked)) is not None:
                told[port] = "REJECT"
            elif one not in self.answers and (seen := _seen(data, marks)) is not None:
                flow, text = seen
                did[flow.sport] = "NODE" if one in self.local else text
        return {f.sport: did.get(f.sport) or told.get(f.sport, "DROP") for f in flows}

    def _wait(self) -> None:
        """Until a frame that was sent last has come through: all packets before it are where they end.

        From the client to the node, from there to the servers, and back to the client, where refusals go.
        """
        (client, node_in), (node_out, servers) = self.ends
        for sender, receiver in ((client, node_in), (node_out, servers), (node_in, client)):
            sender.send(b"\xff" * 6 + b"\x02" + bytes(5) + struct.pack("!H", MARKER) + bytes(46))
            if select.select([receiver], [], [], PATIENCE_S)[0]:
                receiver.recv(4096)

    def _receive(self) -> list[tuple[socket.socket, bytes]]:
        """All that waits in the sockets."""
        found = []
        for one in (*self.answers, self.arrivals, *self.local):
            with contextlib.suppress(BlockingIOError):
                while True:
                    found.append((one, one.recv(4096, socket.MSG_DONTWAIT)))
        return found


def run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()[:2000]}")
    return done.stdout


def _raw_sender() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


def _raw(protocol: int) -> socket.socket:
    one = socket.socket(socket.AF_INET, socket.SOCK_RAW, protocol)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return one


def _sniffer() -> socket.socket:
    """Every IPv4 packet that comes in, from the network header on."""
    one = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    return one


def _marker(device: str) -> socket.socket:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(MARKER))
    one.bind((device, MARKER))
    return one


def _mark(flow: Flow) -> bytes:
    """What NAT leaves alone and tells the flow: the SYN's sequence number, or the payload."""
    return struct.pack("!I", 0x67000000 | NUMBERS[flow.protocol] << 16 | flow.sport)


def _packet(flow: Flow) -> bytes:
    if flow.protocol is Protocol.TCP:
        body = struct.pack("!HH4sIBBHHH", flow.sport, flow.dport, _mark(flow), 0, 5 << 4, 2, 65535, 0, 0)
        body = body[:16] + struct.pack("!H", _sum(_pseudo(flow, len(body)) + body)) + body[18:]
    elif flow.protocol is Protocol.UDP:
        body = struct.pack("!HHHH", flow.sport, flow.dport, 12, 0) + _mark(flow)
    else:
        body = struct.pack("!BBHHH", flow.dport, 0, 0, flow.sport, 0) + _mark(flow)
        body = body[:2] + struct.pack("!H", _sum(body)) + body[4:]
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
    """The flow of a packet that arrived, and where: "ADDRESS:PORT" (or an ICMP type), " masq" if its source was changed."""
    head = (data[0] & 15) * 4
    protocol, body = data[9], data[head:]
    mark = body[4:8] if protocol == 6 else body[8:12]
    flow = marks.get(mark) if protocol in NUMBERS.values() else None
    if flow is None or NUMBERS[flow.protocol] != protocol or (protocol == 6 and body[13] != 2):
        return None
    if protocol == 1 and body[0] != flow.dport:  # the answer, which has the same payload
        return None
    dport = struct.unpack("!H", body[2:4])[0] if protocol != 1 else body[0]
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
        inner_head = inner[(inner[0] & 15) * 4 :]
        port = struct.unpack("!H", inner_head[4:6] if inner[9] == 1 else inner_head[:2])[0]
        return port if (inner[9], port) in asked else None
    return None
