"""What an API server sends through a port-forward is bounded, whatever its frames say."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_genainet.kube.agents.portforward import dial_pod
from kubectl_genainet.kube.client import connect
from tests.unit.kube.test_kube_client import write_config

MAGIC = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455
TEXT_CONTINUES, CONTINUATION, BINARY_ENDS = 0x02, 0x00, 0x82


@contextlib.contextmanager
def api_server(*frames: bytes, again: bytes = b"") -> Iterator[str]:
    """Takes one port-forward and sends the frames, then the last over and over; gives its address."""

    def serve() -> None:
        with contextlib.suppress(OSError), listener.accept()[0] as caller:
            request = b""
            while b"\r\n\r\n" not in request:
                request += caller.recv(65536)
            (key,) = [
                line[18:].strip() for line in request.decode().splitlines() if line.startswith("Sec-WebSocket-Key")
            ]
            accepted = base64.b64encode(hashlib.sha1((key + MAGIC).encode()).digest()).decode()
            caller.sendall(
                f"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accepted}\r\n"
                "Sec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n".encode()
            )
            for frame in frames:
                caller.sendall(frame)
            for _ in range(4000 if again else 0):
                caller.sendall(again)
            caller.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    thread.join(20)


def frame(first: int, data: bytes, length: int | None = None) -> bytes:
    return struct.pack("!BBQ", first, 127, len(data) if length is None else length) + data


def test_what_an_api_server_sends_arrives(tmp_path: Path) -> None:
    with api_server(frame(BINARY_ENDS, b"\0\1\2"), frame(BINARY_ENDS, b"\0" + b"x" * 32_000)) as url:
        client = connect(kubeconfig=write_config(tmp_path / "config", url), timeout_s=5)
        with dial_pod(client, "genainet", "agent", 9914) as caller:
            caller.settimeout(20)
            received = b""
            while len(received) < 32_000:
                received += caller.recv(65536)
    assert received == b"x" * 32_000


@pytest.mark.parametrize(
    ("frames", "again"),
    [
        ((frame(BINARY_ENDS, b"\0\1\2", length=1 << 40),), b"x" * 65536),
        ((frame(TEXT_CONTINUES, b"\0\1\2"),), frame(CONTINUATION, b"x" * 65536)),
    ],
    ids=["a frame of a terabyte", "a message of frames without end"],
)
def test_a_message_without_end_ends_the_connection(tmp_path: Path, frames: tuple[bytes, ...], again: bytes) -> None:
    with api_server(*frames, again=again) as url:
        client = connect(kubeconfig=write_config(tmp_path / "config", url), timeout_s=5)
        with dial_pod(client, "genainet", "agent", 9914) as caller:
            caller.settimeout(20)
            assert caller.recv(10) == b""
            assert caller.reason == "the API server sent a message of more than 1,048,576 bytes"
