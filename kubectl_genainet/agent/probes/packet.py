"""The packet probe (probes/packet.bpf.c): where each matching packet was seen, and where it was dropped."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

from kubectl_genainet.agent.probes.declare import (
    COMMON_VIEWS,
    SKB_HEAD,
    SKB_PLACE,
    Attachment,
    DecodeContext,
    Maps,
    Probe,
)
from kubectl_genainet.agent.probes.decode import (
    TCP_STATES,
    hook_of,
    icmp_mtu,
    reason_at,
)
from kubectl_genainet.model.events import (
    Event,
    FlowCounters,
    IcmpError,
    PacketDropped,
    PacketSeen,
    TcpFlags,
    TcpRetransmit,
)
from kubectl_genainet.wire.sightings import PACKET, POINTS, address, five_tuple, is_sighting, text

# struct drop_event after its packet_event: location, reason, depth, stack
_DROP = struct.Struct("<QII20Q")
# struct flow_key (the point stands in the tuple's padding), struct flow
FLOW_KEY = struct.Struct("<16s16sHHBB2xQ")
FLOW = struct.Struct("<QQ2H3I16s32I")
_HEAD = struct.Struct("<Q10xHI")  # of struct flow: packets, ended, whose
_OWN = 1  # WHOSE_OWN; 0 where a CPU has not seen it
# struct stream: bytes, first_ns, second_ns, last_ns, silence_ns, silence_at_ns, next, gaps, gap_us
_GAP_BUCKETS = 112
STREAM = struct.Struct(f"<6QI4x{2 * _GAP_BUCKETS}I")


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
        is_sockets,
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
        later,
    ) = PACKET.unpack_from(data)
    flow = five_tuple(src, dst, sport, dport, proto)
    node = context.node
    if kind == 4:
        name = TCP_STATES[state % len(TCP_STATES)]
        return TcpRetransmit(node=node, t_ns=t_ns, netns=netns, flow=flow, state=name, segments=length or 1)
    if kind in (3, 5):
        hook, reason = "", ""
        if kind == 5:
            freed_at, number, depth, *frames = _DROP.unpack_from(data, PACKET.size)
            hook = hook_of([context.symbol(frame) for frame in frames[:depth]])
            reason, _ = reason_at(number, context.symbol(freed_at), context.drop_reasons)
        return IcmpError(
            node=node,
            t_ns=t_ns,
            netns=netns,
            ifindex=ifindex,
            device=text(device),
            point=POINTS[point],
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
    outer = five_tuple(outer_src, outer_dst, outer_sport, outer_dport, outer_proto) if outer_proto else None
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
        "tunnel": None if is_sockets else outer,
        "asked": outer if is_sockets else None,
        "cpu": cpu,
    }
    if kind == 1:
        return PacketSeen(point=POINTS[point], **seen)
    freed_at, number, depth, *frames = _DROP.unpack_from(data, PACKET.size)
    stack = tuple(context.symbol(frame) or hex(frame) for frame in frames[:depth])
    location = context.symbol(freed_at) or hex(freed_at)
    reason, derived = reason_at(number, location, context.drop_reasons)
    return PacketDropped(
        reason=reason,
        reason_derived=derived,
        location=location,
        stack=stack,
        hook=hook_of(stack),
        fragment=bool(later),
        **seen,
    )


def drain(maps: Maps, context: DecodeContext, seen: dict[bytes, int], now: int) -> Iterator[FlowCounters]:
    """The flow table, summed over the CPUs; flows that did not change since `seen` are left out, those that have ended are
    taken out of the table. Where connections are left out for the budget's sake, flows that began and ended since the last
    time are not reported: no reader waits for them."""
    created, present = maps.accounts()["flows created"], 0
    streams = dict(maps.pairs("streams", FLOW_KEY.size, STREAM.size))
    sampling = maps.sampling()
    gone: list[bytes] = []
    for key, values in maps.take("flows", FLOW_KEY.size, FLOW.size):
        present += 1
        heads = [_HEAD.unpack_from(values, at) for at in range(0, len(values), FLOW.size)]
        packets = sum(packets for packets, _, whose in heads if whose == _OWN)
        known = seen.get(key)
        ended = any(ended for _, ended, _ in heads)
        if ended:
            gone.append(key)
            seen.pop(key, None)
        if not packets or known == packets or (ended and known is None and sampling):
            continue
        if not ended:
            seen[key] = packets
        own = [value for value in FLOW.iter_unpack(values) if value[4] == _OWN]
        yield _counters(key, own, context, now, _stream(streams.get(key)))
    maps.delete_all("flows", gone)
    maps.delete_all("streams", [key for key in gone if key in streams])
    maps.evicted(created - present)
    maps.took_out(len(gone))


def _counters(
    key: bytes, own: list[tuple[Any, ...]], context: DecodeContext, now: int, stream: dict[str, Any]
) -> FlowCounters:
    buckets = [sum(column) for column in zip(*(value[8:] for value in own), strict=True)]
    while buckets and not buckets[-1]:
        buckets.pop()
    src, dst, sport, dport, proto, point, _ = FLOW_KEY.unpack(key)
    netns, ifindex, device = own[-1][5:8]
    return FlowCounters(
        node=context.node,
        t_ns=now,
        netns=netns,
        ifindex=ifindex,
        device=text(device),
        point=POINTS[point % 3],
        flow=five_tuple(src, dst, sport, dport, proto),
        packets=sum(value[0] for value in own),
        bytes=sum(value[1] for value in own),
        hop_ns=tuple(buckets),
        **stream,
    )


def _stream(value: bytes | None) -> dict[str, Any]:
    """What the kernel knows of a flow's data, as FlowCounters has it."""
    if value is None:
        return {}
    data_bytes, first, second, last, silence, silence_at, _, *histogram = STREAM.unpack(value)
    gaps, sums = histogram[:_GAP_BUCKETS], histogram[_GAP_BUCKETS:]
    while gaps and not gaps[-1]:
        gaps.pop()
    return {
        "data_bytes": data_bytes,
        "first_ns": first,
        "second_ns": second,
        "last_ns": last,
        "silence_ns": silence,
        "silence_at_ns": silence_at,
        "gaps": tuple(gaps),
        "gap_us": tuple(sums[: len(gaps)]),
    }


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
    travels=is_sighting,
)
