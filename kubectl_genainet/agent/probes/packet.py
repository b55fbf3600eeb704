"""The packet probe (probes/packet.bpf.c): where each matching packet was seen, and where it was dropped."""

from __future__ import annotations

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
from kubectl_genainet.agent.probes.layout import enums, layout
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

_SOURCE = "packet.bpf.c"
_END = layout(_SOURCE, "end")  # of a drop: behind its struct packet_event
_FRAMES = _END.numbers("stack")
FLOW_KEY = layout(_SOURCE, "flow_key")  # the point stands in the tuple's padding
FLOW = layout(_SOURCE, "flow")
_HEAD, _HOPS = FLOW.part("packets", "ended", "whose"), FLOW.numbers("hop_ns")
_OWN = enums(_SOURCE)["whose"]["WHOSE_OWN"]
STREAM = layout(_SOURCE, "stream")
_GAPS = STREAM.numbers("gaps")


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
            end = _END.read(data, PACKET.size)
            hook = hook_of([context.symbol(frame) for frame in _FRAMES.unpack(end.stack)[: end.depth]])
            reason, _ = reason_at(end.reason, context.symbol(end.location), context.drop_reasons)
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
    end = _END.read(data, PACKET.size)
    stack = tuple(context.symbol(frame) or hex(frame) for frame in _FRAMES.unpack(end.stack)[: end.depth])
    location = context.symbol(end.location) or hex(end.location)
    reason, derived = reason_at(end.reason, location, context.drop_reasons)
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
        own = [FLOW.read(values, cpu * FLOW.size) for cpu, (_, _, whose) in enumerate(heads) if whose == _OWN]
        yield _counters(key, own, context, now, _stream(streams.get(key)))
    maps.delete_all("flows", gone)
    maps.delete_all("streams", [key for key in gone if key in streams])
    maps.evicted(created - present)
    maps.took_out(len(gone))


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
