"""A resolver as glibc's: search domains by ndots, A and AAAA from one socket, retries; only the standard library.

The pods' program looks names up with it, so that the lab's DNS traffic is that of an ordinary container.
Source: resolv.conf(5), glibc resolv/res_search.c and resolv/res_send.c, RFC 1035.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

TYPE_A, TYPE_AAAA = 1, 28
RCODE_SERVFAIL, RCODE_NXDOMAIN = 2, 3


@dataclass(frozen=True, slots=True)
class ResolverConfig:
    nameservers: tuple[str, ...]
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 5.0
    attempts: int = 2


def parse_resolv_conf(text: str) -> ResolverConfig:
    servers: list[str] = []
    search: tuple[str, ...] = ()
    numbers = {"ndots": 1, "timeout": 5, "attempts": 2}
    for line in text.splitlines():
        word, *values = line.split() or [""]
        if word == "nameserver":
            servers += values[:1]
        elif word == "search":
            search = tuple(values)
        elif word == "options":
            numbers |= {k: int(v) for k, _, v in (o.partition(":") for o in values) if k in numbers and v.isdigit()}
    return ResolverConfig(tuple(servers), search, numbers["ndots"], numbers["timeout"], numbers["attempts"])


def candidates(name: str, conf: ResolverConfig) -> list[str]:
    """The names that are asked for, in order, until one has an answer (resolv.conf(5), ndots)."""
    if name.endswith("."):
        return [name.rstrip(".")]
    searched = [f"{name}.{domain}" for domain in conf.search]
    return [name, *searched] if name.count(".") >= conf.ndots else [*searched, name]


def encode_query(number: int, name: str, kind: int) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", kind, 1)


def decode_answer(message: bytes) -> tuple[int, int, list[str]]:
    """(id, response code, addresses) of a response. Raises ValueError where it is cut short."""
    try:
        number, flags, questions, answers = struct.unpack_from("!4H", message)
        offset = 12
        for _ in range(questions):
            offset = _skip_name(message, offset) + 4
        addresses = []
        for _ in range(answers):
            offset = _skip_name(message, offset)
            kind, _, _, length = struct.unpack_from("!2HIH", message, offset)
            data = struct.unpack_from(f"!{length}s", message, offset + 10)[0]
            offset += 10 + length
            if kind in (TYPE_A, TYPE_AAAA) and len(data) in (4, 16):
                addresses.append(socket.inet_ntop(socket.AF_INET if len(data) == 4 else socket.AF_INET6, data))
        return number, flags & 0x000F, addresses
    except (struct.error, IndexError) as error:
        raise ValueError("the DNS message is cut short") from error


def _skip_name(message: bytes, offset: int) -> int:
    while True:
        length = message[offset]
        if length & 0xC0:
            return offset + 2
        offset += 1 + length
        if length == 0:
            return offset


class Resolver:
    """Looks names up from one pod. `make_socket` makes a UDP socket in the pod's namespace."""

    def __init__(self, conf: ResolverConfig, make_socket: Callable[[int], socket.socket]) -> None:
        self.conf = conf
        self._make_socket = make_socket

    async def resolve(self, name: str) -> list[str]:
        """The name's addresses, IPv4 first; empty where no server knows the name or none answers."""
        for candidate in candidates(name, self.conf):
            if addresses := await self._ask_all(candidate):
                return addresses
        return []

    async def _ask_all(self, name: str) -> list[str]:
        for _ in range(self.conf.attempts):
            for server in self.conf.nameservers:
                answer = await self._ask(server, name)
                if answer is not None:
                    return answer
        return []

    async def _ask(self, server: str, name: str) -> list[str] | None:
        """Addresses from one server; None where it does not answer both questions in time."""
        loop = asyncio.get_running_loop()
        sock = self._make_socket(socket.AF_INET6 if ":" in server else socket.AF_INET)
        waiting = {int.from_bytes(os.urandom(2)): TYPE_A, int.from_bytes(os.urandom(2)): TYPE_AAAA}
        answers: dict[int, list[str]] = {}
        try:
            sock.connect((server, 53))
            for number, kind in waiting.items():
                sock.send(encode_query(number, name, kind))
            async with asyncio.timeout(self.conf.timeout):
                while waiting:
                    number, code, addresses = decode_answer(await loop.sock_recv(sock, 4096))
                    if number in waiting:
                        answers[waiting.pop(number)] = addresses if code == 0 else []
        except (OSError, ValueError):  # TimeoutError is an OSError
            return None
        finally:
            sock.close()
        return answers.get(TYPE_A, []) + answers.get(TYPE_AAAA, [])
