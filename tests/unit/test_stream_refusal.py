"""An agent that refuses, at whatever length."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.stream import AgentConnection, ask_all


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


@pytest.mark.parametrize("status", [b"200 OK", b"500 No"])
def test_an_answer_that_is_none_of_http_fails_its_node_only(status: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    """A chunk of less than no bytes: an exception of its own in Python's client."""
    ours, theirs = socket.socketpair()

    def answer() -> None:
        with theirs:
            theirs.recv(65536)
            theirs.sendall(b"HTTP/1.1 %s\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc" % status)

    threading.Thread(target=answer).start()
    answer_of_a = ask_all({"a": lambda: ours}, "/v1/hello", within_s=20)["a"]
    assert isinstance(answer_of_a, GenainetError)
    assert "broke off" in answer_of_a.message or "refuses (500): its reason did not arrive" in answer_of_a.message
    assert "Traceback" not in capfd.readouterr().err


def test_a_refusal_before_the_request_was_read_is_the_agents_word() -> None:
    """The rest of the request finds the connection closed; what was answered is there to be read."""
    ours, theirs = socket.socketpair()

    def refuse() -> None:
        with theirs:
            theirs.recv(10)
            theirs.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 16\r\n\r\nnot with this ip")
            theirs.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=refuse).start()
    connection = AgentConnection("a", lambda: ours)
    with contextlib.closing(connection), pytest.raises(GenainetError, match=r"refuses \(403\): not with this ip"):
        connection.request("POST", "/v1/trace", b"x" * (8 << 20))
