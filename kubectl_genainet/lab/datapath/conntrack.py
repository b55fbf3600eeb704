"""Fills the connection tracking table of the calling thread's network namespace, and empties it of what was put in.

Raw ctnetlink, many entries a message: a quarter of a million of them take seconds, not minutes. Numbers in network
byte order. Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h, net/netfilter/nf_conntrack_netlink.c.
"""

from __future__ import annotations

import shutil
import socket
import struct
import subprocess
from pathlib import Path

from kubectl_genainet.errors import GenainetError

MARK = 0x6C616200  # "lab": the entries that are the incident's
_NETLINK_NETFILTER = 12
_SUBSYS_CTNETLINK, _MSG_NEW, _MSG_DELETE = 1, 0, 2
_REQUEST, _ACK, _CREATE = 0x1, 0x4, 0x400
_NLMSG_ERROR = 2
_NESTED = 0x8000
_TUPLE_ORIG, _TUPLE_REPLY, _STATUS, _PROTOINFO, _TIMEOUT, _CTA_MARK, _MARK_MASK = 1, 2, 3, 4, 7, 8, 21
_ESTABLISHED = 3  # enum tcp_conntrack
_CONFIRMED_ASSURED = 0x2 | 0x4 | 0x8  # IPS_SEEN_REPLY, IPS_ASSURED (not evicted early), IPS_CONFIRMED
_BATCH = 400
_FIRST_PORT = 0x5AA5  # nothing else in an entry looks like it
_ENOMEM = 12
_SOURCES, _DESTINATION = 0xC6120000, 0xC6130001  # 198.18.0.0/16 and 198.19.0.1, for benchmarks only (RFC 2544)


def _attribute(kind: int, *content: bytes) -> bytes:
    data = b"".join(content)
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def _nest(kind: int, *content: bytes) -> bytes:
    return _attribute(kind | _NESTED, *content)


def _tuple(kind: int, source: int, destination: int, sport: int, dport: int) -> bytes:
    addresses = _nest(1, _attribute(1, struct.pack("!I", source)), _attribute(2, struct.pack("!I", destination)))
    ports = _nest(
        2,
        _attribute(1, bytes([socket.IPPROTO_TCP])),
        _attribute(2, struct.pack("!H", sport)),
        _attribute(3, struct.pack("!H", dport)),
    )
    return _nest(kind, addresses, ports)


def _message(kind: int, flags: int, *attributes: bytes) -> bytes:
    body = struct.pack("=BBH", socket.AF_INET, 0, 0) + b"".join(attributes)
    return struct.pack("=IHHII", 16 + len(body), _SUBSYS_CTNETLINK << 8 | kind, _REQUEST | flags, 0, 0) + body


def _address_and_port(number: int) -> tuple[int, int]:
    return _SOURCES + number // 40000, _FIRST_PORT + number % 40000


def _entry(number: int) -> bytes:
    source, sport = _address_and_port(number)
    return _message(
        _MSG_NEW,
        _CREATE,
        _tuple(_TUPLE_ORIG, source, _DESTINATION, sport, 443),
        _tuple(_TUPLE_REPLY, _DESTINATION, source, 443, sport),
        _attribute(_STATUS, struct.pack("!I", _CONFIRMED_ASSURED)),
        _attribute(_TIMEOUT, struct.pack("!I", 432000)),
        _attribute(_CTA_MARK, struct.pack("!I", MARK)),
        _nest(_PROTOINFO, _nest(1, _attribute(1, bytes([_ESTABLISHED])))),
    )


_ENTRY_SIZE = len(_entry(0))
# Where an entry's own address and port stand, once in each direction's tuple.
_ADDRESSES = [i for i in range(_ENTRY_SIZE) if _entry(0)[i : i + 4] == struct.pack("!I", _SOURCES)]
_PORTS = [i for i in range(_ENTRY_SIZE) if _entry(0)[i : i + 2] == struct.pack("!H", _FIRST_PORT)]


def _renumber(batch: bytearray, first: int) -> None:
    """Turns the entries of a batch into those from number `first` on, which is four times as quick as new ones."""
    for number in range(_BATCH):
        start = number * _ENTRY_SIZE
        address, port = _address_and_port(first + number)
        for offset in _ADDRESSES:
            struct.pack_into("!I", batch, start + offset, address)
        for offset in _PORTS:
            struct.pack_into("!H", batch, start + offset, port)


def _sysctl(name: str) -> int:
    return int(Path("/proc/sys/net/netfilter", name).read_text())


def fill_table() -> int:
    """Adds established connections until the table takes no more; returns how many. Raises GenainetError on failure.

    Entries of connections that are over are removed first: as they ran out, they would make room for new ones.
    """
    if shutil.which("conntrack") is None:
        raise GenainetError("this incident needs the tool conntrack", "On Debian: apt-get install conntrack")
    for over in (["-p", "tcp", "--state", "TIME_WAIT"], ["-p", "tcp", "--state", "CLOSE"], ["-p", "udp"]):
        subprocess.run(["conntrack", "-D", *over], capture_output=True, check=False)
    limit = _sysctl("nf_conntrack_max")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        batch = bytearray(_entry(0) * _BATCH)
        for first in range(0, limit + _BATCH, _BATCH):
            _renumber(batch, first)
            sock.send(batch)
            refused, error = _errors(sock)
            if error not in (0, _ENOMEM):
                raise GenainetError(f"the kernel refuses connection tracking entries: error {error}")
            if refused:
                return first + _BATCH - refused
    raise GenainetError(f"the connection tracking table did not fill up at its limit of {limit}")


def _errors(sock: socket.socket) -> tuple[int, int]:
    """(number of entries refused, error number of the last)."""
    refused = error = 0
    while True:
        try:
            data = sock.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return refused, error
        while data:
            length, kind = struct.unpack_from("=IH", data)
            if kind == _NLMSG_ERROR and (number := -struct.unpack_from("=i", data, 16)[0]):
                refused, error = refused + 1, number
            data = data[(length + 3) & ~3 :]


def delete_marked() -> None:
    """Removes the entries that `fill_table` added, and no other."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        mark, mask = struct.pack("!I", MARK), struct.pack("!I", 0xFFFFFFFF)
        sock.send(_message(_MSG_DELETE, _ACK, _attribute(_CTA_MARK, mark), _attribute(_MARK_MASK, mask)))
        error = -struct.unpack_from("=i", sock.recv(1 << 16), 16)[0]
        if error:
            raise GenainetError(f"the kernel does not remove the connection tracking entries: error {error}")


def end_connections() -> None:
    """Has the kernel reset the TCP connections of the calling thread's network namespace; they are opened anew."""
    which = ("state", "connected", "exclude", "time-wait")
    subprocess.run(["ss", "--kill", "--tcp", *which], capture_output=True, check=False)
