"""Faults of the ends: a client that reads nothing, resets, opens in unusual ways; and of the queues between them."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.model.kube import Pod
from tests.lab.connections.faultbench import ASK, Bench, Done
from tests.lab.connections.faults_of_time import checksum

FAULTS: dict[str, Callable[[Bench], Done]] = {}
PAUSE_S = 4.0
ANSWER = b"answer"
CLOSED = 9998
_NO_LINGER = struct.pack("ii", 1, 0)


def fault(act: Callable[[Bench], Done]) -> Callable[[Bench], Done]:
    FAULTS[act.__name__] = act
    return act


def _served(bench: Bench, pod: Pod, answer: Callable[[socket.socket], None], kind: int = 0) -> int:
    """The port of a server in the pod that answers one connection so."""
    with netns.inside(bench.space(pod)):
        server = bench.until_the_end.enter_context(socket.socket(proto=kind))
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 8)
    server.bind(("0.0.0.0", 0))
    server.listen(8)

    def serve() -> None:
        with contextlib.suppress(OSError), server.accept()[0] as served:
            served.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            answer(served)

    threading.Thread(target=serve, daemon=True).start()
    return int(server.getsockname()[1])


def _beside(bench: Bench, act: Callable[[], None]) -> None:
    """Does it while the faults that follow are made."""
    thread = threading.Thread(target=act, daemon=True)
    thread.start()
    bench.before_the_end.append(thread)


def _tokens(served: socket.socket, number: int) -> None:
    for _ in range(number):
        served.sendall(b"token")
        time.sleep(0.02)


def _read_all(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(65536):
            pass


@fault
def server_pauses(bench: Bench) -> Done:
    """A stream that its server leaves alone for seconds."""
    done = Done()

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        _tokens(served, 20)
        time.sleep(PAUSE_S)
        _tokens(served, 20)

    sock = _asked(bench, done, answer)
    _beside(bench, lambda: _read_all(sock))
    return done


@fault
def client_reads_nothing(bench: Bench) -> Done:
    """The client's receive window is full for seconds: its server has more to send all the time."""
    done = Done()

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        _tokens(served, 20)
        served.sendall(bytes(300_000))
        _tokens(served, 20)

    sock = _asked(bench, done, answer, room=8192)

    def read_late() -> None:
        time.sleep(1 + PAUSE_S)
        _read_all(sock)

    def count() -> None:
        done.counted = bench.grown(bench.client, "TcpExtTCPToZeroWindowAdv", read_late)

    _beside(bench, count)
    return done


@fault
def queue_holds_the_reply(bench: Bench) -> Done:
    """A queue on the way keeps what was sent, for seconds; the server has more to send all the time."""
    done, cable = Done(), bench.cable("node-1")  # the fabric's end: what node-1 gets waits there

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        _tokens(served, 20)
        time.sleep(1)
        with contextlib.suppress(OSError):
            served.sendall(bytes(4_000_000))

    sock = _asked(bench, done, answer)
    (own,) = done.got
    time.sleep(0.6)
    _slow_down(bench, cable, own)

    def read() -> None:
        sock.settimeout(0.1)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                sock.recv(65536)
        bench.run("fabric", "tc", "qdisc", "del", "dev", cable, "root")

    _beside(bench, read)
    return done


def _asked(bench: Bench, done: Done, answer: Callable[[socket.socket], None], *, room: int = 0) -> socket.socket:
    """A client's socket that has asked a server in the open pod; with a small receive buffer where `room` is given."""
    port = _served(bench, bench.open_pod, answer)
    sock = bench.until_the_end.enter_context(bench.own_socket())
    if room:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.connect((bench.open_pod.ips[0], port))
    sock.sendall(ASK)
    done.got[sock.getsockname()[1]] = "answered"
    return sock


def _slow_down(bench: Bench, device: str, port: int) -> None:
    """Has packets to the port wait for seconds in a queue of their own."""
    tc = ("tc", "qdisc", "add", "dev", device)
    bench.run("fabric", *tc, "root", "handle", "1:", "prio", "bands", "4", "priomap", *("1 " * 16).split())
    bench.run("fabric", *tc, "parent", "1:4", "netem", "delay", "3500ms", "limit", "10000")
    to_port = f"protocol ip parent 1: u32 match ip protocol 6 0xff match ip dport {port} 0xffff flowid 1:4".split()
    bench.run("fabric", "tc", "filter", "add", "dev", device, *to_port)


@fault
def reset_by_linger(bench: Bench) -> Done:
    """A client that closes with SO_LINGER 0 while its answer still comes."""
    done = Done()

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        _tokens(served, 200)

    port = _served(bench, bench.open_pod, answer)
    sock = bench.own_socket()
    sock.connect((bench.open_pod.ips[0], port))
    sock.sendall(ASK)
    sock.recv(65536)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    done.got[sock.getsockname()[1]] = "reset"
    sock.close()
    return done


@fault
def both_close_at_once(bench: Bench) -> Done:
    """Both FINs are on their way at the same time."""
    done, ready = Done(), threading.Barrier(2)

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        served.sendall(ANSWER)
        ready.wait(5)
        served.close()

    port = _served(bench, bench.open_pod, answer)
    with bench.own_socket() as sock:
        sock.connect((bench.open_pod.ips[0], port))
        sock.sendall(ASK)
        sock.recv(65536)
        done.got[sock.getsockname()[1]] = "answered"
        cable = bench.cable(bench.there)
        bench.run("fabric", *f"tc qdisc add dev {cable} root netem delay 40ms".split())
        ready.wait(5)
        sock.close()
        time.sleep(0.3)
        bench.run("fabric", "tc", "qdisc", "del", "dev", cable, "root")
    return done


@fault
def fast_open(bench: Bench) -> Done:
    """The request comes with the SYN; the first connection gets the cookie, the second uses it."""
    done, pod = Done(), bench.open_pod
    old = {who: bench.run(who, "sysctl", "-n", "net.ipv4.tcp_fastopen").strip() for who in (pod, bench.client)}
    for who in old:
        bench.run(who, "sysctl", "-w", "net.ipv4.tcp_fastopen=3")

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        served.sendall(ANSWER)

    with netns.inside(bench.space(pod)):
        server = bench.until_the_end.enter_context(socket.socket())
    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 8)
    server.bind(("0.0.0.0", 0))
    server.listen(8)

    def serve() -> None:
        for _ in range(2):
            with server.accept()[0] as served:
                answer(served)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def ask() -> None:
        for _ in range(2):
            with bench.own_socket() as sock:
                sock.settimeout(3)
                sock.sendto(ASK, socket.MSG_FASTOPEN, (pod.ips[0], server.getsockname()[1]))
                own = sock.getsockname()[1]
                done.got[own] = "answered" if sock.recv(65536) == ANSWER else "closed"

    done.counted = bench.grown(pod, "TcpExtTCPFastOpenPassive", ask)
    thread.join(5)
    for who, value in old.items():
        bench.run(who, "sysctl", "-w", f"net.ipv4.tcp_fastopen={value}")
    return done


@fault
def multipath(bench: Bench) -> Done:
    """An MPTCP connection; its options and its sequence numbers of data are no news."""
    done = Done()

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        served.sendall(ANSWER)

    try:
        port = _served(bench, bench.open_pod, answer, socket.IPPROTO_MPTCP)
    except OSError:
        return done
    with netns.inside(bench.space(bench.client)):
        sock = socket.socket(proto=socket.IPPROTO_MPTCP)
    with sock:
        sock.bind(("", next(bench.own_ports)))
        sock.connect((bench.open_pod.ips[0], port))
        sock.sendall(ASK)
        _read_all(sock)
        done.got[sock.getsockname()[1]] = "answered"
    return done


@fault
def keepalives_unanswered(bench: Bench) -> Done:
    """Nothing is sent but keepalives, which something on the way takes: the client's TCP gives up."""
    done = Done()

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        served.sendall(ANSWER)
        time.sleep(20)

    port = _served(bench, bench.open_pod, answer)
    sock = bench.until_the_end.enter_context(bench.own_socket())
    for option, value in ((socket.TCP_KEEPIDLE, 1), (socket.TCP_KEEPINTVL, 1), (socket.TCP_KEEPCNT, 2)):
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.settimeout(8)
    sock.connect((bench.open_pod.ips[0], port))
    own = sock.getsockname()[1]
    sock.sendall(ASK)
    sock.recv(65536)
    device = f'type filter hook ingress device "{bench.cable("node-1")}" priority -500;'
    with bench.nft("fabric", device, f"tcp sport {own} counter drop", done, name="keep"):
        try:
            sock.recv(1)
            done.got[own] = "closed"
        except OSError as error:
            done.got[own] = type(error).__name__
    return done


@fault
def udp_closed_behind_a_service(bench: Bench) -> Done:
    """A datagram to a Service's address that is translated to a port where nobody listens."""
    done = Done()
    service = bench.lab.service("chatbot-ui").cluster_ips[0]
    to_it = f"-p udp -d {service} --dport 9999 -j DNAT --to-destination {bench.open_pod.ips[0]}:{CLOSED}".split()
    with bench.iptables("node-1", "nat", "PREROUTING", *to_it, done=done):
        sock = bench.until_the_end.enter_context(bench.own_socket(kind=socket.SOCK_DGRAM))
        sock.settimeout(2)
        sock.connect((service, 9999))
        sock.send(b"a datagram that nobody takes")
        try:
            sock.recv(1)
        except OSError as error:
            done.got[sock.getsockname()[1]] = type(error).__name__
    return done


@fault
def reset_forged_on_the_way(bench: Bench) -> Done:
    """A middlebox sends a reset with right numbers, and a TTL that is another than the server's."""
    done = Done()
    numbers: list[tuple[int, int]] = []

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        served.sendall(ANSWER)
        time.sleep(5)

    port = _served(bench, bench.open_pod, answer)
    with netns.inside(bench.space("fabric")):
        wire = bench.until_the_end.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
        raw = bench.until_the_end.enter_context(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
    wire.bind((bench.cable("node-1"), 3))
    wire.settimeout(3)
    sock = bench.until_the_end.enter_context(bench.own_socket())
    sock.connect((bench.open_pod.ips[0], port))
    own = sock.getsockname()[1]
    sock.sendall(ASK)
    sock.recv(65536)
    time.sleep(0.3)
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline and not numbers:
        packet = wire.recv(65536)[14:]
        if len(packet) < 40 or packet[9] != 6 or struct.unpack_from("!HH", packet, 20) != (own, port):
            continue
        if packet.endswith(ASK):
            continue
        sequence, acknowledged = struct.unpack_from("!II", packet, 24)
        if acknowledged:
            numbers.append((sequence, acknowledged))
            if packet[33] & 2:
                numbers.clear()
    client, server = socket.inet_aton(bench.client.ips[0]), socket.inet_aton(bench.open_pod.ips[0])
    done.counted = len(numbers)
    return _reset(done, raw, own, port, client, server, sock, numbers)


def _reset(
    done: Done,
    raw: socket.socket,
    own: int,
    port: int,
    client: bytes,
    server: bytes,
    sock: socket.socket,
    numbers: list[tuple[int, int]],
) -> Done:
    for sequence, acknowledged in numbers:
        for number in (acknowledged, acknowledged + len(ANSWER)):
            segment = struct.pack("!HHIIBBHHH", port, own, number, sequence, 5 << 4, 4, 0, 0, 0)
            check = checksum(server + client + struct.pack("!BBH", 0, 6, len(segment)) + segment)
            segment = segment[:16] + struct.pack("!H", check) + segment[18:]
            header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, 77, 0, 200, 6, 0, server, client)
            raw.sendto(header + segment, (socket.inet_ntoa(client), 0))
    sock.settimeout(2)
    try:
        sock.recv(1)
        done.got[own] = "closed"
    except OSError as error:
        done.got[own] = type(error).__name__
    return done
