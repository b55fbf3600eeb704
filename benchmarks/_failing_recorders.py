"""Recorders that fail, each in a way of its own, in place of servers that answer."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

Behaviour = Callable[[socket.socket], None]


def behave(behaviour: Behaviour, paths: Iterable[Path]) -> list[socket.socket]:
    """In place of the servers on these unix sockets, until what is returned is closed."""
    held = []
    for path in paths:
        path.unlink()
        if behaviour is has_gone:
            continue
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(str(path))
        if behaviour is not refuses:
            sock.listen(8)
            threading.Thread(target=_misbehave, args=(sock, behaviour), daemon=True).start()
        held.append(sock)
    return held


def _misbehave(listener: socket.socket, behaviour: Behaviour) -> None:
    with contextlib.suppress(OSError):
        while True:
            connected, _ = listener.accept()
            threading.Thread(target=_answer, args=(connected, behaviour), daemon=True).start()


def _answer(connected: socket.socket, behaviour: Behaviour) -> None:
    with connected, contextlib.suppress(OSError):
        connected.recv(65536)
        behaviour(connected)


def has_gone(_: socket.socket) -> None:
    """Not even a socket is there."""


def refuses(_: socket.socket) -> None:
    """Nothing listens."""


def is_busy(sock: socket.socket) -> None:
    body = b'{"error": "too many ask", "hint": "Ask later."}'
    sock.sendall(b"HTTP/1.1 429 Too Many\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))


def says_nothing(sock: socket.socket) -> None:
    sock.recv(1)


def breaks_off(sock: socket.socket) -> None:
    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + bytes(1000))


def trickles_its_head(sock: socket.socket) -> None:
    _trickle(sock, b"HTTP/1.1 200 OK\r\nX: ")


def trickles_its_blocks(sock: socket.socket) -> None:
    _trickle(sock, b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")


def _trickle(sock: socket.socket, head: bytes) -> None:
    sock.sendall(head)
    while True:
        sock.sendall(b"x")
        time.sleep(0.25)


WAYS: tuple[Behaviour, ...] = (
    has_gone,
    refuses,
    is_busy,
    says_nothing,
    breaks_off,
    trickles_its_head,
    trickles_its_blocks,
)
