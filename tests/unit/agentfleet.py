"""Agents that answer in a way of their own, many at a time, for tests of what a client makes of it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable

from kubectl_genainet import wire
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import Bye, ClusterChanged, Event, Hello, Tick
from kubectl_genainet.stream import Streams
from kubectl_genainet.wire import FilterEntry, TraceRequest

REQUEST = TraceRequest(filters=(FilterEntry("10.0.0.1", 80),))
RECORDS = 20  # by each agent, besides the first and the last
Talk = Callable[[socket.socket, str], None]


def hello(node: str, protocol: int = wire.PROTOCOL) -> Hello:
    return Hello(
        node=node, protocol=protocol, version="9.9", kernel="6", boot_id=node, t_ns=0, realtime_ns=0, tier="tracepoint"
    )


def send(sock: socket.socket, *events: Event) -> None:
    data = b"".join(map(wire.encode, events))
    sock.sendall(b"%x\r\n%s\r\n" % (len(data), data))


def asked(sock: socket.socket) -> None:
    """Reads the whole request: a socket closed with bytes unread resets the connection, and the answer may be lost."""
    text = b""
    while b"\r\n\r\n" not in text or not text.endswith(b"}"):
        part = sock.recv(65536)
        if not part:
            raise ConnectionResetError
        text += part


def head(sock: socket.socket) -> None:
    """Reads the request and begins the answer."""
    asked(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nGenainet-Session: s\r\n\r\n")


def well(sock: socket.socket, node: str) -> None:
    head(sock)
    send(sock, hello(node))
    for i in range(RECORDS):
        send(sock, Tick(node=node, t_ns=i))
    send(sock, Bye(node=node, emitted=0, sent=0, lost=0, reason="timeout"))
    sock.sendall(b"0\r\n\r\n")


def trickles(sock: socket.socket, node: str) -> None:
    """A byte of a header now and then: each wait is short, all of them have no end."""
    asked(sock) if node == "filters" else sock.recv(65536)
    sock.sendall(b"HTTP/1.1 200 OK\r\nX: ")
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(b"x")
            time.sleep(0.05)


def hangs(sock: socket.socket, node: str) -> None:
    head(sock)
    send(sock, hello(node))
    sock.recv(1)  # until the client gives it up


def breaks_off(sock: socket.socket, node: str) -> None:
    head(sock)
    send(sock, hello(node), Tick(node=node, t_ns=1))


def refuses(sock: socket.socket, node: str) -> None:
    body = b'{"error": "4 traces run on this node already", "hint": "later"}'
    asked(sock)
    sock.sendall(b"HTTP/1.1 429 Too Many\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def is_older(sock: socket.socket, node: str) -> None:
    body = b'{"error": "the request can\'t be read: Object contains unknown field `newer`", "hint": ""}'
    asked(sock)
    head = "HTTP/1.1 400 Bad Request\r\nGenainet-Version: 0.0.7\r\nContent-Length: "
    sock.sendall(f"{head}{len(body)}\r\n\r\n".encode() + body)


def is_another_program(sock: socket.socket, node: str) -> None:
    asked(sock)
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n<html></html>\n")


def is_newer(sock: socket.socket, node: str) -> None:
    head(sock)
    send(sock, hello(node, wire.PROTOCOL + 1))


class Fleet:
    """Simulated agents, a thread and a pair of sockets each."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []
        self.dialled: list[str] = []

    def dial(self, node: str, talk: Talk) -> Callable[[], socket.socket]:
        def run(sock: socket.socket) -> None:
            with sock, contextlib.suppress(OSError):
                sock.settimeout(20)
                talk(sock, node)

        def dialler() -> socket.socket:
            self.dialled.append(node)
            ours, theirs = socket.socketpair()
            thread = threading.Thread(target=run, args=(theirs,), daemon=True)
            self.threads.append(thread)
            thread.start()
            return ours

        return dialler


def everything(streams: Streams, timeout: float = 30.0) -> list[Event]:
    events = []
    deadline = time.monotonic() + timeout
    while not streams.done:
        assert time.monotonic() < deadline, "the streams do not end"
        event = streams.poll(1.0)
        if event is not None:
            events.append(event)
    return events


def ends_early(sock: socket.socket, node: str) -> None:
    head(sock)
    send(sock, hello(node))
    sock.sendall(b"0\r\n\r\n")


def ends_within_a_record(sock: socket.socket, node: str) -> None:
    head(sock)
    send(sock, hello(node))
    sock.sendall(b'5\r\n{"kin\r\n0\r\n\r\n')


def speaks_for_another_node(sock: socket.socket, node: str) -> None:
    head(sock)
    send(sock, hello(node), Tick(node=f"not-{node}", t_ns=1))


def replaces_the_clusters_objects(sock: socket.socket, node: str) -> None:
    """None of them: no policy, no endpoint."""
    head(sock)
    send(sock, hello(node), ClusterChanged.of(ClusterSnapshot(objects=())))


def begins_with_something_else(sock: socket.socket, node: str) -> None:
    head(sock)
    send(sock, Bye(node=node, emitted=0, sent=0, lost=0, reason="x"))
    sock.sendall(b"0\r\n\r\n")
