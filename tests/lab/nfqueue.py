"""A netfilter queue that holds packets until so many are there, and then lets them all go at one moment.

Packets wait between the lookup of their connection and its confirmation, where those of one socket race for the same
entry: a queue makes a window of microseconds as long as one likes. Messages: include/uapi/linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator

from kubectl_genainet.lab.datapath import netns

_NETLINK_NETFILTER, _SUBSYSTEM = 12, 3 << 8
_PACKET, _VERDICT, _CONFIG = 0, 1, 2
_BIND, _COPY_META = 1, 1
_CFG_CMD, _CFG_PARAMS, _VERDICT_HDR, _PACKET_HDR = 1, 2, 2, 1
_ACCEPT = 1


def _attribute(kind: int, data: bytes) -> bytes:
    size = 4 + len(data)
    return struct.pack("=HH", size, kind) + data + b"\0" * (-size % 4)


class HoldingQueue:
    def __init__(self, number: int) -> None:
        self._number = number
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._socket.settimeout(5)
        self._send(_CONFIG, _attribute(_CFG_CMD, struct.pack("!BxH", _BIND, socket.AF_INET)))
        self._send(_CONFIG, _attribute(_CFG_PARAMS, struct.pack("!IB", 0, _COPY_META)))

    def _send(self, kind: int, attributes: bytes) -> None:
        body = struct.pack("=BB", socket.AF_UNSPEC, 0) + struct.pack("!H", self._number) + attributes
        self._socket.send(struct.pack("=IHHII", 16 + len(body), _SUBSYSTEM | kind, 1, 0, 0) + body)

    def hold(self, count: int) -> list[int]:
        """The next `count` packets' ids. Raises TimeoutError where they do not come."""
        held: list[int] = []
        while len(held) < count:
            data = self._socket.recv(65536)
            while len(data) >= 20:
                size, kind = struct.unpack_from("=IH", data)
                if kind == _SUBSYSTEM | _PACKET:
                    at = 20
                    while at < size:
                        length, attribute = struct.unpack_from("=HH", data, at)
                        if attribute == _PACKET_HDR:
                            held.append(struct.unpack_from("!I", data, at + 4)[0])
                        at += (length + 3) & ~3
                data = data[(size + 3) & ~3 :]
        return held

    def release(self, packets: list[int]) -> None:
        for packet in packets:
            self._send(_VERDICT, _attribute(_VERDICT_HDR, struct.pack("!II", _ACCEPT, packet)))

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def holding_queue(namespace: str, number: int) -> Iterator[HoldingQueue]:
    """A queue of the network namespace. A rule must send packets there: `-j NFQUEUE --queue-num NUMBER`."""
    with netns.inside(namespace):
        queue = HoldingQueue(number)
    try:
        yield queue
    finally:
        queue.close()
