"""The packet probe (probes/packet.bpf.c): where each matching packet was seen, and where it was dropped."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

from kubectl_genainet.agent.bpf.headers import StructView
from kubectl_genainet.agent.probes.declare import (
    COMMON_VIEWS,
    SKB_HEAD,
    SKB_PLACE,
    WAYS,
    Attachment,
    DecodeContext,
    Maps,
    Probe,
)
from kubectl_genainet.agent.probes.decode import (
    TCP_STATES,
    conntrack_state,
    harmless_bits,
    hook_of,
    icmp_mtu,
    reason_at,
)
from kubectl_genainet.agent.probes.layout import enums, layout
from kubectl_genainet.model.events import (
    Event,
    FlowCounters,
    FlowSilence,
    Held,
    IcmpError,
    PacketDropped,
    PacketSighting,
    Point,
    TcpRetransmit,
)
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.wire.sightings import (
    PACKET,
    POINTS,
    PacketEvent,
    address,
    five_tuple,
    is_sighting,
    packet_event,
    text,
)

_SOURCE = "packet.bpf.c"
_END = layout(_SOURCE, "end")  # of a drop: behind its struct packet_event
_FRAMES = _END.numbers("stack")
FLOW_KEY = layout(_SOURCE, "flow_key")  # the point stands in the tuple's padding
FLOW = layout(_SOURCE, "flow")
_HEAD, _HOPS = FLOW.part("packets", "ended"), FLOW.numbers("hop_ns")
_OWN = enums(_SOURCE)["whose"]["WHOSE_OWN"]
_RST = enums(_SOURCE)["ended"]["ENDED_RST"]
_ENDS = struct.Struct(
    f"=16s16s2s2sss{FLOW_KEY.size - FLOW_KEY.offset('t_pad') - 1}s"
)  # addresses, ports, protocol, point
_OPPOSITE = {
    bytes([POINTS.index(a)]): bytes([POINTS.index(b)]) for a, b in ((Point.RX, Point.TX), (Point.TX, Point.RX))
}
_PLACE_AND_PACKET = PacketSighting.__struct_fields__
_KINDS = enums(_SOURCE)["event_kind"]
STREAM = layout(_SOURCE, "stream")
_GAPS = STREAM.numbers("gaps")
_HELD = dict(enumerate(Held))  # in the order of enum held
_TOLD_NS = 100_000_000  # a silence of which more is told than its length
LATE_PACKETS = 2  # of a flow that was taken out; more are those of the next connection between these ports


def decode(data: bytes, context: DecodeContext) -> Event:
    """One ring buffer record as an event."""
    event = packet_event(data)
    if event.kind == _KINDS["EVENT_RETRANSMIT"]:
        return TcpRetransmit(
            node=context.node,
            t_ns=event.t_ns,
            netns=event.netns,
            flow=event.flow,
            state=TCP_STATES[event.state % len(TCP_STATES)],
            segments=event.length or 1,
        )
    if event.kind == _KINDS["EVENT_ICMP"]:
        return _icmp_error(event, context.node)
    if event.kind == _KINDS["EVENT_PACKET"]:
        return event.seen(context.node)
    seen, end = event.seen(context.node), _END.read(data, PACKET.size)
    frames = [context.symbol(frame) or hex(frame) for frame in _FRAMES.unpack(end.stack)[: end.depth]]
    location = context.symbol(end.location) or hex(end.location)
    reason, derived = reason_at(end.reason, location, context.drop_reasons)
    if event.kind == _KINDS["EVENT_ICMP_DROP"]:
        return _icmp_error(event, context.node, hook_of(frames), reason)
    return PacketDropped(
        reason=reason,
        reason_derived=derived,
        location=location,
        stack=tuple(frames),
        hook=hook_of(frames),
        ct_state=conntrack_state(end.tracked),
        fragment=bool(event.later),
        **{field: getattr(seen, field) for field in _PLACE_AND_PACKET},
    )


def _icmp_error(event: PacketEvent, node: str, hook: str = "", reason: str = "") -> IcmpError:
    """An ICMP error whose own addresses are the outer ones, and whose quoted packet is the flow."""
    return IcmpError(
        node=node,
        t_ns=event.t_ns,
        netns=event.netns,
        ifindex=event.ifindex,
        device=text(event.device),
        point=event.where,
        src=address(event.outer_src),
        dst=address(event.outer_dst),
        family=4 if event.outer_proto == Protocol.ICMP.number else 6,
        type=event.icmp_type,
        code=event.icmp_code,
        mtu=icmp_mtu(event.outer_proto, event.icmp_type, event.icmp_code, event.icmp_rest),
        quoted=event.flow,
        hook=hook,
        reason=reason,
    )


def drain(maps: Maps, context: DecodeContext, seen: dict[bytes, int], now: int) -> Iterator[FlowCounters]:
    """The flow table, summed over the CPUs; flows that did not change since `seen` are left out, those of connections that
    are over are taken out of the table. Where connections are left out for the budget's sake, flows that began and ended since
    the last time are not reported: no reader waits for them.

    `seen` holds the packets of each flow in the table. Of what two CPUs saw of an end the higher counts: a reset outranks a FIN.
    A last packet that a busy node delivers late puts a flow there once more, and tells nothing of its end."""
    created, followed, is_sampling = maps.accounts()["flows created"], 0, maps.sampling()
    quiet: dict[bytes, bool] = {}  # of each flow in the table: nothing more is to be reported of it now
    ends: dict[bytes, int] = {}
    changed: dict[bytes, bytes] = {}
    for key, values in maps.take("flows", FLOW_KEY.size, FLOW.size):
        numbers = _heads(len(values)).unpack(values)
        packets, ended, known = sum(numbers[::2]), max(numbers[1::2]), seen.get(key)
        if packets <= LATE_PACKETS and maps.took_out_lately(key, now):
            ended = _RST
        if ended:
            ends[key] = ended
        is_skipped = bool(ended) and known is None and is_sampling
        quiet[key] = is_skipped or known == packets
        if known == packets:
            continue
        followed += packets - (known or 0)
        seen[key] = packets
        if packets and not is_skipped:
            changed[key] = values
    streams = maps.values_of("streams", changed.keys(), STREAM.size)
    for key, values in changed.items():
        own = [flow for flow in FLOW.read_all(values) if flow.whose == _OWN]
        yield _counters(key, own, context, now, _stream(streams.get(key)))
    gone = _over(quiet, ends)
    maps.delete_all("flows", gone)
    maps.delete_all("streams", gone)
    for key in (seen.keys() - quiet.keys()).union(gone):
        del seen[key]
    maps.evicted(created - len(quiet))
    maps.took_out(gone, now)
    maps.followed(followed)


def _over(quiet: dict[bytes, bool], ends: dict[bytes, int]) -> list[bytes]:
    """The flows of connections that are over at a device, both directions, and of which nothing was counted since the last time:
    of one that goes on, what came between reading and deleting would be lost."""
    gone: dict[bytes, None] = {}
    for key, ended in ends.items():
        if key in gone:
            continue
        back = _back(key)
        both = ended | ends.get(back, 0)
        over = both & _RST or back in ends or back not in quiet
        if over and quiet[key] and quiet.get(back, True):
            gone |= dict.fromkeys((key, back) if back in quiet else (key,))
    return list(gone)


def _back(key: bytes) -> bytes:
    """The key of the other direction at the same device."""
    src, dst, sport, dport, protocol, point, rest = _ENDS.unpack(key)
    return _ENDS.pack(dst, src, dport, sport, protocol, _OPPOSITE[point], rest)


@cache
def _heads(size: int) -> struct.Struct:
    """Of the values of all CPUs, so many bytes together: packets and end of each."""
    return struct.Struct("=" + size // FLOW.size * f"{_HEAD.format[1:]}{FLOW.size - _HEAD.size}x")


def _counters(key: bytes, own: list[Any], context: DecodeContext, now: int, stream: dict[str, Any]) -> FlowCounters:
    buckets = [sum(column) for column in zip(*(_HOPS.unpack(flow.hop_ns) for flow in own), strict=True)]
    while buckets and not buckets[-1]:
        buckets.pop()
    ends, latest = FLOW_KEY.read(key), own[-1]
    return FlowCounters(
        node=context.node,
        t_ns=now,
        netns=latest.netns,
        ifindex=latest.ifindex,
        device=text(latest.device),
        point=POINTS[ends.t_pad[0] % 3],
        flow=five_tuple(ends.t_saddr, ends.t_daddr, ends.t_sport, ends.t_dport, ends.t_proto),
        packets=sum(flow.packets for flow in own),
        bytes=sum(flow.bytes for flow in own),
        began_ns=max(flow.began_ns for flow in own),
        closed_ns=max(flow.closed_ns for flow in own),
        hop_ns=tuple(buckets),
        **stream,
    )


def _stream(value: bytes | None) -> dict[str, Any]:
    """What the kernel knows of a flow's data, as FlowCounters has it."""
    if value is None:
        return {}
    data = STREAM.read(value)
    gaps, sums = list(_GAPS.unpack(data.gaps)), _GAPS.unpack(data.gap_us)
    while gaps and not gaps[-1]:
        gaps.pop()
    return {
        "data_bytes": data.bytes,
        "first_ns": data.first_ns,
        "second_ns": data.second_ns,
        "last_ns": data.last_ns,
        "silence_ns": data.silence_ns,
        "silence_at_ns": data.silence_at_ns,
        "gaps": tuple(gaps),
        "gap_us": tuple(sums[: len(gaps)]),
        "first_asked_ns": data.first_asked_ns,
        "at_silence": _at_silence(data) if data.silence_ns >= _TOLD_NS else None,
    }


def _at_silence(data: Any) -> FlowSilence:
    """What `struct stream` tells of its longest silence."""
    tick_ns = data.silence_ns / max(data.silence_ticks, 1)
    return FlowSilence(
        asked_ns=max(0, data.silence_asked_ns - data.silence_at_ns),
        closed_ns=max(0, data.silence_closed_ns - data.silence_at_ns),
        held=_HELD.get(data.held, Held.UNKNOWN),
        held_ns=min(data.silence_ns, int(data.held_ticks * tick_ns)),
        heard_ns=min(data.silence_ns, int(data.heard_ticks * tick_ns)),
    )


PROBE = Probe(
    name="packet",
    source="packet.bpf.c",
    views=(
        SKB_HEAD,
        SKB_PLACE,
        *COMMON_VIEWS,
        StructView("sock_kind", "sock", ("sk_type", "sk_protocol"), optional=True),
        StructView("tcp_chrono", "tcp_sock", ("chrono_type", "chrono_start"), optional=True),
        StructView("tcp_heard", "tcp_sock", ("rcv_tstamp",), optional=True),
    ),
    attachments=(
        # Ends before beginnings: a packet that is seen coming is not missed where it dies.
        Attachment("skb", "kfree_skb", "on_free"),
        Attachment("tcp", "tcp_retransmit_skb", "on_retransmit", required=False, without="retransmits are not counted"),
        Attachment("net", "netif_receive_skb", "on_receive"),
        Attachment("net", "net_dev_queue", "on_queue"),
    ),
    decode=decode,
    drain=drain,
    words=lambda context, options: {"harmless": harmless_bits(context.drop_reasons)},
    travels=is_sighting,
    shared_maps=(WAYS,),
)
