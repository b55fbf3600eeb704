"""The drops probe (probes/drops.bpf.c): what the kernel drops, counted; and what explains it."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum

from kubectl_genainet.agent.bpf.headers import View
from kubectl_genainet.agent.probes.declare import (
    COMMON_VIEWS,
    SKB_HEAD,
    SKB_PLACE,
    Attachment,
    DecodeContext,
    Maps,
    Probe,
)
from kubectl_genainet.agent.probes.decode import TCP_STATES, drop_reason, hook_of, icmp_mtu, reason_at
from kubectl_genainet.model.events import (
    DropCount,
    EstablishedCount,
    Event,
    IcmpCount,
    IcmpError,
    PacketDropped,
    Point,
    ResetCount,
    RetransmitCount,
    TcpFlags,
)
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.reasons import HARMLESS_REASONS
from kubectl_genainet.wire.sightings import TUPLE, address, five_tuple, text

# struct drop_key: tuple, location, netns, reason, kind, flags, icmp_type, icmp_code
_KEY = f"{TUPLE}QIIBBBB4x"
KEY = struct.Struct(f"<{_KEY}")
assert KEY.size == 64
# struct tally: packets, bytes
TALLY = struct.Struct("<QQ")
# struct sample: t_ns, skb, key, outer, ifindex, len, seq, ack, icmp_rest, depth, ip_id, tcp_flags, device, stack
_SAMPLE = struct.Struct(f"<QQ{_KEY}{TUPLE}6IHBB4x16s20Q")
assert _SAMPLE.size == 328

REASON_BITS = 256  # reasons that the kernel's bitmap has room for; those above are never harmless
EVERYTHING = "everything"  # option: harmless reasons and what is no IP packet too
_ACTIVE_TABLE, _EVERYTHING = 0, 1  # enum in drops.bpf.c
_OPENING, _ACTIVE = 1, 2
_MEMORY = b"the table that is written"


class Kind(IntEnum):
    """enum kind in drops.bpf.c."""

    DROP = 1
    ICMP = 2
    ICMP_DROP = 3
    RESET_SENT = 4
    RESET_RECEIVED = 5
    RETRANSMIT = 6
    ESTABLISHED = 7


def harmless_bits(names: Mapping[int, str]) -> list[int]:
    """The bitmap of harmless reasons, 64 a word, from the running kernel's numbers."""
    words = [0] * (REASON_BITS // 64)
    for number in names:
        if number < REASON_BITS and drop_reason(number, dict(names)) in HARMLESS_REASONS:
            words[number >> 6] |= 1 << (number & 63)
    return words


def words(context: DecodeContext, options: Mapping[str, str]) -> Mapping[str, list[int]]:
    everything = options.get(EVERYTHING) == "true"
    bits = [0] * (REASON_BITS // 64) if everything else harmless_bits(context.drop_reasons)
    return {"harmless": bits, "settings": [0, int(everything)]}


def decode(data: bytes, context: DecodeContext) -> Event:
    """A sample: one dropped packet, or one ICMP error, with all that is known of it."""
    (
        t_ns,
        skb,
        src,
        dst,
        sport,
        dport,
        proto,
        location,
        netns,
        reason,
        kind,
        _,
        icmp_type,
        icmp_code,
        outer_src,
        outer_dst,
        outer_sport,
        outer_dport,
        outer_proto,
        ifindex,
        length,
        seq,
        ack,
        icmp_rest,
        depth,
        ip_id,
        tcp_flags,
        later,
        device,
        *frames,
    ) = _SAMPLE.unpack_from(data)
    flow = five_tuple(src, dst, sport, dport, proto)
    freed_at = context.symbol(location) or hex(location)
    name, derived = reason_at(reason, freed_at, context.drop_reasons) if kind != Kind.ICMP else ("", False)
    stack = tuple(context.symbol(frame) or hex(frame) for frame in frames[:depth])
    if kind in (Kind.ICMP, Kind.ICMP_DROP):
        return IcmpError(
            node=context.node,
            t_ns=t_ns,
            netns=netns,
            ifindex=ifindex,
            device=text(device),
            point=Point.RX if kind == Kind.ICMP else Point.DROP,
            src=address(outer_src),
            dst=address(outer_dst),
            family=4 if outer_proto == 1 else 6,
            type=icmp_type,
            code=icmp_code,
            mtu=icmp_mtu(outer_proto, icmp_type, icmp_code, icmp_rest),
            quoted=flow,
            hook=hook_of(stack),
            reason=name,
            location=freed_at if kind == Kind.ICMP_DROP else "",
        )
    tunnel = five_tuple(outer_src, outer_dst, outer_sport, outer_dport, outer_proto) if outer_proto else None
    return PacketDropped(
        node=context.node,
        t_ns=t_ns,
        netns=netns,
        ifindex=ifindex,
        device=text(device),
        skb=skb,
        flow=flow,
        length=length,
        payload=0,
        ip_id=ip_id,
        tcp=TcpFlags(seq, ack, tcp_flags) if proto == 6 else None,
        tunnel=tunnel,
        reason=name,
        reason_derived=derived,
        location=freed_at,
        stack=stack,
        hook=hook_of(stack),
        fragment=bool(later),
    )


def drain(maps: Maps, context: DecodeContext, memory: dict[bytes, int], now: int) -> Iterator[Event]:
    """What was counted since the last time. The tables change places first: what is read is not written any more."""
    retired = memory.get(_MEMORY, 0)
    memory[_MEMORY] = 1 - retired
    maps.set_word("settings", _ACTIVE_TABLE, 1 - retired)
    for table in (f"counts{retired}", f"coarse{retired}"):
        for key, values in maps.take(table, KEY.size, TALLY.size, delete=True):
            counts = list(TALLY.iter_unpack(values))
            packets, size = sum(c[0] for c in counts), sum(c[1] for c in counts)
            if packets:
                yield count_of(key, packets, size, context, now, coarse=table.startswith("coarse"))


def count_of(key: bytes, packets: int, size: int, context: DecodeContext, now: int, *, coarse: bool = False) -> Event:
    """An entry of the kernel's table as an event. With `coarse`, its source was left out."""
    src, dst, sport, dport, proto, location, netns, reason, kind, flags, icmp_type, icmp_code = KEY.unpack(key)
    flow = five_tuple(src, dst, sport, dport, proto)
    if coarse:
        flow = FiveTuple("", 0, flow.dst, flow.dport, flow.protocol)
    freed_at = context.symbol(location) or hex(location)
    name, derived = reason_at(reason, freed_at, context.drop_reasons)
    common = {"node": context.node, "t_ns": now, "netns": netns, "flow": flow, "packets": packets}
    match kind:
        case Kind.DROP:
            return DropCount(
                reason=name,
                reason_derived=derived,
                location=freed_at,
                bytes=size,
                opening=bool(flags & _OPENING),
                **common,
            )
        case Kind.ICMP | Kind.ICMP_DROP:
            why = name if kind == Kind.ICMP_DROP else ""
            family = 6 if ":" in flow.dst else 4
            return IcmpCount(family=family, type=icmp_type, code=icmp_code, reason=why, **common)
        case Kind.RESET_SENT | Kind.RESET_RECEIVED:
            name = context.enums.get("sk_rst_reason", {}).get(reason, "").removeprefix("SK_RST_REASON_")
            return ResetCount(sent=kind == Kind.RESET_SENT, active=bool(flags & _ACTIVE), reason=name, **common)
        case Kind.RETRANSMIT:
            return RetransmitCount(state=TCP_STATES[reason % len(TCP_STATES)], **common)
        case _:
            return EstablishedCount(**common)


_RST = "resets are not counted"
PROBE = Probe(
    name="drops",
    source="drops.bpf.c",
    views=(SKB_HEAD, SKB_PLACE, *COMMON_VIEWS, View("inet_port", "inet_sock", ("inet_sport",))),
    attachments=(
        Attachment("skb", "kfree_skb", "on_free"),
        Attachment(
            "net",
            "netif_receive_skb",
            "on_receive",
            required=False,
            without="ICMP errors that tell a sender are not seen",
        ),
        # Linux 6.10 (19822a980e19) calls it for a reset without a full socket too, and gave it a third argument then.
        Attachment(
            "tcp",
            "tcp_send_reset",
            "on_send_reset",
            required=False,
            without=_RST,
            arguments=3,
            with_fewer="a refused connection is not counted as a reset before Linux 6.10; the packet's drop is",
        ),
        Attachment("tcp", "tcp_receive_reset", "on_receive_reset", required=False, without=_RST),
        Attachment("tcp", "tcp_retransmit_skb", "on_retransmit", required=False, without="retransmits are not counted"),
        Attachment(
            "sock",
            "inet_sock_set_state",
            "on_state",
            required=False,
            without="connections that pass against a policy are not seen",
        ),
    ),
    decode=decode,
    drain=drain,
    enums=("sk_rst_reason",),
    words=words,
    # Two tables; the kernel's element has about 64 bytes around key and value (struct htab_elem).
    entry_bytes=lambda cpus: 2 * (KEY.size + 64 + TALLY.size * cpus),
)
