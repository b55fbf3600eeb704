"""The drops probe on the running kernel: counts are exact, a flood costs counters, memory is bounded."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.node.netns import inside
from kubectl_genainet.agent.node.tunnels import Tunnels
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.model.events import (
    DropCount,
    EstablishedCount,
    Event,
    PacketDropped,
    ResetCount,
    RetransmitCount,
    Tally,
)
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.wire import FilterEntry
from tests.kernel.kerneltest import (
    PORT,
    cache_folder,
    frames,
    here,
    in_ip,
    in_vxlan,
    missing_here,
    send_cut_packets,
    syn,
    tells_every_reset,
)

CLIENT, SERVER = "gndrops-client", "gndrops-server"
SERVER_IPS = {4: "10.78.0.2", 6: "fd00:78::2"}
CLIENT_IPS = {4: "10.78.0.1", 6: "fd00:78::1"}
BLOCKED = 9


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=30)


def in_netns(name: str, action: Callable[[], object]) -> object:
    fd = os.open(f"/run/netns/{name}", os.O_RDONLY)
    try:
        return inside(fd, action)
    finally:
        os.close(fd)


@pytest.fixture(scope="module")
def namespaces() -> Iterator[None]:
    """Two namespaces on a veth pair; the server's drops UDP to port 9."""
    for name in (CLIENT, SERVER):
        subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, timeout=30)
    try:
        for name in (CLIENT, SERVER):
            run("ip", "netns", "add", name)
        run("ip", "-n", CLIENT, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", SERVER)
        for name, ips in ((CLIENT, CLIENT_IPS), (SERVER, SERVER_IPS)):
            run("ip", "-n", name, "addr", "add", f"{ips[4]}/24", "dev", "eth0")
            run("ip", "-n", name, "addr", "add", f"{ips[6]}/64", "dev", "eth0", "nodad")
            run("ip", "-n", name, "link", "set", "eth0", "up")
        for tool in ("iptables", "ip6tables"):
            run(
                "nsenter",
                f"--net=/run/netns/{SERVER}",
                tool,
                "-A",
                "INPUT",
                "-p",
                "udp",
                "--dport",
                str(BLOCKED),
                "-j",
                "DROP",
            )
        yield
    finally:
        for name in (CLIENT, SERVER):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False, timeout=30)


class DropsWatch:
    """A loaded probe that looks at the two namespaces only."""

    def __init__(self, probe: LoadedProbe) -> None:
        self.probe = probe
        self.samples: list[Event] = []

    def clear(self, *filters: FilterEntry, tunnels: Tunnels = Tunnels()) -> None:  # noqa: B008 - frozen
        own = [os.stat(f"/run/netns/{name}").st_ino for name in (CLIENT, SERVER)]
        self.probe.configure(filters, own, tunnels)
        self.counts()
        self.samples.clear()

    def counts(self) -> list[Tally]:
        """What was counted since the last call; softirqs of the last packets have run by then."""
        time.sleep(0.2)
        self.probe.consume()
        events = [e for _ in range(2) for e in self.probe.drain(time.monotonic_ns())]
        return [e for e in events if isinstance(e, Tally)]


@pytest.fixture(scope="module")
def watch(namespaces: None) -> Iterator[DropsWatch]:
    with LoadedProbe(PROBES["drops"], "node-1", cache_folder()) as probe:
        found = DropsWatch(probe)
        probe.on_event(found.samples.append)
        found.clear()
        probe.attach()
        assert {text.rpartition(": ")[0] for text in probe.missing} == missing_here("drops")
        yield found


def socket_in(name: str) -> socket.socket:
    sock = in_netns(name, lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    assert isinstance(sock, socket.socket)
    return sock


def index_of(name: str, device: str) -> int:
    index = in_netns(name, lambda: socket.if_nametoindex(device))
    assert isinstance(index, int)
    return index


def mac_of(name: str, device: str) -> bytes:
    shown = subprocess.run(
        ["ip", "-n", name, "-j", "link", "show", device], check=True, capture_output=True, text=True, timeout=30
    )
    return bytes.fromhex(json.loads(shown.stdout)[0]["address"].replace(":", ""))


def send(count: int, family: int, *, port: int = BLOCKED, ports: range | None = None, pause_every: int = 0) -> None:
    """Datagrams of 40 bytes; with `ports`, each from another source port."""

    def burst() -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        one = socket.socket(kind, socket.SOCK_DGRAM)
        for i in range(count):
            sock = one
            if ports is not None:
                sock = socket.socket(kind, socket.SOCK_DGRAM)
                sock.bind((CLIENT_IPS[family], ports[i]))
            sock.sendto(b"x" * 40, (SERVER_IPS[family], port))
            if sock is not one:
                sock.close()
            if pause_every and i % pause_every == 0:
                time.sleep(0.001)
        one.close()

    in_netns(CLIENT, burst)


def drops(counts: list[Tally], *, port: int = BLOCKED) -> list[DropCount]:
    return [c for c in counts if isinstance(c, DropCount) and c.flow.dport == port]


@pytest.mark.parametrize("family", [4, 6])
def test_every_dropped_datagram_is_counted_once(watch: DropsWatch, family: int) -> None:
    watch.clear()
    send(500, family)
    (count,) = drops(watch.counts())
    assert (count.packets, count.reason, count.flow.protocol) == (500, "NETFILTER_DROP", Protocol.UDP)
    assert (count.flow.src, count.flow.dst) == (CLIENT_IPS[family], SERVER_IPS[family])
    assert count.netns == os.stat(f"/run/netns/{SERVER}").st_ino
    assert count.bytes == 500 * (40 + 8 + (20 if family == 4 else 40))


def test_first_packet_carries_the_stack_and_its_hook(watch: DropsWatch) -> None:
    watch.clear()
    send(3, 4, ports=range(3001, 3004))
    watch.counts()
    samples = [e for e in watch.samples if isinstance(e, PacketDropped) and e.flow.dport == BLOCKED]
    assert sorted(e.flow.sport for e in samples) == [3001, 3002, 3003]
    assert {(e.hook, e.reason, e.device) for e in samples} == {("INPUT", "NETFILTER_DROP", "eth0")}
    assert all(any(frame.startswith("ip_local_deliver") for frame in e.stack) for e in samples)


def test_flood_is_counted_and_not_reported_one_by_one(watch: DropsWatch) -> None:
    watch.clear()
    send(30_000, 4)
    assert sum(c.packets for c in drops(watch.counts())) == 30_000
    # The flood's own: the namespaces' neighbour discovery loses packets of its own.
    assert len([e for e in watch.samples if isinstance(e, PacketDropped) and e.flow.dport == BLOCKED]) <= 2
    assert watch.probe.accounts()["ring buffer"] == 0


def test_full_table_keeps_the_sum_and_leaves_the_source_out(watch: DropsWatch) -> None:
    watch.clear()
    send(20_000, 4, ports=range(20_000, 40_000), pause_every=50)
    found = drops(watch.counts())
    assert sum(c.packets for c in found) == 20_000
    assert len(found) <= 16_384 + 1
    without_source = [c for c in found if not c.flow.src]
    # An entry or two may be taken by what else the namespaces drop (neighbour discovery).
    assert 20_000 - 16_384 <= sum(c.packets for c in without_source) < 20_000 - 16_384 + 10
    assert watch.probe.accounts()["flow table"] == 0


def test_filter_counts_only_what_it_names(watch: DropsWatch) -> None:
    watch.clear(FilterEntry(SERVER_IPS[4], BLOCKED, "UDP"))
    send(10, 4)
    send(10, 6)
    assert [(c.flow.dst, c.packets) for c in drops(watch.counts())] == [(SERVER_IPS[4], 10)]


def test_what_a_pod_sends_to_a_tunnels_port_is_no_drop_of_what_is_inside(watch: DropsWatch) -> None:
    """Whether the node has a tunnel on another device, or between other ends."""
    forged = in_vxlan(in_ip(CLIENT_IPS[4], "10.9.9.9", socket.IPPROTO_TCP, syn(BLOCKED)))
    place = os.stat(f"/run/netns/{SERVER}").st_ino, index_of(SERVER, "eth0")
    for tunnels in (
        Tunnels(),
        Tunnels(frozenset({place}), frozenset({"10.9.9.8"})),
        Tunnels(frozenset({(place[0], place[1] + 1)}), frozenset({SERVER_IPS[4]})),
    ):
        watch.clear(tunnels=tunnels)
        with socket_in(CLIENT) as sock:
            sock.sendto(forged, (SERVER_IPS[4], 8472))
        counts = watch.counts()
        assert [c.packets for c in drops(counts, port=8472)] == [1]
        assert drops(counts) == []
    watch.clear(tunnels=Tunnels(frozenset({place}), frozenset({SERVER_IPS[4]})))
    with socket_in(CLIENT) as sock:
        sock.sendto(forged, (SERVER_IPS[4], 8472))
    assert [(c.flow.dst, c.packets) for c in drops(watch.counts())] == [("10.9.9.9", 1)]


def test_nothing_is_read_behind_the_end_of_a_packet(watch: DropsWatch) -> None:
    place = os.stat(f"/run/netns/{SERVER}").st_ino, index_of(SERVER, "eth0")
    inside = "10.66.0.2"
    watch.clear(FilterEntry(inside, 0, "TCP"), tunnels=Tunnels(frozenset({place}), frozenset({SERVER_IPS[4]})))
    with frames(CLIENT, "eth0", mac_of(SERVER, "eth0")) as send:
        for _ in range(50):
            send_cut_packets(send, (CLIENT_IPS[4], SERVER_IPS[4]), inside, PORT)
    counts = watch.counts()
    assert {(c.flow.dport, c.opening) for c in counts if isinstance(c, DropCount)} == {(PORT + 1, False)}
    assert {e.flow.dport for e in watch.samples if isinstance(e, PacketDropped)} == {PORT + 1}


def test_refused_connection_is_a_drop_and_a_reset_that_a_packet_provoked(watch: DropsWatch) -> None:
    watch.clear()

    def connect() -> None:
        with socket.socket() as sock:
            assert sock.connect_ex((SERVER_IPS[4], 4444)) != 0

    in_netns(CLIENT, connect)
    counts = watch.counts()
    (drop,) = drops(counts, port=4444)
    assert (drop.reason, drop.packets, drop.opening) == (here("NO_SOCKET"), 1, True)
    sent = [c for c in counts if isinstance(c, ResetCount) and c.sent]
    told = [(SERVER_IPS[4], 4444, False)] if tells_every_reset() else []
    assert [(c.flow.src, c.flow.sport, c.active) for c in sent] == told


def test_reset_of_an_application_is_told_and_has_its_port(watch: DropsWatch) -> None:
    watch.clear()
    listener = in_netns(SERVER, lambda: socket.create_server((SERVER_IPS[4], 5555)))
    assert isinstance(listener, socket.socket)
    client = in_netns(CLIENT, lambda: socket.create_connection((SERVER_IPS[4], 5555), timeout=5))
    assert isinstance(client, socket.socket)
    served, _ = listener.accept()
    served.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    served.close()
    counts = watch.counts()
    sent = [c for c in counts if isinstance(c, ResetCount) and c.sent]
    assert [(c.active, c.flow.src, c.flow.sport) for c in sent] == [(True, SERVER_IPS[4], 5555)]
    accepted = [c for c in counts if isinstance(c, EstablishedCount)]
    assert [(c.flow.src, c.flow.sport, c.flow.dport, c.packets) for c in accepted] == [(CLIENT_IPS[4], 0, 5555, 1)]
    client.close()
    listener.close()


def test_unanswered_syn_is_counted_as_sent_again(watch: DropsWatch) -> None:
    watch.clear()
    rule = ("INPUT", "-p", "tcp", "--dport", "6666", "-j", "DROP")
    run("nsenter", f"--net=/run/netns/{SERVER}", "iptables", "-A", *rule)

    def connect() -> None:
        with socket.socket() as sock:
            sock.settimeout(1.5)
            with pytest.raises(TimeoutError):
                sock.connect((SERVER_IPS[4], 6666))

    try:
        in_netns(CLIENT, connect)
    finally:
        run("nsenter", f"--net=/run/netns/{SERVER}", "iptables", "-D", *rule)
    counts = watch.counts()
    (again,) = [c for c in counts if isinstance(c, RetransmitCount)]
    (drop,) = drops(counts, port=6666)
    assert (again.flow.dport, again.state) == (6666, "SYN_SENT") and again.packets >= 1
    assert (drop.packets, drop.opening) == (1 + again.packets, True)  # a busy machine ends the attempt later


def test_nothing_stays_behind(watch: DropsWatch) -> None:
    """The tables are empty after they were read: what was counted is reported once."""
    watch.clear()
    send(5, 4)
    assert sum(c.packets for c in drops(watch.counts())) == 5
    assert drops(watch.counts()) == []
    assert Path("/sys/fs/bpf").exists() is False or not list(Path("/sys/fs/bpf").glob("*drops*"))
