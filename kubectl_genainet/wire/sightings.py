"""Sightings of packets as the kernel wrote them (struct packet_event, probes/packet.bpf.c), many in one record: the node
neither reads nor spells them out one by one, which is most of what an event costs there."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator
from functools import lru_cache

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import PacketSeen, Point, Sightings, TcpFlags
from kubectl_genainet.model.packet import FiveTuple, Protocol

# struct tuple: saddr, daddr, sport, dport, proto
TUPLE = "16s16sHHB3x"
_OUTER = "16s16sHHBB2x"  # a tuple whose first byte of padding says that it is the socket's
# struct packet_event: t_ns, skb, tuple, outer, netns, ifindex, seq, ack, len, payload, sig, ip_id, kind, point,
# tcp_flags, icmp_type, icmp_code, state, icmp_rest, device, cpu, later
PACKET = struct.Struct(f"<QQ{TUPLE}{_OUTER}7IH6BI16sII")
assert PACKET.size == 160
KIND_AT = 126  # the byte that says what kind of event it is
SIGHTING = 1  # EVENT_PACKET
POINTS = (Point.RX, Point.TX, Point.DROP)
_MAPPED = b"\0" * 10 + b"\xff\xff"
_TCP = 6


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
    node = record.node
    for (
        t_ns,
        skb,
        src,
        dst,
        sport,
        dport,
        proto,
        outer_src,
        outer_dst,
        outer_sport,
        outer_dport,
        outer_proto,
        is_sockets,
        netns,
        ifindex,
        seq,
        ack,
        length,
        payload,
        sig,
        ip_id,
        _,
        point,
        flags,
        _,
        _,
        _,
        _,
        device,
        cpu,
        _,
    ) in PACKET.iter_unpack(record.data):
        outer = five_tuple(outer_src, outer_dst, outer_sport, outer_dport, outer_proto) if outer_proto else None
        yield PacketSeen(
            node=node,
            t_ns=t_ns,
            netns=netns,
            ifindex=ifindex,
            device=text(device),
            skb=skb,
            flow=five_tuple(src, dst, sport, dport, proto),
            length=length,
            payload=payload,
            ip_id=ip_id,
            sig=0 if proto == _TCP else sig,
            tcp=TcpFlags(seq, ack, flags) if proto == _TCP else None,
            tunnel=None if is_sockets else outer,
            asked=outer if is_sockets else None,
            cpu=cpu,
            point=POINTS[point % len(POINTS)],
        )
