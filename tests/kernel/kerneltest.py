"""What the kernel tests share: three namespaces in a row, a worker that watches them, traffic of a known number."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import msgspec
from pyroute2 import IPRoute

from kubectl_genainet import wire
from kubectl_genainet.agent.bpf import kprobes
from kubectl_genainet.agent.bpf.btf import Btf
from kubectl_genainet.agent.main import CACHE
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.agent.session.job import Job
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import (
    Bye,
    Event,
    FlowCounters,
    LostEvents,
    PacketDropped,
    PacketSeen,
    Progress,
    Tick,
)
from kubectl_genainet.wire import FilterEntry, TraceRequest

PORT = 7007
WAIT_S = 60.0  # for anything that a loaded machine may take long for
SMALL_RING = Budget(ring_pages=1)
RELEASES = ("5.10", "6.1", "6.12")  # Debian's, which scripts/kernels.sh fetches
_ROOT = Path(__file__).resolve().parents[2]


@cache
def other_kernel(release: str) -> Path:
    """The type information of a kernel that does not run here."""
    done = subprocess.run([_ROOT / "scripts/kernels.sh", release], stdout=subprocess.PIPE, text=True, check=True)
    return Path(done.stdout.strip()) / "vmlinux.btf"


def gives_reasons() -> bool:
    """Whether the running kernel gives reasons of drops (Linux 5.17)."""
    return bool(Btf().enum("skb_drop_reason"))


def here(reason: str) -> str:
    """The reason as it is on the running kernel, where no function alone tells it."""
    return reason if gives_reasons() else ""


def tells_every_reset() -> bool:
    """Whether tcp:tcp_send_reset is called without a full socket too (Linux 6.10), or kprobes tell of the others."""
    return (Btf().tracepoint_arguments("tcp_send_reset") or 0) >= 3 or kprobes.available()


def functions_here(probe: str) -> set[str]:
    """The programs that a probe has on the running kernel."""
    arguments = {a.tracepoint: Btf().tracepoint_arguments(a.tracepoint) for a in PROBES[probe].attachments}
    known = {name: count for name, count in arguments.items() if count is not None}
    more = {a.kprobe.function for a in PROBES[probe].attachments if a.kprobe and a.gives_less(known)}
    return {a.function for a in PROBES[probe].attachments} | (more if kprobes.available() else set())


def missing_here(probe: str) -> set[str]:
    """The beginnings of what a probe says this kernel can't give it."""
    resets = {"tcp:tcp_send_reset"} if probe == "drops" and not tells_every_reset() else set()
    return resets | (set() if gives_reasons() else {"this kernel gives no reasons of drops (Linux has them from 5.17)"})


@dataclass(frozen=True)
class Row:
    """client – router – server, joined by veth pairs as a node joins its pods; the router is the "node"."""

    client: str
    router: str
    server: str

    def inode(self, name: str) -> int:
        return netns.inode(name)

    def run(self, name: str, *command: str) -> str:
        """Runs a command in a namespace."""
        path = f"--net=/run/netns/{name}"
        return subprocess.run(
            ["nsenter", path, *command], capture_output=True, text=True, check=True, timeout=30
        ).stdout

    def place(self, event: PacketSeen | PacketDropped | FlowCounters) -> tuple[str, str]:
        """(namespace, device) of an event."""
        names = {netns.inode(n): n for n in (self.client, self.router, self.server)}
        return names.get(event.netns, "?"), event.device


ADDRESSES = {4: ("10.88.1.2", "10.88.2.2"), 6: ("fd88:1::2", "fd88:2::2")}
CLIENT_IP, SERVER_IP = ADDRESSES[4]


@contextlib.contextmanager
def three_namespaces(tag: str, *, ipv6: bool = True) -> Iterator[Row]:
    """The row with addresses of ADDRESSES, forwarding on, neighbours known: no packet crosses but the test's."""
    row = Row(*(f"gnk-{tag}-{os.getpid()}-{part}" for part in ("client", "router", "server")))
    names = [row.client, row.router, row.server]
    try:
        netns.create(names)
        for name in names:
            with netns.inside(name):
                netns.write_sysctls(
                    {
                        "net/ipv4/ip_forward": "1",
                        "net/ipv6/conf/all/disable_ipv6": "0" if ipv6 else "1",
                        "net/ipv6/conf/default/accept_dad": "0",
                        "net/ipv6/conf/default/router_solicitations": "0",
                        "net/ipv6/conf/all/forwarding": "1",
                        "net/ipv4/conf/all/rp_filter": "0",
                        "net/ipv4/icmp_ratelimit": "0",
                        "net/ipv6/icmp/ratelimit": "0",
                    }
                )
        for end, side in ((row.client, 1), (row.server, 2)):
            _join(row.router, end, side, ipv6=ipv6)
        yield row
    finally:
        for name in names:
            netns.remove(name)


def _join(router: str, end: str, side: int, *, ipv6: bool) -> None:
    device = f"to-{'client' if side == 1 else 'server'}"
    with netns.inside(router):
        there = IPRoute()
    with netns.inside(end):
        here = IPRoute()
    with here, there, open(netns.RUN_NETNS / end) as file:
        there.link("add", ifname=device, kind="veth", peer={"ifname": "eth0", "net_ns_fd": file.fileno()})
        indices = [(there, there.link_lookup(ifname=device)[0], 1), (here, here.link_lookup(ifname="eth0")[0], 2)]
        families = [("10.88", ".", 24), *([("fd88", "::", 64)] if ipv6 else [])]
        for ipr, index, host in indices:
            for prefix, colon, length in families:
                net = f"{prefix}.{side}" if length == 24 else f"{prefix}:{side}"
                flags = {"flags": 2} if length == 64 else {}  # IFA_F_NODAD
                ipr.addr("add", index=index, address=f"{net}{colon}{host}", prefixlen=length, **flags)
            ipr.link("set", index=index, state="up")
            ipr.link("set", index=ipr.link_lookup(ifname="lo")[0], state="up")
        for (ipr, index, _), (other, other_index, host) in zip(indices, reversed(indices), strict=True):
            mac = other.get_links(other_index)[0].get_attr("IFLA_ADDRESS")
            for prefix, colon, length in families:
                net = f"{prefix}.{side}" if length == 24 else f"{prefix}:{side}"
                ipr.neigh("replace", dst=f"{net}{colon}{host}", lladdr=mac, ifindex=index, state=0x80)  # permanent
        for prefix, colon, length in families:
            net = f"{prefix}.{side}" if length == 24 else f"{prefix}:{side}"
            here.route("add", dst="default", gateway=f"{net}{colon}1", family=2 if length == 24 else 10)


class Watch:
    """A worker, run as the agent runs it. `events` holds all that it has sent so far."""

    def __init__(self, row: Row, filters: tuple[FilterEntry, ...], budget: Budget, timeout_s: float = 600) -> None:
        request = TraceRequest(cpu_percent=400.0, filters=filters, timeout_s=timeout_s, rulesets=False)
        self.row = row
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kubectl_genainet.agent.session.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdin is not None
        job = Job(request, "node", str(netns.RUN_NETNS / row.router), str(cache_folder()), budget)
        self.process.stdin.write(msgspec.json.encode(job) + b"\n")
        self.process.stdin.flush()
        self.events: list[Event] = []
        self._queue: queue.Queue[bytes | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._queue.put(line)
        self._queue.put(None)

    def until(self, wanted: Callable[[Event], bool], timeout: float = WAIT_S) -> Event:
        """The next event that is wanted."""
        deadline = time.monotonic() + timeout
        while (line := self._queue.get(timeout=max(0.0, deadline - time.monotonic()))) is not None:
            self.events.extend(wire.expand(wire.decode(line)))
            if wanted(self.events[-1]):
                return self.events[-1]
        raise AssertionError(f"the worker has ended: {self.events[-3:]}")

    def settle(self) -> None:
        """Waits until everything that was seen until now has arrived."""
        now = time.monotonic_ns()
        self.until(lambda e: isinstance(e, Tick) and e.t_ns > now)

    def follow(self, filters: tuple[FilterEntry, ...]) -> None:
        """Changes the filter; returns when it holds: the worker takes it up before its next tick but one."""
        assert self.process.stdin is not None
        self.process.stdin.write(msgspec.json.encode(filters) + b"\n")
        self.process.stdin.flush()
        self.settle()
        self.settle()

    def end(self) -> Bye:
        """Ends the session; returns its last record."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        last = self.until(lambda e: isinstance(e, Bye))
        self.process.wait(10)
        assert isinstance(last, Bye)
        return last

    @property
    def seen(self) -> list[PacketSeen]:
        return [e for e in self.events if isinstance(e, PacketSeen)]

    @property
    def drops(self) -> list[PacketDropped]:
        return [e for e in self.events if isinstance(e, PacketDropped)]

    @property
    def lost(self) -> Counter[str]:
        return sum((Counter({e.where: e.count}) for e in self.events if isinstance(e, LostEvents)), Counter())

    def flows(self) -> dict[tuple[str, str, str, str, str], FlowCounters]:
        """The last counters of each (namespace, device, point, source, destination); none was counted in two parts."""
        found: dict[tuple[str, str, str, str, str], FlowCounters] = {}
        for e in self.events:
            if isinstance(e, FlowCounters):
                key = (*self.row.place(e), e.point.value, e.flow.source, e.flow.destination)
                assert found.setdefault(key, e).began_ns == e.began_ns, key
                found[key] = e
        return found

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        self._thread.join(10)
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()


def cache_folder() -> Path:
    """What is read from this kernel once, kept between the tests: where agents keep it that are told nothing else."""
    return CACHE


@contextlib.contextmanager
def watching(
    row: Row,
    *filters: FilterEntry,
    budget: Budget | None = None,
    timeout_s: float = 600,
) -> Iterator[Watch]:
    """A worker that is attached."""
    watch = Watch(row, filters, budget or Budget(), timeout_s)
    try:
        watch.until(lambda e: isinstance(e, Progress) and e.stage == "attached")
        yield watch
    finally:
        watch.close()


# The places that a packet from the client to the server passes.
def way(row: Row) -> list[tuple[tuple[str, str], str]]:
    return [
        ((row.client, "eth0"), "tx"),
        ((row.router, "to-client"), "rx"),
        ((row.router, "to-server"), "tx"),
        ((row.server, "eth0"), "rx"),
    ]


def places(row: Row, events: list[PacketSeen]) -> list[tuple[tuple[str, str], str]]:
    return [(row.place(e), e.point.value) for e in sorted(events, key=lambda e: e.t_ns)]


def udp_socket(row: Row, name: str, family: int) -> socket.socket:
    with netns.inside(name):
        return socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM)


@contextlib.contextmanager
def udp_sink(row: Row, family: int = 4, port: int = PORT) -> Iterator[socket.socket]:
    """A socket of the server that is bound and never read: what overflows it is dropped with a reason of its own."""
    with udp_socket(row, row.server, family) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUFFORCE if hasattr(socket, "SO_RCVBUFFORCE") else 33, 64 << 20)
        sock.bind((ADDRESSES[family][1], port))
        yield sock


@contextlib.contextmanager
def frames(name: str, device: str, to: bytes = b"\xff" * 6) -> Iterator[Callable[[bytes, int, int], None]]:
    """Sends frames from a device of a namespace to a hardware address: the first bytes of a packet, of an Ethernet type. What
    lies in memory behind them is the rest of that packet: a frame with all of it, which nobody takes, was there just before."""
    with netns.inside(name):
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.bind((device, 0))
    addresses = to + bytes(6)

    def send(packet: bytes, length: int, kind: int = 0x0800) -> None:
        sock.send(addresses + struct.pack("!H", 0x88B5) + packet)  # for experiments (IEEE 802)
        sock.send(addresses + struct.pack("!H", kind) + packet[:length])

    cpus = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cpus)})  # what a CPU frees is what it allocates next
    try:
        yield send
    finally:
        os.sched_setaffinity(0, cpus)
        sock.close()


def in_ip(source: str, destination: str, protocol: int, data: bytes) -> bytes:
    """An IPv4 packet, its checksum left out."""
    ends = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(data), 7, 0, 64, protocol, 0) + ends + data


def in_udp(port: int, data: bytes) -> bytes:
    """A datagram without a checksum."""
    return struct.pack("!HHHH", 40000, port, 8 + len(data), 0) + data


def in_vxlan(packet: bytes) -> bytes:
    """What a datagram of VXLAN has: its header, an Ethernet header, the packet."""
    return bytes(8) + bytes(12) + b"\x08\x00" + packet


def syn(port: int) -> bytes:
    """A TCP header."""
    return struct.pack("!HHIIBBHHH", 40000, port, 1, 0, 5 << 4, 2, 1000, 0, 0)


def send_cut_packets(send: Callable[[bytes, int, int], None], outside: tuple[str, str], inside: str, port: int) -> None:
    """Packets that end before what a careless reader reads: each is a SYN to `port` where memory behind its end is believed. One
    has all that it takes to be told, to port + 1, and no flags: it ends behind its sequence number."""
    ends_early = [in_ip("10.9.9.9", inside, socket.IPPROTO_TCP, syn(n)) for n in (port, port + 1)]
    no_header = struct.pack("!BBH", 0x40, 0, port) + ends_early[0][4:]  # its transport header is where it begins
    v6 = struct.pack("!IHBB", 6 << 28, 20, socket.IPPROTO_TCP, 64) + 2 * socket.inet_pton(
        socket.AF_INET6, f"::ffff:{inside}"
    )
    tunnelled = [
        in_ip(*outside, socket.IPPROTO_UDP, in_udp(8472, in_vxlan(p))) for p in (*ends_early, no_header, v6 + syn(port))
    ]
    outer = 20 + 8 + 8 + 14
    send(tunnelled[0], 20 + 8 + 1, 0x0800)  # a byte after UDP's header
    send(tunnelled[1], outer + 20 + 8, 0x0800)
    send(tunnelled[2], outer + 8, 0x0800)
    send(tunnelled[3], outer + 40 + 2, 0x0800)
    send(no_header, 8, 0x0800)
    send(v6 + syn(port), 40 + 2, 0x86DD)


def send_datagrams(row: Row, count: int, family: int = 4, port: int = PORT, pause: float = 0.0) -> None:
    """Datagrams from the client, each from a port of its own and with a payload of its own: `count` flows."""
    for number in range(count):
        with udp_socket(row, row.client, family) as sock:
            sock.bind((ADDRESSES[family][0], 20000 + number))
            sock.sendto(f"{number:08} datagram".encode(), (ADDRESSES[family][1], port))
        if pause:
            time.sleep(pause)
