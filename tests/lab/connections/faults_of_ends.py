"""Faults of the ends: a client that reads nothing, resets, opens in unusual ways; and of the queues between them."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.spec import veth_name
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


@contextlib.contextmanager
def _held_back(bench: Bench, pod: Pod) -> Iterator[None]:
    """Meanwhile what the pod's node sends to it waits in a queue, but for the first packets; then all of it goes on."""
    node, device = pod.spec.node_name, veth_name(pod.metadata.namespace, pod.metadata.name)
    tbf = ("dev", device, "root", "tbf", "burst", "1600", "limit", "4000000", "rate")
    bench.run(node, "tc", "qdisc", "add", *tbf, "1kbit")
    with bench.own_socket(node, socket.SOCK_DGRAM) as others:
        others.sendto(bytes(1500), (pod.ips[0], CLOSED))  # takes what the queue lets pass at once
    yield
    bench.run(node, "tc", "qdisc", "change", *tbf, "1gbit")
    time.sleep(1)
    bench.run(node, "tc", "qdisc", "del", "dev", device, "root")


@fault
def queue_holds_the_reply(bench: Bench) -> Done:
    """A queue on the way keeps what was sent, for seconds; the server has more to send all the time."""
    done, go_on, client = Done(), threading.Event(), bench.own("rag-app")

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        _tokens(served, 20)
        go_on.wait(10)
        served.sendall(bytes(3_000_000))

    sock = _asked(bench, done, answer, who=client)

    def hold() -> None:
        time.sleep(0.8)
        with _held_back(bench, client):
            go_on.set()
            time.sleep(PAUSE_S)
        _read_all(sock)

    _beside(bench, hold)
    return done


def _asked(
    bench: Bench, done: Done, answer: Callable[[socket.socket], None], *, who: Pod | str = "", room: int = 0
) -> socket.socket:
    """A client's socket that has asked a server in the open pod; with a small receive buffer where `room` is given."""
    port = _served(bench, bench.open_pod, answer)
    sock = bench.until_the_end.enter_context(bench.own_socket(who))
    if room:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.connect((bench.open_pod.ips[0], port))
    sock.sendall(ASK)
    done.got[sock.getsockname()[1]] = "answered"
    return sock


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
        with _held_back(bench, bench.open_pod):
            ready.wait(5)
            sock.close()
            time.sleep(0.3)
    return done


@fault
def fast_open(bench: Bench) -> Done:
    """The request comes with the SYN; the first connection gets the cookie, the second uses it."""
    done, pod = Done(), bench.open_pod
    both, name = (pod, bench.client), "net.ipv4.tcp_fastopen"
    old = [bench.run(who, "sysctl", "-n", name).strip() for who in both]
    for who in both:
        bench.run(who, "sysctl", "-w", f"{name}=3")

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
                sock.sendto(ASK, socket.MSG_FASTOPEN, (pod.ips[0], server.getsockname()[1]))
                sock.settimeout(3)
                own = sock.getsockname()[1]
                done.got[own] = "answered" if sock.recv(65536) == ANSWER else "closed"

    done.counted = bench.grown(pod, "TcpExtTCPFastOpenPassive", ask)
    thread.join(5)
    for who, value in zip(both, old, strict=True):
        bench.run(who, "sysctl", "-w", f"{name}={value}")
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

    def answer(served: socket.socket) -> None:
        served.recv(65536)
        served.sendall(ANSWER)
        time.sleep(5)

    with netns.inside(bench.space("fabric")):
        wire = bench.until_the_end.enter_context(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)))
    wire.bind((bench.cable("node-1"), 3))
    wire.settimeout(3)
    sock = _asked(bench, done, answer)
    (own,) = done.got
    assert sock.recv(65536) == ANSWER
    while True:  # until the client acknowledges the answer
        frame = wire.recv(65536)
        tcp = frame[34:]
        if frame[23] == socket.IPPROTO_TCP and tcp[:2] == own.to_bytes(2, "big") and len(tcp) <= 32 and not tcp[13] & 2:
            number, expected = struct.unpack_from("!II", tcp, 4)
            if number != expected and frame[13] == 0:
                wire.send(_forged(frame, expected + len(ANSWER) * (not done.counted)))
                wire.send(_forged(frame, expected))
                break
    sock.settimeout(2)
    try:
        done.got[own] = "closed" if sock.recv(1) == b"" else "answered"
    except OSError as error:
        done.got[own] = type(error).__name__
    return done


def _forged(frame: bytes, number: int) -> bytes:
    """A reset from the end that the frame is for, with this sequence number."""
    ends = frame[30:34] + frame[26:30]
    reset = frame[36:38] + frame[34:36] + struct.pack("!IIBBHHH", number % 2**32, 0, 5 << 4, 4, 0, 0, 0)
    check = checksum(ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, len(reset)) + reset)
    reset = reset[:16] + struct.pack("!H", check) + reset[18:]
    header = struct.pack("!BBHHHBBH", 0x45, 0, 40, 77, 0, 200, socket.IPPROTO_TCP, 0) + ends
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return frame[6:12] + frame[:6] + frame[12:14] + header + reset
