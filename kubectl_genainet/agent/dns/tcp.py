"""DNS over TCP, read with a packet socket in the node's network namespace, as tcpdump would.

The bytes of a TCP segment lie in pages that a tracing program can't read; a packet socket can, and a filter in the kernel
(packet(7), socket(7) SO_ATTACH_FILTER) keeps all but DNS ports from it. It sees each pod's packets at the node's end of
the pod's veth. DNS over TCP is rare, so one record a message and device is affordable.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from kubectl_genainet.agent.dns.stream import Streams
from kubectl_genainet.agent.dns.wire import message_id
from kubectl_genainet.agent.node.netns import inside
from kubectl_genainet.agent.probes.dns import message_of
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import DnsMessageSeen, PacketSeen, Point, TcpFlags
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.wire import FilterEntry

_ETH_P_ALL = 3
_OUTGOING = 4  # PACKET_OUTGOING, include/uapi/linux/if_packet.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS = 26, 35
_BUFFER = 1 << 16
_RECEIVE_BUFFER = 4 << 20
_BATCH = 2000  # packets a poll: the other probes want their turn
_FIN, _SYN, _RST, _ACK = 1, 2, 4, 16
_ANY = "::"

# Classic BPF, include/uapi/linux/bpf_common.h
_LDB, _LDH, _LDXMSH, _LDH_IND = 0x30, 0x28, 0xB1, 0x48
_RSH, _JEQ, _JSET, _RET = 0x74, 0x15, 0x45, 0x06


def port_filter(ports: Iterable[int]) -> list[tuple[int, int, int, int]]:
    """A classic BPF program on packets that begin with the IP header: TCP from or to one of the ports, first fragments.

    Each instruction is (code, jump if true, jump if false, k).
    """
    ports = sorted(ports)[:64]
    program: list[tuple[int, str, str, int]] = []
    at: dict[str, int] = {}

    def add(code: int, k: int = 0, yes: str = "", no: str = "") -> None:
        program.append((code, yes, no, k))

    def compare(load: int, offset: int) -> None:
        add(load, offset)
        for port in ports:
            add(_JEQ, port, yes="take")

    add(_LDB, 0)
    add(_RSH, 4)
    add(_JEQ, 6, yes="six")
    add(_JEQ, 4, no="leave")
    add(_LDB, 9)
    add(_JEQ, socket.IPPROTO_TCP, no="leave")
    add(_LDH, 6)
    add(_JSET, 0x1FFF, yes="leave")
    add(_LDXMSH, 0)
    compare(_LDH_IND, 0)
    compare(_LDH_IND, 2)
    add(_JEQ, 1 << 31, no="leave", yes="leave")
    at["six"] = len(program)
    add(_LDB, 6)
    add(_JEQ, socket.IPPROTO_TCP, no="leave")
    compare(_LDH, 40)
    compare(_LDH, 42)
    at["leave"] = len(program)
    add(_RET, 0)
    at["take"] = len(program)
    add(_RET, 0x40000)

    def distance(here: int, label: str) -> int:
        return at[label] - here - 1 if label else 0

    return [(code, distance(i, yes), distance(i, no), k) for i, (code, yes, no, k) in enumerate(program)]


def _attach(sock: socket.socket, program: list[tuple[int, int, int, int]]) -> None:
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *instruction) for instruction in program))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("@HP", len(program), ctypes.addressof(code)))


@dataclass(frozen=True, slots=True)
class Segment:
    """A TCP segment; `payload` is what was captured of `length` bytes."""

    flow: FiveTuple
    tcp: TcpFlags
    payload: bytes
    length: int
    ip_id: int


def parse_segment(packet: bytes, size: int) -> Segment | None:
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
    return Segment(
        FiveTuple(src, sport, dst, dport, Protocol.TCP),
        TcpFlags(seq, ack, flags),
        packet[header:total],
        max(0, total - header),
        ip_id,
    )


class TcpTap:
    """Reads the node's DNS over TCP from `poll`. Raises GenainetError where the socket is refused."""

    def __init__(self, node: str, host_netns: str, options: Mapping[str, str]) -> None:
        self.node, self._options = node, options
        self._namespace = os.open(host_netns, os.O_RDONLY | os.O_CLOEXEC)
        self._inode = os.fstat(self._namespace).st_ino
        self._indexes: dict[str, int] = {}
        self._streams = Streams()
        self._buffer = bytearray(_BUFFER)
        self._ports: frozenset[int] = frozenset()
        self._wanted: frozenset[tuple[str, int]] = frozenset()
        self.dropped: int = 0
        try:
            self._socket = inside(self._namespace, self._open)
        except OSError as error:
            os.close(self._namespace)
            raise GenainetError(
                f"DNS over TCP is not read: a packet socket needs CAP_NET_RAW ({error.strerror})"
            ) from None

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_ALL))
        sock.setblocking(False)
        _attach(sock, [(_RET, 0, 0, 0)])
        with contextlib.suppress(BlockingIOError):  # what came before the filter
            while sock.recv(1):
                pass
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        return sock

    def configure(self, filters: Iterable[FilterEntry]) -> None:
        """Follows these from now on; the entries mean what they mean to the probe."""
        entries = [f for f in filters if f.protocol in ("", "TCP") and f.port]
        self._wanted = frozenset((f.ip, f.port) for f in entries)
        ports = frozenset(f.port for f in entries)
        if ports and ports != self._ports:
            self._ports = ports
            _attach(self._socket, port_filter(ports))

    def poll(self) -> Iterator[DnsMessageSeen | PacketSeen]:
        """What has come since the last time."""
        for _ in range(_BATCH):
            try:
                size, extra, _, sender = self._socket.recvmsg_into([self._buffer], 64, socket.MSG_TRUNC)
            except OSError as error:
                if error.errno in (errno.EAGAIN, errno.ENETDOWN, errno.EINTR):
                    return
                raise
            segment = parse_segment(bytes(self._buffer[: min(size, _BUFFER)]), size)
            if segment is not None and self._is_wanted(segment.flow):
                yield from self._segment(segment, sender, self._time(extra))

    def _is_wanted(self, flow: FiveTuple) -> bool:
        response = flow.sport in self._ports and flow.dport not in self._ports
        port = flow.sport if response else flow.dport
        client, server = (flow.dst, flow.src) if response else (flow.src, flow.dst)
        ends = [_ANY, client] if self._options.get("side") == "client" else [_ANY, client, server]
        return any((end, port) in self._wanted for end in ends)

    @staticmethod
    def _time(extra: list[tuple[int, int, bytes]]) -> int:
        """The packet's time on the monotonic clock; the kernel gives wall-clock time."""
        now = time.monotonic_ns()
        for level, kind, data in extra:
            if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS):
                seconds, nanoseconds = struct.unpack("@qq", data[:16])
                age: int = time.time_ns() - seconds * 1_000_000_000 - nanoseconds
                return now - max(0, age)
        return now

    def _segment(
        self, segment: Segment, sender: tuple[str, int, int, int, bytes], t_ns: int
    ) -> Iterator[DnsMessageSeen | PacketSeen]:
        device, point = sender[0], Point.TX if sender[2] == _OUTGOING else Point.RX
        ifindex, flow, tcp = self._index(device), segment.flow, segment.tcp
        key = (ifindex, point, flow)
        if tcp.flags & (_SYN | _RST):
            if tcp.syn:
                self._streams.syn(key, tcp.seq)
            yield PacketSeen(
                node=self.node,
                t_ns=t_ns,
                netns=self._inode,
                ifindex=ifindex,
                device=device,
                skb=0,
                flow=flow,
                point=point,
                length=segment.length,
                payload=segment.length,
                ip_id=segment.ip_id,
                tcp=tcp,
            )
        elif segment.length:
            for message in self._streams.feed(key, tcp.seq, segment.payload, segment.length):
                yield DnsMessageSeen(
                    node=self.node,
                    t_ns=t_ns,
                    netns=self._inode,
                    ifindex=ifindex,
                    point=point,
                    flow=flow,
                    id=message_id(message),
                    message=message_of(message, len(message), self._options),
                )
        if tcp.flags & (_FIN | _RST):
            self._streams.end(key)

    def _index(self, device: str) -> int:
        if device not in self._indexes:
            names = inside(self._namespace, socket.if_nameindex)
            self._indexes = {name: index for index, name in names}
        return self._indexes.get(device, 0)

    @property
    def lost(self) -> int:
        """Packets that the socket's buffer had no room for, and streams of which a part was not seen."""
        with contextlib.suppress(OSError):
            statistics: bytes = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self.dropped += int.from_bytes(statistics[4:], "little")  # reading resets the kernel's counter
        return self.dropped + self._streams.lost

    def close(self) -> None:
        self._socket.close()
        os.close(self._namespace)
