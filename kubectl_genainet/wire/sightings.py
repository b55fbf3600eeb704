"""Sightings of packets as the kernel wrote them (struct packet_event, probes/packet.bpf.c), many in one record: the node
neither reads nor spells them out one by one, which is most of what an event costs there."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import PacketSeen, Point, Sightings, TcpFlags
from kubectl_genainet.model.packet import FiveTuple, Protocol

# struct tuple: saddr, daddr, sport, dport, proto
TUPLE = "16s16sHHB3x"
_OUTER = "16s16sHHBB2x"  # a tuple whose first byte of padding says that it is the socket's
PACKET = struct.Struct(f"<QQ{TUPLE}{_OUTER}7IH6BI16sIHBx")  # struct packet_event
assert PACKET.size == 160
KIND_AT = 126  # the byte that says what kind of event it is
SIGHTING = 1  # EVENT_PACKET
POINTS = (Point.RX, Point.TX, Point.DROP)
_MAPPED = b"\0" * 10 + b"\xff\xff"
_TCP = 6


class PacketEvent(NamedTuple):
    """The fields of a struct packet_event, in its order."""

    t_ns: int
    skb: int
    src: bytes
    dst: bytes
    sport: int
    dport: int
    proto: int
    outer_src: bytes  # of a tunnel, of the socket that asked, or of an ICMP error
    outer_dst: bytes
    outer_sport: int
    outer_dport: int
    outer_proto: int
    is_sockets: int
    netns: int
    ifindex: int
    seq: int
    ack: int
    length: int
    payload: int
    sig: int
    ip_id: int
    kind: int
    point: int
    tcp_flags: int
    icmp_type: int
    icmp_code: int
    state: int
    icmp_rest: int
    device: bytes
    cpu: int
    later: int
    ttl: int

    @property
    def flow(self) -> FiveTuple:
        return five_tuple(self.src, self.dst, self.sport, self.dport, self.proto)

    @property
    def where(self) -> Point:
        return POINTS[self.point % len(POINTS)]

    def seen(self, node: str) -> PacketSeen:
        outer = None
        if self.outer_proto:
            outer = five_tuple(self.outer_src, self.outer_dst, self.outer_sport, self.outer_dport, self.outer_proto)
        tcp = self.proto == _TCP
        return PacketSeen(
            node=node,
            t_ns=self.t_ns,
            netns=self.netns,
            ifindex=self.ifindex,
            device=text(self.device),
            skb=self.skb,
            flow=self.flow,
            length=self.length,
            payload=self.payload,
            ip_id=self.ip_id,
            sig=0 if tcp else self.sig,
            tcp=TcpFlags(self.seq, self.ack, self.tcp_flags) if tcp else None,
            tunnel=None if self.is_sockets else outer,
            asked=outer if self.is_sockets else None,
            cpu=self.cpu,
            ttl=self.ttl,
            point=self.where,
        )


def packet_event(data: bytes) -> PacketEvent:
    """The struct packet_event that a record of the ring buffer begins with."""
    return PacketEvent._make(PACKET.unpack_from(data))


@lru_cache(maxsize=65536)
def address(raw: bytes) -> str:
    """16 bytes in network order as text; IPv4-mapped addresses as IPv4."""
    if raw.startswith(_MAPPED):
        return f"{raw[12]}.{raw[13]}.{raw[14]}.{raw[15]}"
    return str(ipaddress.IPv6Address(raw))


@lru_cache(maxsize=65536)
def five_tuple(src: bytes, dst: bytes, sport: int, dport: int, proto: int) -> FiveTuple:
    """A `struct tuple` of the probes (16-byte addresses, ports in host order)."""
    return FiveTuple(address(src), sport, address(dst), dport, Protocol.from_number(proto))


@lru_cache(maxsize=4096)
def text(raw: bytes) -> str:
    """A C string of the kernel (a device name); bytes that are no text are kept visible."""
    return raw.partition(b"\0")[0].decode("ascii", "backslashreplace")


def is_sighting(data: bytes) -> bool:
    """Whether a record of the packet probe's ring buffer may travel as it is."""
    return len(data) == PACKET.size and data[KIND_AT] == SIGHTING


def unpack(record: Sightings) -> Iterator[PacketSeen]:
    """The sightings of a record, in its order. Raises GenainetError where it holds anything else."""
    if len(record.data) % PACKET.size or any(kind != SIGHTING for kind in record.data[KIND_AT :: PACKET.size]):
        raise GenainetError(f"node {record.node} sent sightings that this version can't read")
    for values in PACKET.iter_unpack(record.data):
        yield PacketEvent._make(values).seen(record.node)
