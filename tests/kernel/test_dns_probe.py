"""The DNS probe against real packets between two network namespaces, with a server whose delay is known."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.dns.tcp import TcpTap
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.programs.stub_resolver import encode_query
from kubectl_genainet.model.events import DnsDropped, DnsEnd, DnsMessageSeen, DnsTransaction, Event, PacketSeen
from kubectl_genainet.wire import FilterEntry
from tests.kernel.kerneltest import cache_folder, frames, here, in_ip, in_udp

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF programs needs root"),
]

CLIENT, SERVER = f"gndns-{os.getpid()}-c", f"gndns-{os.getpid()}-s"
CLIENT_IP, SERVER_IP = "10.79.0.1", "10.79.0.2"
ALL = (FilterEntry("::", 53, "UDP"), FilterEntry("::", 53, "TCP"))


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=10)


@pytest.fixture(scope="module")
def namespaces() -> Iterator[None]:
    try:
        for name in (CLIENT, SERVER):
            ip("netns", "add", name)
        ip("-n", CLIENT, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", SERVER)
        for name, address in ((CLIENT, CLIENT_IP), (SERVER, SERVER_IP)):
            ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
        yield
    finally:
        for name in (CLIENT, SERVER):
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=10)


class DnsWatch:
    """The probe, with what it has reported."""

    def __init__(self, probe: LoadedProbe) -> None:
        self.probe = probe
        self.events: list[Event] = []
        probe.on_event(self.events.append)
        probe.configure(ALL, {netns.inode(CLIENT), netns.inode(SERVER)})
        probe.attach()

    def settle(self, seconds: float = 0.2) -> list[Event]:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.probe.consume()
            time.sleep(0.01)
        return self.events

    def transactions(self) -> list[DnsTransaction]:
        return [e for e in self.events if isinstance(e, DnsTransaction)]


@pytest.fixture
def watch(namespaces: None) -> Iterator[DnsWatch]:
    with LoadedProbe(PROBES["dns"], "node", cache_folder(), budget=Budget(events_per_second=1_000_000)) as probe:
        yield DnsWatch(probe)


def udp(namespace: str, address: tuple[str, int]) -> socket.socket:
    with netns.inside(namespace):
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.bind(address)
    return sock


def raw_in(namespace: str) -> socket.socket:
    """For whole packets, whatever their source."""
    with netns.inside(namespace):
        return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)


class Responder(threading.Thread):
    """Answers after a delay, with NXDOMAIN for names that begin with n, and not at all for those that begin with s."""

    def __init__(self, delay: float = 0.0) -> None:
        super().__init__(daemon=True)
        self.delay, self.sock = delay, udp(SERVER, (SERVER_IP, 53))
        self.sock.settimeout(0.2)
        self.held: dict[int, int] = {}  # id -> ns between having the query and giving away the response
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.is_set():
            try:
                data, client = self.sock.recvfrom(600)
            except TimeoutError:
                continue
            got = time.monotonic_ns()
            if data[13:14] == b"s":
                continue
            if self.delay:
                time.sleep(self.delay)
            flags = 0x8183 if data[13:14] == b"n" else 0x8180
            self.held[int.from_bytes(data[:2], "big")] = time.monotonic_ns() - got
            self.sock.sendto(data[:2] + struct.pack("!H", flags) + data[4:], client)

    def __enter__(self) -> Responder:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join(2)
        self.sock.close()


def test_an_exchange_is_one_record_with_both_ways(watch: DnsWatch) -> None:
    with Responder(), udp(CLIENT, (CLIENT_IP, 0)) as sock:
        sock.sendto(encode_query(77, "model.example", 28), (SERVER_IP, 53))
        sock.settimeout(2)
        sock.recv(600)
        watch.settle()
    (event,) = watch.transactions()
    assert event.end is DnsEnd.ANSWERED
    assert event.id == 77
    assert [(p.netns, p.point.value) for p in event.query] == [(netns.inode(CLIENT), "tx"), (netns.inode(SERVER), "rx")]
    assert [(p.netns, p.point.value) for p in event.response] == [
        (netns.inode(SERVER), "tx"),
        (netns.inode(CLIENT), "rx"),
    ]
    assert event.asked is not None
    assert event.asked.question is not None
    assert (event.asked.question.name, event.asked.question.type) == ("model.example.", "AAAA")
    assert event.answer is not None
    assert event.answer.rcode == "NOERROR"


def test_ten_thousand_queries_are_ten_thousand_records_or_counted_losses(watch: DnsWatch) -> None:
    kinds = ("answered", "nothere", "silent")
    sent: Counter[str] = Counter()
    with Responder(), udp(CLIENT, (CLIENT_IP, 0)) as sock:
        sock.setblocking(False)
        for number in range(10_000):
            kind = kinds[0] if number % 10 else kinds[1 + number // 10 % 2]
            sock.sendto(encode_query(number, f"{kind}.example", 1), (SERVER_IP, 53))
            sent[kind] += 1
            if not number % 50:
                watch.probe.consume()
                time.sleep(0.015)
        watch.settle(1.0)
        watch.events += list(watch.probe.sweep(time.monotonic_ns(), final=True))
    found: Counter[str] = Counter()
    for event in watch.transactions():
        assert event.asked is not None
        assert event.asked.question is not None
        kind = event.asked.question.name.partition(".")[0]
        rcode = event.answer.rcode if event.answer else None
        assert (
            rcode == {"answered": "NOERROR", "nothere": "NXDOMAIN", "silent": None}[kind] or event.end is DnsEnd.STOPPED
        )
        found[kind] += 1
    accounts = watch.probe.accounts()
    lost = accounts["ring buffer"] + accounts["event budget"] + accounts["flow table"]
    assert sum(found.values()) + lost == 10_000
    assert lost or found == sent


def test_latency_is_that_of_the_server_within_five_percent(watch: DnsWatch) -> None:
    delay = 0.05
    with Responder(delay) as server, udp(CLIENT, (CLIENT_IP, 0)) as sock:
        sock.settimeout(2)
        for number in range(20):
            sock.sendto(encode_query(number, "delayed.example", 1), (SERVER_IP, 53))
            sock.recv(600)
        watch.settle()
    errors = []
    for event in watch.transactions():
        latency = event.response[-1].t_ns - event.query[0].t_ns
        errors.append(latency - server.held[event.id])
        assert latency >= server.held[event.id] - 20_000
    assert len(errors) == 20
    assert sorted(errors)[10] < max(0.05 * delay * 1e9, 200_000)


def test_nothing_is_read_behind_the_end_of_a_message(watch: DnsWatch) -> None:
    message = encode_query(5, "model.example", 1)
    packet = in_ip(CLIENT_IP, SERVER_IP, socket.IPPROTO_UDP, in_udp(53, message))
    with frames(CLIENT, "eth0") as send:
        for length in (12, 20):
            send(packet, 20 + 8 + length, 0x0800)
    watch.settle()
    events = [*watch.events, *watch.probe.sweep(time.monotonic_ns(), final=True)]
    assert len(events) >= 2 and "model" not in str(events)


def test_repetition_expiry_drop_and_what_is_no_dns(watch: DnsWatch) -> None:
    with udp(CLIENT, (CLIENT_IP, 0)) as sock:
        query = encode_query(5, "silent.example", 1)
        for _ in range(2):
            sock.sendto(query, (SERVER_IP, 53))  # nobody listens: dropped, NO_SOCKET
            time.sleep(0.05)
        sock.sendto(b"hello", (SERVER_IP, 53))
        sock.sendto(b"\xff" * 40, (SERVER_IP, 53))
        events = watch.settle()
    first = watch.transactions()[0]
    assert first.end is DnsEnd.REPEATED
    assert first.response == ()
    drops = [e for e in events if isinstance(e, DnsDropped) and e.id == 5]
    assert [d.reason for d in drops] == [here("NO_SOCKET"), here("NO_SOCKET")]
    strange = [e for e in events if isinstance(e, DnsMessageSeen)]
    assert {e.message.error.partition(":")[0] for e in strange} >= {"shorter than a DNS header"}
    assert list(watch.probe.sweep(time.monotonic_ns())) == []  # none is old enough
    (left,) = [t for t in watch.probe.sweep(time.monotonic_ns() + 6_000_000_000) if isinstance(t, DnsTransaction)]
    assert (left.id, left.end) == (5, DnsEnd.EXPIRED)
    assert list(watch.probe.sweep(time.monotonic_ns(), final=True)) == []


def test_an_unanswered_flood_hides_no_other_clients_exchange(watch: DnsWatch) -> None:
    """The flood comes from the server's namespace, with more queries than the table of open exchanges holds, each from a source
    address that it made up."""
    with raw_in(SERVER) as flood, udp(CLIENT, (CLIENT_IP, 0)) as sock, udp(CLIENT, (CLIENT_IP, 53)):
        for number in range(20_000):
            query = in_udp(53, encode_query(number, "silent.example", 1))
            source = f"10.80.{number >> 8}.{number & 255}"
            flood.sendto(in_ip(source, CLIENT_IP, socket.IPPROTO_UDP, query), (CLIENT_IP, 0))
        assert watch.probe.accounts()["flow table"] > 0
        with Responder():
            for number in range(50):
                sock.sendto(encode_query(number, "model.example", 1), (SERVER_IP, 53))
                sock.settimeout(2)
                sock.recv(600)
        watch.settle()
        swept = list(watch.probe.sweep(time.monotonic_ns()))
    answered = [t for t in watch.transactions() if t.end is DnsEnd.ANSWERED]
    assert sorted(t.id for t in answered) == list(range(50))
    assert all(t.query[0].netns == netns.inode(CLIENT) for t in answered)
    ended = swept + list(watch.probe.sweep(time.monotonic_ns(), final=True))
    assert sum(1 for t in ended if isinstance(t, DnsTransaction)) + watch.probe.accounts()["flow table"] == 20_000


def test_the_budget_of_events_is_shared_by_clients(watch: DnsWatch) -> None:
    watch.probe.budget = Budget(events_per_second=40)
    watch.probe.configure(ALL, {netns.inode(CLIENT), netns.inode(SERVER)})
    with udp(SERVER, (SERVER_IP, 0)) as flood, udp(CLIENT, (CLIENT_IP, 0)) as sock:
        for number in range(3000):  # nobody listens: each is a drop
            flood.sendto(encode_query(number, "dropped.example", 1), (CLIENT_IP, 53))
        with Responder():
            sock.sendto(encode_query(7, "model.example", 1), (SERVER_IP, 53))
            sock.settimeout(2)
            sock.recv(600)
        watch.settle()
    assert watch.probe.accounts()["event budget"] > 0
    assert [t.id for t in watch.transactions() if t.end is DnsEnd.ANSWERED] == [7]


def test_each_query_beyond_the_budget_is_counted_once_and_its_response_is_no_lone_one(watch: DnsWatch) -> None:
    watch.probe.limit_events(40)
    asked = 2000
    with Responder(), udp(CLIENT, (CLIENT_IP, 0)) as sock:
        sock.settimeout(2)
        for number in range(asked):
            sock.sendto(encode_query(number, "model.example", 1), (SERVER_IP, 53))
            sock.recv(600)
        events = watch.settle()
    accounts = watch.probe.accounts()
    reported = [t.id for t in watch.transactions() if t.end is DnsEnd.ANSWERED]
    assert len(reported) == len(events) == len(set(reported))
    assert accounts["event budget"] == asked - len(reported) > 0
    assert accounts["emitted"] == asked


@pytest.mark.parametrize(
    ("filters", "own"),
    [((FilterEntry("10.79.0.9", 53, "UDP"),), (CLIENT, SERVER)), (ALL, ())],
    ids=["other filters", "another node's namespace"],
)
def test_what_was_found_of_a_clients_last_query_holds_for_these_filters_only(
    watch: DnsWatch, filters: tuple[FilterEntry, ...], own: tuple[str, ...]
) -> None:
    watch.probe.limit_events(40)
    here = {netns.inode(CLIENT), netns.inode(SERVER)}
    with Responder(), udp(CLIENT, (CLIENT_IP, 0)) as sock:
        sock.settimeout(2)

        def asked(numbers: range) -> int:
            before = watch.probe.accounts()["emitted"]
            for number in numbers:
                sock.sendto(encode_query(number, "model.example", 1), (SERVER_IP, 53))
                sock.recv(600)
            return watch.probe.accounts()["emitted"] - before

        assert asked(range(1000)) == 1000
        assert watch.probe.accounts()["event budget"] > 0
        watch.probe.configure(filters, {netns.inode(name) for name in own})
        assert asked(range(1000, 1200)) == 0
        watch.probe.configure(ALL, here)
        assert asked(range(1200, 2000)) == 800


def test_counts_of_open_exchanges_are_set_right_by_a_sweep(watch: DnsWatch) -> None:
    with udp(CLIENT, (CLIENT_IP, 0)) as sock, udp(SERVER, (SERVER_IP, 53)):
        for number in range(30):
            sock.sendto(encode_query(number, "silent.example", 1), (SERVER_IP, 53))
        watch.settle()
        watch.probe.put("open_count", bytes(4), struct.pack("<q", 1 << 40))  # no room for anybody
        list(watch.probe.sweep(time.monotonic_ns()))
        sock.sendto(encode_query(99, "silent.example", 1), (SERVER_IP, 53))
        watch.settle()
        ended = list(watch.probe.sweep(time.monotonic_ns(), final=True))
    assert sorted(t.id for t in ended if isinstance(t, DnsTransaction)) == [*range(30), 99]
    assert dict(watch.probe.pairs("open_by_client", 24, 8)) == {}


def test_other_ports_and_other_namespaces_leave_nothing(watch: DnsWatch) -> None:
    with udp(CLIENT, (CLIENT_IP, 0)) as sock:
        sock.sendto(encode_query(5, "name.example", 1), (SERVER_IP, 5353))
        watch.probe.configure(ALL, {1})
        sock.sendto(encode_query(6, "name.example", 1), (SERVER_IP, 53))
        events = watch.settle()
    assert events == []


def test_messages_over_tcp_are_read_from_their_segments(namespaces: None) -> None:
    with netns.inside(SERVER):
        listener = socket.create_server((SERVER_IP, 53))
    tap = TcpTap("node", f"/run/netns/{SERVER}", {})
    try:
        tap.configure(ALL)
        with netns.inside(CLIENT):
            client = socket.create_connection((SERVER_IP, 53), timeout=2)
        served, _ = listener.accept()
        with client, served:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            query = encode_query(9, "big.example", 1)
            wire = struct.pack("!H", len(query)) + query
            for part in (wire[:1], wire[1:9], wire[9:]):
                client.sendall(part)
                time.sleep(0.02)
            response = query[:2] + b"\x81\x80" + query[4:] + b"\0" * 3000
            served.sendall(struct.pack("!H", len(response)) + response)
            time.sleep(0.1)
            events = list(tap.poll())
        messages = [e for e in events if isinstance(e, DnsMessageSeen)]
        assert [(m.id, m.message.qr, m.point.value) for m in messages] == [(9, False, "rx"), (9, True, "tx")]
        assert messages[0].message.question is not None
        assert messages[0].message.question.name == "big.example."
        assert messages[1].message.length == len(response)
        assert messages[0].netns == netns.inode(SERVER)
        assert 0 < messages[1].t_ns - messages[0].t_ns < 1_000_000_000
        flags = [e.tcp.flags & 0x12 for e in events if isinstance(e, PacketSeen) and e.tcp is not None]
        assert flags[:2] == [2, 0x12]
        assert tap.lost == 0
    finally:
        tap.close()
        listener.close()
