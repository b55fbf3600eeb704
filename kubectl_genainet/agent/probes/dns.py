"""The DNS probe (probes/dns.bpf.c): queries over UDP, joined with their responses in the kernel."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from kubectl_genainet.agent.dns.redact import Redactor
from kubectl_genainet.agent.dns.wire import decode_message
from kubectl_genainet.agent.probes.declare import (
    COMMON_VIEWS,
    SKB_HEAD,
    SKB_PLACE,
    Attachment,
    DecodeContext,
    Maps,
    Probe,
)
from kubectl_genainet.agent.probes.decode import conntrack_state, drop_reason, hook_of
from kubectl_genainet.agent.probes.layout import layout
from kubectl_genainet.model.dns import DnsMessage
from kubectl_genainet.model.events import (
    DnsDropped,
    DnsEnd,
    DnsMessageSeen,
    DnsPlace,
    DnsTransaction,
    Event,
    Point,
    TcpFlags,
)
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.wire.sightings import five_tuple, text

EXPIRES_NS = 5_000_000_000  # glibc's and musl's resolvers wait for 5 s (resolv.conf(5), RES_TIMEOUT)
ANSWERS_PER_SECOND = 500  # messages whose answers are decoded; those of the others are not looked at

_SOURCE = "dns.bpf.c"
_RECORD = layout(_SOURCE, "dns_record")
_DROP = layout(_SOURCE, "dns_drop")
_TUPLE, _PLACE, _CLIENT, _KEY = (layout(_SOURCE, name) for name in ("tuple", "sighted", "client", "dns_key"))
_FRAMES = _DROP.numbers("end_stack")
_CLIENT_AT = _RECORD.offset("client_netns")
_COUNT = struct.Struct("=q")  # of open exchanges
_ANSWERED, _REPEATED, _LONE, _DROPPED = 1, 2, 3, 4

_POINTS = (Point.RX, Point.TX, Point.DROP)


class _AnswerBudget:
    """Which messages' answers are decoded: dnspython takes 0.1 ms and more for them, a busy server has 20,000 a second."""

    def __init__(self) -> None:
        self._second, self._used = 0, 0

    def take(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._used = second, 0
        self._used += 1
        return self._used <= ANSWERS_PER_SECOND


_budget = _AnswerBudget()


@lru_cache(maxsize=16384)
def _message(body: bytes, length: int) -> DnsMessage:
    """A message without its id, so that the same question asked again is decoded once."""
    is_response = len(body) > 0 and bool(body[0] & 0x80)
    return decode_message(b"\0\0" + body, length, answers=is_response and _budget.take())


@lru_cache(maxsize=4)
def _redactor(key: str, search: str) -> Redactor:
    return Redactor(key, search.split())


@lru_cache(maxsize=16384)
def _redacted(message: DnsMessage, key: str, search: str) -> DnsMessage:
    return _redactor(key, search).message(message)


def message_of(data: bytes, length: int, options: Mapping[str, str]) -> DnsMessage:
    """The message that begins with `data`, with its names hidden where the request asks for that."""
    message = _message(data[2:], length)
    key = options.get("redact")
    return _redacted(message, key, options.get("search", "")) if key else message


def decode(data: bytes, context: DecodeContext) -> Event:
    """One ring buffer record as an event."""
    kind = data[0]
    if kind == _DROPPED:
        return _drop(data, context)
    if kind == _LONE:
        return _lone(data, context)
    return _transaction(data, DnsEnd.ANSWERED if kind == _ANSWERED else DnsEnd.REPEATED, context)


def _flows(record: Any) -> list[FiveTuple]:
    tuples = _TUPLE.read_all(record.flows)
    return [
        five_tuple(t.saddr, t.daddr, t.sport, t.dport, t.proto)
        for _, t in zip(range(record.flow_count), tuples, strict=False)
    ]


def _places(sightings: bytes, count: int) -> tuple[DnsPlace, ...]:
    return tuple(
        DnsPlace(place.t_ns, place.netns, place.ifindex, _POINTS[place.point], place.flow)
        for _, place in zip(range(count), _PLACE.read_all(sightings), strict=False)
    )


def _transaction(data: bytes, end: DnsEnd, context: DecodeContext) -> DnsTransaction:
    record = _RECORD.read(data)
    query = _places(record.query, record.query_count)
    response = _places(record.response, record.response_count)
    answer_at = record.query_captured
    answer = record.data[answer_at : answer_at + record.response_captured]
    return DnsTransaction(
        node=context.node,
        t_ns=(response or query)[-1].t_ns,
        id=record.id,
        end=end,
        flows=tuple(_flows(record)),
        query=query,
        response=response,
        asked=message_of(record.data[:answer_at], record.query_len, context.options),
        answer=message_of(answer, record.response_len, context.options) if response else None,
    )


def _lone(data: bytes, context: DecodeContext) -> DnsMessageSeen:
    record = _RECORD.read(data)
    is_response = record.response_count > 0
    place = _places(record.response if is_response else record.query, 1)[0]
    flow = _flows(record)[0]
    message = record.data[: record.query_captured + record.response_captured]
    return DnsMessageSeen(
        node=context.node,
        t_ns=place.t_ns,
        netns=place.netns,
        ifindex=place.ifindex,
        point=place.point,
        id=record.id,
        flow=flow.reversed if is_response else flow,
        message=message_of(message, record.query_len or record.response_len, context.options),
    )


def _drop(data: bytes, context: DecodeContext) -> DnsDropped:
    drop = _DROP.read(data)
    frames = _FRAMES.unpack(drop.end_stack)[: drop.end_depth]
    stack = tuple(context.symbol(frame) or hex(frame) for frame in frames)
    message = drop.data[: drop.captured]
    return DnsDropped(
        node=context.node,
        t_ns=drop.t_ns,
        netns=drop.netns,
        ifindex=drop.ifindex,
        device=text(drop.device),
        skb=drop.skb,
        flow=five_tuple(drop.t_saddr, drop.t_daddr, drop.t_sport, drop.t_dport, drop.t_proto),
        length=drop.len,
        payload=drop.len,
        ip_id=drop.ip_id,
        tcp=TcpFlags(drop.seq, drop.ack, drop.tcp_flags) if drop.t_proto == 6 else None,
        reason=drop_reason(drop.end_reason, context.drop_reasons),
        location=context.symbol(drop.end_location) or hex(drop.end_location),
        stack=stack,
        hook=hook_of(stack),
        ct_state=conntrack_state(drop.end_tracked),
        id=drop.id,
        message=message_of(message, drop.len, context.options) if len(message) >= 12 else None,
    )


def sweep(maps: Maps, context: DecodeContext, now: int, final: bool) -> Iterator[DnsTransaction]:
    """Takes the exchanges out of the kernel that got no response in time; at the end of the session, all."""
    open_by_client: Counter[bytes] = Counter()
    for key, value in list(maps.pairs("pending", _KEY.size, _RECORD.size)):
        record = _RECORD.read(value)
        client = value[_CLIENT_AT : _CLIENT_AT + _CLIENT.size]
        first = _PLACE.read(record.query).t_ns
        if not record.query_count or (now - first < EXPIRES_NS and not final):
            open_by_client[client] += 1
            continue
        maps.delete("pending", key)
        expired = now - first >= EXPIRES_NS
        yield _transaction(value, DnsEnd.EXPIRED if expired else DnsEnd.STOPPED, context)
    _set_open(maps, open_by_client)


def _set_open(maps: Maps, open_by_client: Counter[bytes]) -> None:
    """Sets the kernel's counts of open exchanges, from which it takes each client's share.

    What begins or ends meanwhile makes them wrong by as much, until the next sweep.
    """
    for client, _ in list(maps.pairs("open_by_client", _CLIENT.size, _COUNT.size)):
        if client not in open_by_client:
            maps.delete("open_by_client", client)
    for client, number in open_by_client.items():
        maps.put("open_by_client", client, _COUNT.pack(number))
    maps.put("open_count", bytes(4), _COUNT.pack(open_by_client.total()))


def _words(_: DecodeContext, options: Mapping[str, str]) -> dict[str, tuple[int, ...]]:
    return {"side": (1 if options.get("side") == "client" else 0,)}


PROBE = Probe(
    name="dns",
    source="dns.bpf.c",
    views=(SKB_HEAD, SKB_PLACE, *COMMON_VIEWS),
    attachments=(
        Attachment("skb", "kfree_skb", "on_free"),
        Attachment("net", "netif_receive_skb", "on_receive"),
        Attachment("net", "net_dev_queue", "on_queue"),
    ),
    decode=decode,
    sweep=sweep,
    words=_words,
)
