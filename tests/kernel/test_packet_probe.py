"""The packet probe on real packets of a known number, in namespaces of the test's own."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.bpf import loader
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.agent.serve.limits import Budget
from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.events import Bye, PacketSeen
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.wire import FilterEntry
from tests.kernel.accepting import accepting
from tests.kernel.kerneltest import (
    ADDRESSES,
    CLIENT_IP,
    PORT,
    SERVER_IP,
    SMALL_RING,
    Row,
    Watch,
    cache_folder,
    frames,
    in_ip,
    in_vxlan,
    places,
    send_cut_packets,
    send_datagrams,
    syn,
    three_namespaces,
    udp_sink,
    udp_socket,
    watching,
    way,
)

DATAGRAMS = 50


def balanced(bye: Bye, watch: Watch) -> bool:
    """Emitted = sent + lost, and what was sent is what arrived."""
    arrived = [
        e for e in watch.events if type(e).__name__ in ("PacketSeen", "PacketDropped", "IcmpError", "TcpRetransmit")
    ]
    return bye.emitted == bye.sent + bye.lost and bye.sent == len(arrived)


@pytest.mark.parametrize("family", [4, 6])
def test_each_datagram_is_one_event_at_each_place(row: Row, family: int) -> None:
    client, server = ADDRESSES[family]
    with udp_sink(row, family), watching(row, FilterEntry(server, PORT, "UDP")) as watch:
        send_datagrams(row, DATAGRAMS, family)
        watch.settle()
        bye = watch.end()
    by_packet: dict[FiveTuple, list[PacketSeen]] = {}
    for event in watch.seen:
        by_packet.setdefault(event.flow, []).append(event)
    assert {(f.src, f.dst, f.dport, f.protocol) for f in by_packet} == {(client, server, PORT, Protocol.UDP)}
    assert sorted(f.sport for f in by_packet) == list(range(20000, 20000 + DATAGRAMS))
    for events in by_packet.values():
        assert places(row, events) == way(row)
        assert len({e.skb for e in events}) == 1 and len({e.sig for e in events}) == 1
        assert {e.payload for e in events} == {17} and {e.node for e in events} == {"node"}
        assert [e.ttl for e in sorted(events, key=lambda e: e.t_ns)] == [64, 64, 63, 63]  # one router
    assert len({events[0].sig for events in by_packet.values()}) == DATAGRAMS  # each payload is another
    assert (bye.emitted, bye.sent, bye.lost) == (4 * DATAGRAMS, 4 * DATAGRAMS, 0) and balanced(bye, watch)


def test_what_a_tiny_ring_loses_is_counted(row: Row) -> None:
    with udp_sink(row), watching(row, FilterEntry(SERVER_IP, PORT, "UDP"), budget=SMALL_RING) as watch:
        send_datagrams(row, 1000)
        watch.settle()
        bye = watch.end()
    assert bye.emitted == 4 * 1000
    assert watch.lost["ring buffer"] == bye.lost > 0
    assert balanced(bye, watch)


def test_what_a_small_event_budget_holds_back_is_counted(row: Row) -> None:
    budget = Budget(events_per_second=10)
    with udp_sink(row), watching(row, FilterEntry(SERVER_IP, PORT, "UDP"), budget=budget) as watch:
        send_datagrams(row, 200)
        watch.settle()
        bye = watch.end()
    assert bye.emitted == 4 * 200
    assert watch.lost["event budget"] == bye.lost > 0 and watch.lost["ring buffer"] == 0
    assert balanced(bye, watch)


def answer(peer: socket.socket) -> None:
    with peer:
        peer.settimeout(20)
        while data := peer.recv(1 << 20):
            peer.sendall(data[:64])


@contextlib.contextmanager
def listener(row: Row, family: int, kind: int, protocol: int = 0) -> Iterator[None]:
    """A server that answers each connection with what it has received, however late its first comes."""
    with netns.inside(row.server):
        sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, kind, protocol)
    with sock:
        sock.bind((ADDRESSES[family][1], PORT))
        sock.listen(8)
        with accepting(sock, answer):
            yield


def stream(row: Row, family: int, protocol: int = 0) -> socket.socket:
    with netns.inside(row.client):
        sock = socket.socket(socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_STREAM, protocol)
    sock.settimeout(20)
    sock.connect((ADDRESSES[family][1], PORT))
    return sock


@pytest.mark.parametrize("family", [4, 6])
def test_tcp_is_followed_in_both_directions(row: Row, family: int) -> None:
    client, server = ADDRESSES[family]
    with listener(row, family, socket.SOCK_STREAM), watching(row, FilterEntry(server, PORT, "TCP")) as watch:
        with stream(row, family) as sock:
            own = sock.getsockname()[1]
            sock.sendall(b"x" * 100)
            sock.recv(100)
        watch.settle()
        watch.settle()
        bye = watch.end()
    there = FiveTuple(client, own, server, PORT, Protocol.TCP)
    back = [(place, {"tx": "rx", "rx": "tx"}[point]) for place, point in reversed(way(row))]
    flags = {"SYN": (there, way(row)), "SYN,ACK": (there.reversed, back)}
    for name, (flow, expected) in flags.items():
        events = [e for e in watch.seen if str(e.tcp) == name]
        assert {e.flow for e in events} == {flow} and places(row, events) == expected
    (syn,) = {e.tcp.seq for e in watch.seen if e.tcp and str(e.tcp) == "SYN"}
    (answer,) = {e.tcp for e in watch.seen if str(e.tcp) == "SYN,ACK"}
    assert answer is not None and answer.ack == syn + 1
    data = [e for e in watch.seen if e.flow == there and e.payload]
    assert {e.payload for e in data} == {100} and set(places(row, data)) == set(way(row))
    ends = [e for e in watch.seen if e.tcp and e.tcp.fin]
    for flow, expected in (there, way(row)), (there.reversed, back):  # where it is sent, and where it comes in
        assert places(row, [e for e in ends if e.flow == flow]) == [expected[0], *(p for p in expected if p[1] == "rx")]
    assert balanced(bye, watch) and bye.lost == 0


def test_sctp_is_followed(row: Row) -> None:
    try:
        with (
            listener(row, 4, socket.SOCK_STREAM, socket.IPPROTO_SCTP),
            watching(row, FilterEntry(SERVER_IP, PORT, "SCTP")) as watch,
        ):
            with stream(row, 4, socket.IPPROTO_SCTP) as sock:
                own = sock.getsockname()[1]
            watch.settle()
            watch.end()
    except OSError as error:
        if error.errno in (93, 94, 22):  # EPROTONOSUPPORT, ESOCKTNOSUPPORT
            pytest.skip(f"this kernel has no SCTP: {error}")
        raise
    first = [e for e in watch.seen if e.flow == FiveTuple(CLIENT_IP, own, SERVER_IP, PORT, Protocol.SCTP)][:4]
    assert places(row, first) == way(row)


@pytest.mark.parametrize("family", [4, 6])
def test_icmp_echo_is_followed_there_and_back(row: Row, family: int) -> None:
    client, server = ADDRESSES[family]
    with watching(row, FilterEntry(server)) as watch:
        row.run(row.client, "ping", "-c", "1", "-W", "5", server)
        watch.settle()
        watch.end()
    protocol = Protocol.ICMP if family == 4 else Protocol.ICMPV6
    there = FiveTuple(client, 0, server, 0, protocol)
    assert places(row, [e for e in watch.seen if e.flow == there]) == way(row)
    back = [(place, {"tx": "rx", "rx": "tx"}[point]) for place, point in reversed(way(row))]
    assert places(row, [e for e in watch.seen if e.flow == there.reversed]) == back


@pytest.mark.parametrize("family", [4, 6])
def test_packet_is_followed_through_nat_to_an_address_that_no_filter_names(row: Row, family: int) -> None:
    virtual = "10.99.0.1" if family == 4 else "fd99::1"
    client, server = ADDRESSES[family]
    tables = "iptables" if family == 4 else "ip6tables"
    to = f"{server}:{PORT}" if family == 4 else f"[{server}]:{PORT}"
    rule = ("PREROUTING", "-d", virtual, "-p", "udp", "--dport", "80", "-j", "DNAT", "--to-destination", to)
    row.run(row.router, tables, "-t", "nat", "-A", *rule)
    try:
        with udp_sink(row, family), watching(row, FilterEntry(virtual, 80, "UDP")) as watch:
            with udp_socket(row, row.client, family) as sock:
                sock.bind((client, 21000))
                sock.sendto(b"to the virtual address", (virtual, 80))
            watch.settle()
            watch.end()
    finally:
        row.run(row.router, tables, "-t", "nat", "-D", *rule)
    assert places(row, watch.seen) == way(row)
    assert [(e.flow.dst, e.flow.dport) for e in sorted(watch.seen, key=lambda e: e.t_ns)] == [
        (virtual, 80),
        (virtual, 80),
        (server, PORT),
        (server, PORT),
    ]


def test_filter_changes_while_it_runs(row: Row) -> None:
    first, second = FilterEntry(SERVER_IP, PORT, "UDP"), FilterEntry(SERVER_IP, PORT + 1, "UDP")
    with udp_sink(row), udp_sink(row, port=PORT + 1), watching(row, first) as watch:
        for following, ports in (
            (None, {PORT}),
            ((second,), {PORT + 1}),
            ((first, second), {PORT, PORT + 1}),
            ((), set()),
        ):
            if following is not None:
                watch.follow(following)
            before = len(watch.seen)
            for port in (PORT, PORT + 1):
                send_datagrams(row, 3, port=port)
            watch.settle()
            assert Counter(e.flow.dport for e in watch.seen[before:]) == dict.fromkeys(ports, 12)
        assert balanced(watch.end(), watch)


def device_counters(row: Row, name: str, device: str) -> dict[str, int]:
    with netns.inside(name), open("/proc/thread-self/net/dev") as file:
        line = next(line for line in file if line.strip().startswith(f"{device}:"))
    numbers = [int(n) for n in line.partition(":")[2].split()]
    return {"rx bytes": numbers[0], "rx packets": numbers[1], "tx bytes": numbers[8], "tx packets": numbers[9]}


def test_long_flow_is_counted_exactly_and_not_reported_packet_by_packet() -> None:
    size = 20 << 20
    with (
        three_namespaces("long", ipv6=False) as row,
        listener(row, 4, socket.SOCK_STREAM),
        watching(row, FilterEntry(SERVER_IP, PORT, "TCP")) as watch,
    ):
        check_long_flow(row, watch, size)


def check_long_flow(row: Row, watch: Watch, size: int) -> None:
    points = [(row.client, "eth0"), (row.router, "to-client"), (row.router, "to-server"), (row.server, "eth0")]
    before = {p: device_counters(row, *p) for p in points}
    with stream(row, 4) as sock:
        own = sock.getsockname()[1]
        reader = threading.Thread(target=read_all, args=(sock,), daemon=True)
        reader.start()
        sock.sendall(bytes(size))
        sock.shutdown(socket.SHUT_WR)
        reader.join(30)
    watch.settle()
    watch.settle()
    after = {p: device_counters(row, *p) for p in points}
    bye = watch.end()
    assert bye.lost == 0 and balanced(bye, watch)
    # The packets that carry news: SYN, FIN and the first data in each direction, at four places, a few times at most.
    assert bye.emitted < 200
    named = [f"{CLIENT_IP}:{own}", f"{SERVER_IP}:{PORT}"]
    for point in points:
        for direction in ("tx", "rx"):
            packets, octets = counted_at(watch, point, direction, named)
            moved = {k: after[point][k] - before[point][k] for k in after[point]}
            assert packets == moved[f"{direction} packets"], (point, direction)
            ethernet = 0 if direction == "tx" else 14 * packets  # its header is off when a packet is received
            assert octets + ethernet == moved[f"{direction} bytes"], (point, direction)
    hops = [e for e in watch.flows().values() if sum(e.hop_ns)]
    assert hops and all(sum(e.hop_ns) <= e.packets for e in hops)


def read_all(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass


def counted_at(watch: Watch, point: tuple[str, str], direction: str, ends: list[str]) -> tuple[int, int]:
    """(packets, bytes) of the flow at a place: those counted, and those that were reported and are in no count. A FIN that the
    router passes on is counted."""
    flows = [
        f for key, f in watch.flows().items() if key[:2] == point and key[2] == direction and set(key[3:]) == set(ends)
    ]
    news = [
        e
        for e in watch.seen
        if watch.row.place(e) == point and e.point.value == direction
        if e.tcp and e.tcp.flags & 7 and not e.payload  # SYN, FIN, RST; a FIN with data is counted, too
    ]
    return sum(f.packets for f in flows) + len(news), sum(f.bytes for f in flows) + sum(e.length for e in news)


@contextlib.contextmanager
def tunnel_to_another_node(row: Row) -> Iterator[None]:
    """VXLAN between the row's router and its server, which has a link elsewhere and so is no pod of the router's."""
    router_ip = "10.88.2.1"
    ends = ((row.router, router_ip, SERVER_IP, "10.66.0.1"), (row.server, SERVER_IP, router_ip, "10.66.0.2"))
    elsewhere = f"{row.server}-2"
    netns.create([elsewhere])
    try:
        row.run(row.server, "ip", "link", "add", "other", "type", "veth", "peer", "name", "other", "netns", elsewhere)
        for name, local, remote, inner in ends:
            tunnel = ("type", "vxlan", "id", "7", "local", local, "remote", remote, "dstport", "8472")
            row.run(name, "ip", "link", "add", "vx0", *tunnel)
            row.run(name, "ip", "addr", "add", f"{inner}/24", "dev", "vx0")
            row.run(name, "ip", "link", "set", "vx0", "up")
        row.run(row.server, "ip", "route", "add", CLIENT_IP, "via", "10.66.0.1")
        yield
    finally:
        for name, *_ in ends:
            row.run(name, "ip", "link", "del", "vx0")
        row.run(row.server, "ip", "link", "del", "other")  # a namespace's end takes its devices away later
        netns.remove(elsewhere)


def test_packets_inside_a_tunnel_of_the_nodes_are_matched_and_name_it(row: Row) -> None:
    with (
        tunnel_to_another_node(row),
        watching(row, FilterEntry("10.66.0.2", PORT, "UDP")) as watch,
        udp_socket(row, row.server, 4) as sink,
    ):
        sink.bind(("10.66.0.2", PORT))
        sink.settimeout(20)
        with udp_socket(row, row.client, 4) as sock:
            sock.sendto(b"inside the tunnel", ("10.66.0.2", PORT))
            assert sink.recv(100) == b"inside the tunnel"
        watch.settle()
        watch.end()
    router = row.router
    way_in = [((row.client, "eth0"), "tx"), ((router, "to-client"), "rx")]
    assert places(row, watch.seen) == [*way_in, ((router, "vx0"), "tx"), ((router, "to-server"), "tx")]
    *outside, inside = [e.tunnel for e in sorted(watch.seen, key=lambda e: e.t_ns)]
    assert outside == [None, None, None] and inside is not None
    assert (inside.src, inside.dst, inside.dport, inside.protocol) == ("10.88.2.1", SERVER_IP, 8472, Protocol.UDP)


def test_what_a_pod_sends_to_a_tunnels_port_is_not_taken_for_a_tunnel(row: Row) -> None:
    forged = in_vxlan(in_ip("10.1.1.1", SERVER_IP, socket.IPPROTO_TCP, syn(PORT)))
    with tunnel_to_another_node(row), watching(row, FilterEntry(SERVER_IP, PORT, "TCP")) as watch:
        with udp_socket(row, row.client, 4) as sock:
            for destination in (SERVER_IP, "10.88.1.1", "10.88.2.1"):
                for port in (4789, 8472, 6081):
                    sock.sendto(forged, (destination, port))
        watch.settle()
        watch.end()
    assert watch.seen == []


def test_nothing_is_read_behind_the_end_of_a_packet(row: Row) -> None:
    inside = "10.66.0.2"
    with (
        tunnel_to_another_node(row),
        watching(row, FilterEntry(inside, 0, "TCP")) as watch,
        frames(row.router, "to-server") as send,
    ):
        for _ in range(50):
            send_cut_packets(send, ("10.88.2.1", SERVER_IP), inside, PORT)
        watch.settle()
        watch.end()
    assert {(e.flow.dport, e.tcp.flags) for e in watch.seen if e.tcp} == {(PORT + 1, 0)}


def test_other_nodes_namespaces_are_not_reported(row: Row) -> None:
    with (
        three_namespaces("other") as other,
        udp_sink(other),
        watching(row, FilterEntry(SERVER_IP, PORT, "UDP")) as watch,
    ):
        send_datagrams(other, 5)
        watch.settle()
        bye = watch.end()
    assert watch.seen == [] and bye.emitted == 0


def test_flows_that_the_table_has_no_room_for_are_counted_as_lost(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "FLOW_BYTES", 0)  # the least: 1,024 entries
    flows = 400
    with LoadedProbe(PROBES["packet"], "node", cache_folder()) as probe, udp_sink(row):
        probe.configure(
            (FilterEntry(SERVER_IP, PORT, "UDP"),), {row.inode(n) for n in (row.client, row.router, row.server)}
        )
        probe.attach()
        send_datagrams(row, flows)
        reported = list(probe.drain(0))
        accounts = probe.accounts()
    assert accounts["flows created"] == 4 * flows  # one at each place
    assert len(reported) <= 1024 and accounts["flow table"] == 4 * flows - len(reported)
