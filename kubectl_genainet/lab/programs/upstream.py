"""The DNS server outside the lab's cluster: knows names under example.com, and answers after a known time."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any, cast

from kubectl_genainet.lab.datapath import netns
from kubectl_genainet.lab.programs.stub_resolver import RCODE_NXDOMAIN, TYPE_A, TYPE_AAAA

KNOWN_SUFFIX = b"\x07example\x03com\x00"
ADDRESSES = {
    TYPE_A: socket.inet_pton(socket.AF_INET, "203.0.113.10"),
    TYPE_AAAA: socket.inet_pton(socket.AF_INET6, "2001:db8::10"),
}


def answer(query: bytes) -> bytes | None:
    """The response to a query; None where it is not one. Answers have a TTL of 0, so nobody caches them."""
    if len(query) < 17 or query[2] & 0x80:
        return None
    number, flags, questions = struct.unpack_from("!3H", query)
    end = query.find(b"\0", 12) + 5
    if questions != 1 or end > len(query) or end < 17:
        return None
    question, kind = query[12:end], struct.unpack("!H", query[end - 4 : end - 2])[0]
    known = question[:-4].lower().endswith(KNOWN_SUFFIX)
    data = ADDRESSES.get(kind) if known else None
    flags = 0x8080 | (flags & 0x0100) | (0 if known else RCODE_NXDOMAIN)
    header = struct.pack("!6H", number, flags, 1, 1 if data else 0, 0, 0)
    record = b"\xc0\x0c" + struct.pack("!2HIH", kind, 1, 0, len(data)) + data if data else b""
    return header + question + record


class Upstream:
    """The server. `config`: netns, ips, delay_ms."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.delay_ms = 0

    async def start(self) -> None:
        loop = asyncio.get_running_loop()
        for ip in self.config["ips"]:
            with netns.inside(self.config["netns"]):
                sock = socket.socket(socket.AF_INET6 if ":" in ip else socket.AF_INET, socket.SOCK_DGRAM)
            sock.setblocking(False)
            sock.bind((ip, 53))
            await loop.create_datagram_endpoint(lambda: _Protocol(self), sock=sock)


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, server: Upstream) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: Any) -> None:
        response = answer(data)
        if response is not None:
            asyncio.get_running_loop().call_later(self._server.delay_ms / 1000, self._transport.sendto, response, addr)
