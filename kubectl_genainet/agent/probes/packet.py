"""The packet probe (probes/packet.bpf.c): where each matching packet was seen, and where it was dropped."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterator, Sequence
from functools import lru_cache

from kubectl_genainet.agent.bpf.headers import SUBSYSTEMS
from kubectl_genainet.agent.probes.declare import (
    COMMON_VIEWS,
    SKB_HEAD,
    SKB_PLACE,
    Attachment,
    DecodeContext,
    Maps,
    Probe,
)
from kubectl_genainet.model.events import (
    Event,
    FlowCounters,
    IcmpError,
    PacketDropped,
    PacketSeen,
    Point,
    TcpFlags,
    TcpRetransmit,
)
from kubectl_genainet.model.packet import FiveTuple, Protocol

# struct tuple: saddr, daddr, sport, dport, proto
TUPLE = "16s16sHHB3x"
# struct packet_event: t_ns, skb, tuple, outer, netns, ifindex, seq, ack, len, payload, sig, ip_id, kind, point,
# tcp_flags, icmp_type, icmp_code, state, icmp_rest, device, cpu
_PACKET = struct.Struct(f"<QQ{TUPLE}{TUPLE}7IH6BI16sI4x")
assert _PACKET.size == 160
# struct drop_event after its packet_event: location, reason, depth, stack
_DROP = struct.Struct("<QII20Q")
# struct flow_key (the point stands in the tuple's padding), struct flow
FLOW_KEY = struct.Struct("<16s16sHHBB2xQ")
FLOW = struct.Struct("<QQ4I16s32I")

_POINTS = (Point.RX, Point.TX, Point.DROP)
_MAPPED = b"\0" * 10 + b"\xff\xff"

# TCP states: include/net/tcp_states.h (part of the kernel's interface to user space, through inet_diag)
TCP_STATES = (
    "",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)

# The function that runs a netfilter hook, as it stands in a stack below nf_hook_slow (net/ipv4, net/ipv6).
_HOOKS = {
    **dict.fromkeys(("ip_rcv", "ip_list_rcv", "ip_sublist_rcv", "ipv6_rcv", "ipv6_list_rcv"), "PRE_ROUTING"),
    **dict.fromkeys(("ip_local_deliver", "ip6_input"), "INPUT"),
    **dict.fromkeys(("ip_forward", "ip6_forward"), "FORWARD"),
    **dict.fromkeys(("__ip_local_out", "__ip6_local_out", "ip6_xmit", "raw_sendmsg", "rawv6_sendmsg"), "OUTPUT"),
    **dict.fromkeys(("ip_output", "ip_mc_output", "ip6_output"), "POST_ROUTING"),
}


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


def hook_of(stack: Sequence[str]) -> str:
    """The netfilter hook that a drop's stack was in, or "" where it was in none."""
    names = [frame.partition("+")[0].partition(".")[0] for frame in stack]
    if not any(name.startswith("nf_hook_slow") for name in names):
        return ""
    return next((_HOOKS[name] for name in names if name in _HOOKS), "")


def icmp_mtu(protocol: int, kind: int, code: int, rest: int) -> int:
    """The next hop's MTU that an ICMP error tells; 0 for one that tells none. `rest` is as read on the wire.

    RFC 1191: the second half of the word after the checksum. RFC 4443 3.2: the whole word.
    """
    raw = rest.to_bytes(4, "little")
    if protocol == 1:
        return int.from_bytes(raw[2:], "big") if (kind, code) == (3, 4) else 0
    return int.from_bytes(raw, "big") if kind == 2 else 0


def decode(data: bytes, context: DecodeContext) -> Event:
    """One ring buffer record as an event."""
    (
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
        netns,
        ifindex,
        seq,
        ack,
        length,
        payload,
        sig,
        ip_id,
        kind,
        point,
        flags,
        icmp_type,
        icmp_code,
        state,
        icmp_rest,
        device,
        cpu,
    ) = _PACKET.unpack_from(data)
    flow = five_tuple(src, dst, sport, dport, proto)
    node = context.node
    if kind == 4:
        return TcpRetransmit(node=node, t_ns=t_ns, netns=netns, flow=flow, state=TCP_STATES[state % len(TCP_STATES)])
    if kind in (3, 5):
        hook, reason = "", ""
        if kind == 5:
            _, number, depth, *frames = _DROP.unpack_from(data, _PACKET.size)
            hook = hook_of([context.symbol(frame) for frame in frames[:depth]])
            reason = drop_reason(number, context.drop_reasons)
        return IcmpError(
            node=node,
            t_ns=t_ns,
            netns=netns,
            ifindex=ifindex,
            device=text(device),
            point=_POINTS[point],
            src=address(outer_src),
            dst=address(outer_dst),
            family=4 if outer_proto == 1 else 6,
            type=icmp_type,
            code=icmp_code,
            mtu=icmp_mtu(outer_proto, icmp_type, icmp_code, icmp_rest),
            quoted=flow,
            hook=hook,
            reason=reason,
        )
    tcp = TcpFlags(seq, ack, flags) if proto == 6 else None
    tunnel = five_tuple(outer_src, outer_dst, outer_sport, outer_dport, outer_proto) if outer_proto else None
    seen = {
        "node": node,
        "t_ns": t_ns,
        "netns": netns,
        "ifindex": ifindex,
        "device": text(device),
        "skb": skb,
        "flow": flow,
        "length": length,
        "payload": payload,
        "ip_id": ip_id,
        "sig": 0 if tcp else sig,
        "tcp": tcp,
        "tunnel": tunnel,
        "cpu": cpu,
    }
    if kind == 1:
        return PacketSeen(point=_POINTS[point], **seen)
    location, reason, depth, *frames = _DROP.unpack_from(data, _PACKET.size)
    stack = tuple(context.symbol(frame) or hex(frame) for frame in frames[:depth])
    return PacketDropped(
        reason=drop_reason(reason, context.drop_reasons),
        location=context.symbol(location) or hex(location),
        stack=stack,
        hook=hook_of(stack),
        **seen,
    )


def drop_reason(number: int, names: dict[int, str]) -> str:
    """The kernel's name of a drop reason without its prefix; "" where the kernel gave none."""
    name = names.get(number)
    if name is None and number >> 16:
        return _of_subsystem(number, names)
    if name is None:
        return "" if number == 0 else f"REASON_{number:#x}"
    return name.removeprefix("SKB_DROP_REASON_").removeprefix("SKB_")


def _of_subsystem(number: int, names: dict[int, str]) -> str:
    """A reason of a subsystem (its number is in the upper half, enum skb_drop_reason_subsys): "OPENVSWITCH_3"."""
    subsystem = names.get(SUBSYSTEMS + (number >> 16), f"SUBSYS_{number >> 16}")
    return f"{subsystem.removeprefix('SKB_DROP_REASON_SUBSYS_')}_{number & 0xFFFF}"


def drain(maps: Maps, context: DecodeContext, seen: dict[bytes, int], now: int) -> Iterator[FlowCounters]:
    """The flow table, summed over the CPUs; flows that did not change since `seen` are left out."""
    created, present = maps.accounts()["flows created"], 0
    for key, values in maps.take("flows", FLOW_KEY.size, FLOW.size):
        present += 1
        own = [value for value in FLOW.iter_unpack(values) if value[3] == 1]  # WHOSE_OWN; 0 where a CPU has not seen it
        packets = sum(value[0] for value in own)
        if not packets or seen.get(key) == packets:
            continue
        seen[key] = packets
        buckets = [sum(column) for column in zip(*(value[7:] for value in own), strict=True)]
        while buckets and not buckets[-1]:
            buckets.pop()
        src, dst, sport, dport, proto, point, _ = FLOW_KEY.unpack(key)
        netns, ifindex, device = own[-1][4:7]
        yield FlowCounters(
            node=context.node,
            t_ns=now,
            netns=netns,
            ifindex=ifindex,
            device=text(device),
            point=_POINTS[point % 3],
            flow=five_tuple(src, dst, sport, dport, proto),
            packets=packets,
            bytes=sum(value[1] for value in own),
            hop_ns=tuple(buckets),
        )
    maps.evicted(created - present)


PROBE = Probe(
    name="packet",
    source="packet.bpf.c",
    views=(SKB_HEAD, SKB_PLACE, *COMMON_VIEWS),
    attachments=(
        # Ends before beginnings: a packet that is seen coming is not missed where it dies.
        Attachment("skb", "kfree_skb", "on_free"),
        Attachment("tcp", "tcp_retransmit_skb", "on_retransmit", required=False, without="retransmits are not counted"),
        Attachment("net", "netif_receive_skb", "on_receive"),
        Attachment("net", "net_dev_queue", "on_queue"),
    ),
    decode=decode,
    drain=drain,
)
