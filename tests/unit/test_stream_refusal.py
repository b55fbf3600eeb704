"""An agent that refuses, at whatever length."""

from __future__ import annotations

import socket
import threading

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.stream import ask_all


def test_a_refusal_without_end_is_read_and_repeated_to_a_bound() -> None:
    """It is not over when 64 KB of it are there: who goes on sending makes nobody wait."""
    ours, theirs = socket.socketpair()

    def refuse() -> None:
        theirs.recv(65536)
        theirs.sendall(b"HTTP/1.1 500 No\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 70_000)

    threading.Thread(target=refuse, daemon=True).start()
    with theirs:
        answer = ask_all({"a": lambda: ours}, "/v1/hello")["a"]
    assert isinstance(answer, GenainetError) and "refuses (500): xxx" in answer.message and len(answer.message) < 400
