"""Who uses which RDMA device: the queue pairs, by process, as the `rdma` netlink family lists them.

Source: include/uapi/rdma/rdma_netlink.h; drivers/infiniband/core/nldev.c.
"""

from __future__ import annotations

import socket
import struct
from collections import Counter
from collections.abc import Iterator

NETLINK_RDMA = 20
_NLDEV = 5  # RDMA_NL_NLDEV
_GET, _SYS_GET, _QP_GET = 1, 6, 10  # RDMA_NLDEV_CMD_*
_INDEX, _NAME, _QP, _QP_ENTRY, _PID = 1, 2, 19, 20, 28  # RDMA_NLDEV_ATTR_*
_SYS_NETNS_MODE = 66  # RDMA_NLDEV_SYS_ATTR_NETNS_MODE
_HEADER = struct.Struct("=IHHII")
_REQUEST, _DUMP = 0x001, 0x300
_ERROR, _DONE = 2, 3
_TYPE = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_WAIT_S = 2.0
MAX_MESSAGES = 2_000_000 // 64


def request(command: int, *attributes: bytes, dump: bool) -> bytes:
    body = b"".join(attributes)
    flags = _REQUEST | (_DUMP if dump else 0)
    return _HEADER.pack(_HEADER.size + len(body), _NLDEV << 10 | command, flags, 1, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each; ends where what follows is none."""
    offset = 0
    while offset + 4 <= len(data):
        size, kind = struct.unpack_from("=HH", data, offset)
        if size < 4 or offset + size > len(data):
            return
        yield kind & _TYPE, data[offset + 4 : offset + size]
        offset += -(-size // 4) * 4


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, body) of each netlink message of a datagram."""
    offset = 0
    while offset + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, offset)
        if size < _HEADER.size or offset + size > len(data):
            return
        yield kind, data[offset + _HEADER.size : offset + size]
        offset += -(-size // 4) * 4


def _word(value: bytes) -> int:
    return int.from_bytes(value[:4], "little")


def device_of(body: bytes) -> tuple[int, str] | None:
    """(index, name) of a device."""
    values = dict(attributes(body))
    if _INDEX not in values or _NAME not in values:
        return None
    return _word(values[_INDEX]), values[_NAME].rstrip(b"\0").decode("ascii", "backslashreplace")[:63]


def queue_pairs_of(body: bytes) -> Counter[int]:
    """How many queue pairs each process holds; those of the kernel itself are left out."""
    pids: Counter[int] = Counter()
    for kind, table in attributes(body):
        if kind != _QP:
            continue
        for inner, entry in attributes(table):
            pid = dict(attributes(entry)).get(_PID) if inner == _QP_ENTRY else None
            if pid:
                pids[_word(pid)] += 1
    return pids


def netns_mode_of(body: bytes) -> str:
    mode = dict(attributes(body)).get(_SYS_NETNS_MODE)
    return "" if not mode else "shared" if mode[0] else "exclusive"


class RdmaNetlink:
    """A socket of the family. Raises OSError where the kernel has none (CONFIG_INFINIBAND). Use as a context manager."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_RDMA)
        self._socket.settimeout(_WAIT_S)

    def __enter__(self) -> RdmaNetlink:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def _answers(self, data: bytes, *, dump: bool) -> Iterator[bytes]:
        self._socket.send(data)
        for _ in range(MAX_MESSAGES):
            for kind, body in messages(self._socket.recv(1 << 16)):
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    number = -int.from_bytes(body[:4], "little", signed=True)
                    if number:
                        raise OSError(number, "rdma netlink refuses")
                    return
                yield body
            if not dump:
                return

    def netns_mode(self) -> str:
        return next(map(netns_mode_of, self._answers(request(_SYS_GET, dump=False), dump=False)), "")

    def devices(self) -> dict[str, int]:
        """Index by name."""
        devices = map(device_of, self._answers(request(_GET, dump=True), dump=True))
        return {device[1]: device[0] for device in devices if device is not None}

    def queue_pairs(self, index: int) -> Counter[int]:
        """By process, as its number is in the caller's PID namespace."""
        pids: Counter[int] = Counter()
        asked = request(_QP_GET, attribute(_INDEX, struct.pack("=I", index)), dump=True)
        for body in self._answers(asked, dump=True):
            pids += queue_pairs_of(body)
        return pids
