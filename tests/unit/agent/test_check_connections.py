"""A check connection asks a pod's process, which may answer anything: the result says so, and the node is still watched."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from kubectl_genainet.agent.session import check_connections
from kubectl_genainet.agent.session.check_connections import _open
from kubectl_genainet.wire import CheckRequest

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextlib.contextmanager
def answering(*parts: bytes, pause_s: float = 0.0) -> Iterator[CheckRequest]:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as caller, contextlib.suppress(OSError):
                caller.recv(65536)
                for part in parts:
                    caller.sendall(part)
                    time.sleep(pause_s)

        thread = threading.Thread(target=answer)
        thread.start()
        yield CheckRequest(from_ip="10.0.0.1", host="127.0.0.1", port=listener.getsockname()[1], path="/v1")
        thread.join(10)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", "http 200"),
        (CHUNKED + b"-5\r\nabc", "no HTTP answer (ValueError)"),
        (CHUNKED + b"zz\r\n", "no HTTP answer (IncompleteRead)"),
        (b"HTTP/1.1 \x1b[2J\r\n\r\n", "no HTTP answer (BadStatusLine)"),
        # http.client takes 100 headers; clickhouse-connect, where it is imported, makes that 10,000 for the whole process.
        (b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 20_000, "no HTTP answer (HTTPException)"),
        (b"", "no HTTP answer (RemoteDisconnected)"),
    ],
)
def test_whatever_a_pod_answers_is_an_outcome(answer: bytes, outcome: str) -> None:
    with answering(answer) as request:
        assert _open(request)[0] == outcome


@pytest.mark.parametrize("head", [b"", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_a_pod_that_drips_is_hung_up_on(head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps each single wait short."""
    monkeypatch.setattr(check_connections, "TIMEOUT_S", 0.5)
    begun = time.monotonic()
    with answering(head, *[b"x"] * 100, pause_s=0.1) as request:
        outcome, connect_ns, total_ns = _open(request)
    assert (outcome, total_ns) == ("timeout", None) and connect_ns is not None
    assert time.monotonic() - begun < 8


@pytest.mark.parametrize(("seconds", "outcome"), [(0.2, "timeout"), (0.0, "reset")])
def test_what_the_kernel_resets_after_the_time_is_over_is_a_timeout(
    seconds: float, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte that comes after a connection was hung up on is answered by a reset, which its reader may see."""
    monkeypatch.setattr(check_connections, "TIMEOUT_S", 0.1)

    def reset_late(_request: CheckRequest, _sock: socket.socket) -> str:
        time.sleep(seconds)
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    monkeypatch.setattr(check_connections, "_answer", reset_late)
    with answering(b"x") as request:
        assert _open(request)[0] == outcome
