"""The drops probe (probes/drops.bpf.c): what the kernel drops, counted; and what explains it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import IntEnum
from typing import Any

from kubectl_genainet.agent.bpf.headers import StructView
from kubectl_genainet.agent.probes.declare import (
    COMMON_VIEWS,
    SKB_HEAD,
    SKB_PLACE,
    Attachment,
    DecodeContext,
    Kprobe,
    Maps,
    Probe,
)
from kubectl_genainet.agent.probes.decode import (
    REASON_BITS,
    TCP_STATES,
    conntrack_state,
    harmless_bits,
    hook_of,
    icmp_mtu,
    reason_at,
)
from kubectl_genainet.agent.probes.layout import layout
from kubectl_genainet.model.events import (
    RESETS_NOT_COUNTED,
    SOME_RESETS_NOT_COUNTED,
    DropCount,
    DropSampled,
    EstablishedCount,
    Event,
    IcmpCount,
    IcmpSampled,
    Point,
    ResetCount,
    RetransmitCount,
    TcpFlags,
)
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.wire.sightings import address, five_tuple, text

_SOURCE = "drops.bpf.c"
KEY = layout(_SOURCE, "drop_key")
TALLY = layout(_SOURCE, "tally")
SAMPLE = layout(_SOURCE, "sample")
_FRAMES = SAMPLE.numbers("stack")

EVERYTHING = "everything"  # option: harmless reasons and what is no IP packet too
_ACTIVE_TABLE, _EVERYTHING = 0, 1  # enum in drops.bpf.c
_OPENING, _ACTIVE, _ANSWERING = 1, 2, 4
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


def words(context: DecodeContext, options: Mapping[str, str]) -> Mapping[str, list[int]]:
    everything = options.get(EVERYTHING) == "true"
    bits = [0] * (REASON_BITS // 64) if everything else harmless_bits(context.drop_reasons)
    return {"harmless": bits, "settings": [0, int(everything)]}


def decode(data: bytes, context: DecodeContext) -> Event:
    """A sample: one dropped packet, or one ICMP error, with all that is known of it."""
    sample = SAMPLE.read(data)
    stack = tuple(context.symbol(frame) or hex(frame) for frame in _FRAMES.unpack(sample.stack)[: sample.depth])
    is_icmp = sample.key_kind in (Kind.ICMP, Kind.ICMP_DROP)
    return _icmp_sampled(sample, stack, context) if is_icmp else _drop_sampled(sample, stack, context)


def _icmp_sampled(sample: Any, stack: tuple[str, ...], context: DecodeContext) -> IcmpSampled:
    freed_at, reason, _ = _freed(sample, context) if sample.key_kind == Kind.ICMP_DROP else ("", "", False)
    return IcmpSampled(
        node=context.node,
        t_ns=sample.t_ns,
        netns=sample.key_netns,
        ifindex=sample.ifindex,
        device=text(sample.device),
        point=Point.RX if sample.key_kind == Kind.ICMP else Point.DROP,
        src=address(sample.outer_saddr),
        dst=address(sample.outer_daddr),
        family=4 if sample.outer_proto == 1 else 6,
        type=sample.key_icmp_type,
        code=sample.key_icmp_code,
        mtu=icmp_mtu(sample.outer_proto, sample.key_icmp_type, sample.key_icmp_code, sample.icmp_rest),
        quoted=_flow(sample),
        hook=hook_of(stack),
        reason=reason,
        location=freed_at,
    )


def _drop_sampled(sample: Any, stack: tuple[str, ...], context: DecodeContext) -> DropSampled:
    freed_at, reason, derived = _freed(sample, context)
    outer = five_tuple(
        sample.outer_saddr, sample.outer_daddr, sample.outer_sport, sample.outer_dport, sample.outer_proto
    )
    return DropSampled(
        node=context.node,
        t_ns=sample.t_ns,
        netns=sample.key_netns,
        ifindex=sample.ifindex,
        device=text(sample.device),
        skb=sample.skb,
        flow=_flow(sample),
        length=sample.len,
        payload=0,
        ip_id=sample.ip_id,
        tcp=TcpFlags(sample.seq, sample.ack, sample.tcp_flags) if sample.key_t_proto == 6 else None,
        tunnel=outer if sample.outer_proto else None,
        reason=reason,
        reason_derived=derived,
        location=freed_at,
        stack=stack,
        hook=hook_of(stack),
        ct_state=conntrack_state(sample.tracked),
        fragment=bool(sample.later),
    )


def _flow(sample: Any) -> FiveTuple:
    """The packet that was dropped, or that the ICMP error quotes."""
    return five_tuple(
        sample.key_t_saddr, sample.key_t_daddr, sample.key_t_sport, sample.key_t_dport, sample.key_t_proto
    )


def _freed(sample: Any, context: DecodeContext) -> tuple[str, str, bool]:
    """The function that freed the packet, the reason, and whether that follows from the function."""
    freed_at = context.symbol(sample.key_location) or hex(sample.key_location)
    return freed_at, *reason_at(sample.key_reason, freed_at, context.drop_reasons)


def drain(maps: Maps, context: DecodeContext, memory: dict[bytes, int], now: int) -> Iterator[Event]:
    """What was counted since the last time. The tables change places first: what is read is not written any more."""
    retired = memory.get(_MEMORY, 0)
    memory[_MEMORY] = 1 - retired
    maps.set_word("settings", _ACTIVE_TABLE, 1 - retired)
    for table in (f"counts{retired}", f"coarse{retired}"):
        for key, values in maps.take(table, KEY.size, TALLY.size, delete=True):
            tallies = list(TALLY.read_all(values))
            packets, size = sum(tally.packets for tally in tallies), sum(tally.bytes for tally in tallies)
            if packets:
                yield count_of(key, packets, size, context, now, coarse=table.startswith("coarse"))


def count_of(key: bytes, packets: int, size: int, context: DecodeContext, now: int, *, coarse: bool = False) -> Event:
    """An entry of the kernel's table as an event. With `coarse`, its source was left out."""
    counted = KEY.read(key)
    flow = five_tuple(counted.t_saddr, counted.t_daddr, counted.t_sport, counted.t_dport, counted.t_proto)
    if coarse:
        flow = FiveTuple("", 0, flow.dst, flow.dport, flow.protocol)
    freed_at = context.symbol(counted.location) or hex(counted.location)
    name, derived = reason_at(counted.reason, freed_at, context.drop_reasons)
    common = {"node": context.node, "t_ns": now, "netns": counted.netns, "flow": flow, "packets": packets}
    match counted.kind:
        case Kind.DROP:
            return DropCount(
                reason=name,
                reason_derived=derived,
                location=freed_at,
                bytes=size,
                opening=bool(counted.flags & _OPENING),
                answering=bool(counted.flags & _ANSWERING),
                **common,
            )
        case Kind.ICMP | Kind.ICMP_DROP:
            why = name if counted.kind == Kind.ICMP_DROP else ""
            family = 6 if ":" in flow.dst else 4
            return IcmpCount(family=family, type=counted.icmp_type, code=counted.icmp_code, reason=why, **common)
        case Kind.RESET_SENT | Kind.RESET_RECEIVED:
            name = context.enums.get("sk_rst_reason", {}).get(counted.reason, "").removeprefix("SK_RST_REASON_")
            return ResetCount(
                sent=counted.kind == Kind.RESET_SENT,
                active=bool(counted.flags & _ACTIVE),
                opening=bool(counted.flags & _OPENING),
                reason=name,
                **common,
            )
        case Kind.RETRANSMIT:
            return RetransmitCount(state=TCP_STATES[counted.reason % len(TCP_STATES)], in_vain=size, **common)
        case _:
            return EstablishedCount(**common)


PROBE = Probe(
    name="drops",
    source="drops.bpf.c",
    views=(
        SKB_HEAD,
        SKB_PLACE,
        *COMMON_VIEWS,
        StructView("inet_port", "inet_sock", ("inet_sport",)),
        StructView("timeouts", "inet_connection_sock", ("icsk_retransmits",)),
        StructView("skb_route", "sk_buff", ("_skb_refdst",), optional=True),  # these for the kprobe
        StructView("route4", "rtable", ("rt_type",), optional=True),
        StructView("route6", "rt6_info", ("rt6i_flags",), optional=True),
    ),
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
            without=RESETS_NOT_COUNTED,
            arguments=3,
            with_fewer=SOME_RESETS_NOT_COUNTED,
            kprobe=Kprobe("on_reset_without_socket", ("tcp_v4_send_reset", "tcp_v6_send_reset")),
        ),
        Attachment("tcp", "tcp_receive_reset", "on_receive_reset", required=False, without=RESETS_NOT_COUNTED),
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
