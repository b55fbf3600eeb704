"""TCP segments as a packet socket gives them, and the filter in the kernel that lets only those through that are wanted.

The bytes of a segment lie in pages that a tracing program can't read; a packet socket can (packet(7)), and a classic BPF
program (socket(7), SO_ATTACH_FILTER) keeps all else from it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from kubectl_genainet.agent.node.netns import inside
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import Point, TcpFlags
from kubectl_genainet.model.packet import FiveTuple, Protocol

_OUTGOING = 4  # PACKET_OUTGOING, include/uapi/linux/if_packet.h
FIN, SYN, RST = 1, 2, 4
_ETH_P_ALL = 3
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 26, 35
_RECEIVE_BUFFER = 4 << 20
_MAX_PORTS = 64  # a jump reaches 255 instructions far
_ALL = 0x40000

# Classic BPF, include/uapi/linux/bpf_common.h
_LDB, _LDH, _LDXMSH, _LDH_IND, _LDB_IND, _LDW_IND, _LDX = 0x30, 0x28, 0xB1, 0x48, 0x50, 0x40, 0x01
_RSH, _AND, _ADD_X, _TAX, _JEQ, _JGT, _JSET, _RET = 0x74, 0x54, 0x0C, 0x07, 0x15, 0x25, 0x45, 0x06

_MAX_FRAME_BYTES = 16384  # of HTTP/2, unless a peer raises it
_FRAMES_OF_THE_CONNECTION = (4, 6, 8)  # SETTINGS, PING, WINDOW_UPDATE: which may be of a stream too
_FRAMES_OF_A_STREAM = (0, 1, 3, 9)  # DATA, HEADERS, RST_STREAM, CONTINUATION

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k


class _Program:
    """A classic BPF program that is being written. A jump names a label that may come later; "" is the next instruction."""

    def __init__(self) -> None:
        self._lines: list[tuple[int, str, str, int]] = []
        self._labels: dict[str, int] = {}

    def add(self, code: int, k: int = 0, yes: str = "", no: str = "") -> None:
        self._lines.append((code, yes, no, k))

    def any_of(self, load: int, offset: int, values: Iterable[int], yes: str) -> None:
        """Loads a field, and jumps where it has one of the values."""
        self.add(load, offset)
        for value in values:
            self.add(_JEQ, value, yes=yes)

    def label(self, name: str) -> None:
        """The next instruction has that name."""
        self._labels[name] = len(self._lines)

    def assembled(self) -> list[Instruction]:
        return [(code, self._jump(i, yes), self._jump(i, no), k) for i, (code, yes, no, k) in enumerate(self._lines)]

    def _jump(self, here: int, label: str) -> int:
        return self._labels[label] - here - 1 if label else 0


def segment_filter(
    ports: Iterable[int], begins: Iterable[bytes] = (), most: int = _ALL, *, frames: bool = False
) -> list[Instruction]:
    """A program on packets that begin with the IP header: TCP from or to one of the ports, first fragments, at most so many
    bytes of each. With `begins`, only segments whose data begins with one of these four bytes; with `frames`, those to a port
    too that begin as a client's frame of HTTP/2 does (RFC 9113, 4.1)."""
    ports, first_words = sorted(ports)[:_MAX_PORTS], [int.from_bytes(word[:4], "big") for word in begins]
    program = _Program()
    _match_headers(program)
    program.label("ports")
    program.any_of(_LDH_IND, 2, ports, "to" if first_words else "take")
    program.any_of(_LDH_IND, 0, ports, "from" if first_words else "take")
    program.label("leave")
    program.add(_RET, 0)
    if first_words:
        program.label("to")
        _match_data(program, first_words)
        if frames:
            _match_frame(program)
        program.add(_RET, 0)
        program.label("from")
        _match_data(program, first_words)
        program.add(_RET, 0)
    program.label("take")
    program.add(_RET, most)
    return program.assembled()


def _match_headers(program: _Program) -> None:
    """The IP header, with X as its length; another packet than TCP is left."""
    program.add(_LDB, 0)
    program.add(_RSH, 4)
    program.add(_JEQ, 6, yes="six")
    program.add(_JEQ, 4, no="leave")
    program.add(_LDB, 9)
    program.add(_JEQ, socket.IPPROTO_TCP, no="leave")
    program.add(_LDH, 6)
    program.add(_JSET, 0x1FFF, yes="leave")
    program.add(_LDXMSH, 0)
    program.add(_JEQ, 1 << 31, yes="ports", no="ports")
    program.label("six")
    program.add(_LDB, 6)
    program.add(_JEQ, socket.IPPROTO_TCP, no="leave")
    program.add(_LDX, 40)


def _match_data(program: _Program, first_words: list[int]) -> None:
    """The first four bytes after the TCP header, whose length in words is the upper half of its thirteenth byte; X is where
    they stand."""
    program.add(_LDB_IND, 12)
    program.add(_AND, 0xF0)
    program.add(_RSH, 2)
    program.add(_ADD_X)
    program.add(_TAX)
    program.any_of(_LDW_IND, 0, first_words, "take")


def _match_frame(program: _Program) -> None:
    """Length, type, flags and stream of a frame that clients send, roughly: what is taken is looked at again. The first four
    bytes are loaded."""
    program.add(_RSH, 8)
    program.add(_JGT, _MAX_FRAME_BYTES, yes="none")
    program.any_of(_LDB_IND, 3, _FRAMES_OF_THE_CONNECTION, "flags")
    for kind in _FRAMES_OF_A_STREAM:
        program.add(_JEQ, kind, yes="stream")
    program.add(_JEQ, 1 << 31, yes="none", no="none")
    program.label("stream")
    program.add(_LDW_IND, 5)
    program.add(_JSET, 1, no="none")
    program.label("flags")
    program.add(_LDB_IND, 5)
    program.add(_JSET, 0x80, yes="none")
    program.add(_LDB_IND, 4)
    program.add(_JSET, 0xD2, no="take")  # flags that no frame has
    program.label("none")


def attach_filter(sock: socket.socket, program: list[Instruction]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


def _packet_socket() -> socket.socket:
    """A packet socket in the caller's network namespace that lets nothing through yet."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
    sock.setblocking(False)
    attach_filter(sock, [(_RET, 0, 0, 0)])
    with contextlib.suppress(BlockingIOError):  # what came before the filter
        while sock.recv(1):
            pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    return sock


def _refused_by(sock: socket.socket) -> int:
    """How many packets the socket's buffer had no room for since this was last asked."""
    with contextlib.suppress(OSError):
        statistics: bytes = sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int.from_bytes(statistics[4:], "little")  # reading resets the kernel's counter
    return 0


def _arrival_ns(extra: list[tuple[int, int, bytes]]) -> int:
    """A packet's time on the monotonic clock; the kernel gives wall-clock time."""
    now = time.monotonic_ns()
    for level, kind, data in extra:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
            seconds, nanoseconds = struct.unpack("@qq", data[:16])
            age: int = time.time_ns() - seconds * 1_000_000_000 - nanoseconds
            return now - max(0, age)
    return now


@dataclass(frozen=True, slots=True)
class TcpSegment:
    """A TCP segment; `payload` is what was captured of `length` bytes."""

    flow: FiveTuple
    tcp: TcpFlags
    payload: bytes
    length: int
    ip_id: int


def parse_segment(packet: bytes, size: int) -> TcpSegment | None:
    """A packet of `size` bytes, from its IP header on; None where it is no TCP segment that can be read."""
    try:
        if packet[0] >> 4 == 4:
            start, protocol = (packet[0] & 15) * 4, packet[9]
            total = int.from_bytes(packet[2:4], "big") or size
            src, dst = socket.inet_ntop(socket.AF_INET, packet[12:16]), socket.inet_ntop(socket.AF_INET, packet[16:20])
            ip_id = int.from_bytes(packet[4:6], "big")
        else:
            start, protocol = 40, packet[6]
            total = int.from_bytes(packet[4:6], "big") + 40 if packet[4:6] != b"\0\0" else size
            src, dst = socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40])
            ip_id = 0
        if protocol != socket.IPPROTO_TCP:
            return None
        sport, dport, seq, ack, offset, flags = struct.unpack_from("!HHIIBB", packet, start)
    except (IndexError, ValueError, struct.error):
        return None
    header = start + (offset >> 4) * 4
    return TcpSegment(
        FiveTuple(src, sport, dst, dport, Protocol.TCP),
        TcpFlags(seq, ack, flags),
        packet[header:total],
        max(0, total - header),
        ip_id,
    )


class Arrival(NamedTuple):
    """A segment as it passed a device of the namespace."""

    segment: TcpSegment
    device: str
    point: Point
    t_ns: int


class SegmentSocket:
    """A packet socket in a network namespace, which nothing reaches until `filter` lets it through.

    Raises GenainetError, which says that `what` is not read, where the socket is refused.
    """

    def __init__(self, what: str, path: str, most: int) -> None:
        self._namespace = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.inode = os.fstat(self._namespace).st_ino
        self._buffer = bytearray(most)
        self._refused = 0
        try:
            self._socket = inside(self._namespace, _packet_socket)
        except OSError as error:
            os.close(self._namespace)
            raise GenainetError(f"{what} is not read: a packet socket needs CAP_NET_RAW ({error.strerror})") from None

    def filter(self, program: list[Instruction]) -> None:
        """Lets through from now on what the program does."""
        attach_filter(self._socket, program)

    def arrivals(self, batch: int) -> Iterator[Arrival]:
        """The TCP segments among the next packets, at most so many, that have come since the last time."""
        for _ in range(batch):
            try:
                size, extra, _, sender = self._socket.recvmsg_into([self._buffer], 64, socket.MSG_TRUNC)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENETDOWN, errno.EINTR):
                    return
                raise
            segment = parse_segment(bytes(self._buffer[: min(size, len(self._buffer))]), size)
            if segment is not None:
                point = Point.TX if sender[2] == _OUTGOING else Point.RX
                yield Arrival(segment, sender[0], point, _arrival_ns(extra))

    def device_indexes(self) -> dict[str, int]:
        return {name: index for index, name in inside(self._namespace, socket.if_nameindex)}

    @property
    def refused(self) -> int:
        """Packets that the socket's buffer had no room for."""
        self._refused += _refused_by(self._socket)
        return self._refused

    def close(self) -> None:
        self._socket.close()
        os.close(self._namespace)
