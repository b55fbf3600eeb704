"""Messages of nfnetlink that exact tracing reads: nftables trace events and NFLOG packets.

Layout: linux/netfilter/nf_tables.h (enum nft_trace_attributes), linux/netfilter/nfnetlink_log.h. All numbers in
attributes are in network byte order; netlink's own headers are in host order.
"""

from __future__ import annotations

import os
import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.model.units import whole_number

NETLINK_NETFILTER = 12
SOL_NETLINK, ADD_MEMBERSHIP = 270, 1
GROUP_NFTRACE = 9
_TRACE_MESSAGE = 10 << 8 | 17  # NFNL_SUBSYS_NFTABLES, NFT_MSG_TRACE
_LOG_PACKET = 4 << 8  # NFNL_SUBSYS_ULOG, NFULNL_MSG_PACKET
_LOG_CONFIG = 4 << 8 | 1
_ERROR, _REQUEST, _ACK = 2, 1, 4  # NLMSG_ERROR, which an acknowledgement is too; NLM_F_REQUEST, NLM_F_ACK
_FAMILIES = {2: "ip", 10: "ip6", 1: "inet"}
_VERDICTS = {
    0: "drop",
    1: "accept",
    2: "stolen",
    3: "queue",
    4: "repeat",
    -1: "continue",
    -2: "break",
    -3: "jump",
    -4: "goto",
    -5: "return",
}
_KINDS = {1: "policy", 2: "return", 3: "rule"}


@dataclass(frozen=True, slots=True)
class TraceMessage:
    """One trace event. `family` is the table's; `handle` 0 where the event is not of a rule.

    nftables' own `trace` number is a hash that the next packet of the same buffer shares; `packet` tells them apart,
    and comes with the first event of each hook only (None after).
    """

    trace: int
    packet: int | None
    kind: str  # "rule", "return", "policy"
    family: str  # "ip", "ip6", "inet"
    table: str
    chain: str
    handle: int
    index: int | None  # TRACE tells the position itself
    verdict: str
    flow: FiveTuple | None
    mark: int | None


def messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type, payload) of the netlink messages in one datagram."""
    offset = 0
    while offset + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return
        yield kind, data[offset + 16 : offset + length]
        offset += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    values: dict[int, bytes] = {}
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4:
            break
        values[kind & 0x3FFF] = data[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return values


def _text(value: bytes | None) -> str:
    return (value or b"").rstrip(b"\0").decode(errors="replace")


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value, "big")


def decode_trace(data: bytes) -> Iterator[TraceMessage]:
    """Trace events in a datagram of the NFNLGRP_NFTRACE group."""
    for kind, payload in messages(data):
        if kind != _TRACE_MESSAGE or len(payload) < 4:
            continue
        values = attributes(payload[4:])
        verdict = attributes(values.get(5, b""))
        code = struct.unpack(">i", verdict[1])[0] if len(verdict.get(1, b"")) == 4 else None
        name = _VERDICTS.get(code, str(code)) if code is not None else ""
        target = _text(verdict.get(2))
        yield TraceMessage(
            trace=_number(values.get(6)) or 0,
            packet=_packet_id(values.get(8, b"") + values.get(9, b"")),
            kind=_KINDS.get(_number(values.get(4)) or 0, "unknown"),
            family=_FAMILIES.get(payload[0], str(payload[0])),
            table=_text(values.get(1)),
            chain=_text(values.get(2)),
            handle=_number(values.get(3)) or 0,
            index=None,
            verdict=f"{name} {target}".strip(),
            flow=flow_of(values.get(8, b"") + values.get(9, b"")),
            mark=_number(values.get(14)),
        )


def decode_log(data: bytes) -> Iterator[TraceMessage]:
    """TRACE records in a datagram of an NFLOG group: the prefix is "TRACE: table:chain:rule:number "."""
    for kind, payload in messages(data):
        values = attributes(payload[4:]) if kind == _LOG_PACKET else {}
        prefix = _text(values.get(10))
        if not prefix.startswith("TRACE: "):
            continue
        table, chain, what, number = (*prefix.removeprefix("TRACE: ").strip().split(":"), "", "", "")[:4]
        packet = values.get(9, b"")
        yield TraceMessage(
            trace=0,
            packet=_packet_id(packet),
            kind=what,
            family="ip6" if packet[:1] and packet[0] >> 4 == 6 else "ip",
            table=table,
            chain=chain,
            handle=0,
            index=(whole_number(number) or 0) if what == "rule" else 0,
            verdict="",
            flow=flow_of(packet),
            mark=_number(values.get(2)),
        )


def _packet_id(packet: bytes) -> int | None:
    """What NAT and routing leave alone in a packet, as a number: length, identification, TCP's numbers and flags."""
    if len(packet) < 20:
        return None
    v6 = packet[0] >> 4 == 6
    size = 40 if v6 else (packet[0] & 15) * 4
    number = packet[6] if v6 else packet[9]
    head = packet[4:6] if v6 else packet[2:6]
    return zlib.crc32(head + bytes([number]) + (packet[size + 4 : size + 14] if number == 6 else b""))


def flow_of(packet: bytes) -> FiveTuple | None:
    """The tuple of a packet that begins with its IP header; None where it is cut short. Ports are 0 without them."""
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        size, number = (packet[0] & 15) * 4, packet[9]
        src, dst = socket.inet_ntop(socket.AF_INET, packet[12:16]), socket.inet_ntop(socket.AF_INET, packet[16:20])
    elif len(packet) >= 40 and packet[0] >> 4 == 6:
        size, number = 40, packet[6]
        src, dst = socket.inet_ntop(socket.AF_INET6, packet[8:24]), socket.inet_ntop(socket.AF_INET6, packet[24:40])
    else:
        return None
    sport = dport = 0
    if number in (6, 17, 132) and len(packet) >= size + 4:
        sport, dport = struct.unpack_from("!HH", packet, size)
    return FiveTuple(canonical_ip(src), sport, canonical_ip(dst), dport, Protocol.from_number(number))


def bind_log_group(sock: socket.socket, group: int) -> None:
    """Gives an NFLOG group of its network namespace to the socket, with whole headers (128 bytes a packet).

    Raises OSError as the kernel refuses: PermissionError where another socket has the group, or where the process may not
    administer the network.
    """
    head = struct.pack("=BBH", 0, 0, socket.htons(group))
    bind = struct.pack("=HHB3x", 5, 1, 1)  # NFULA_CFG_CMD: NFULNL_CFG_CMD_BIND
    mode = struct.pack("=HH", 10, 2) + struct.pack(">IBB", 128, 2, 0) + b"\0\0"  # NFULNL_COPY_PACKET
    for body in (bind, mode):
        sock.send(struct.pack("=IHHII", 16 + 4 + len(body), _LOG_CONFIG, _REQUEST | _ACK, 0, 0) + head + body)
        _raise_refusal(sock.recv(1 << 16))


def _raise_refusal(data: bytes) -> None:
    for kind, payload in messages(data):
        if kind == _ERROR and len(payload) >= 4 and (code := -struct.unpack_from("=i", payload)[0]):
            raise OSError(code, os.strerror(code))
