"""The DNS probe (probes/dns.bpf.c): queries over UDP, joined with their responses in the kernel."""

from __future__ import annotations

import struct
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache

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
from kubectl_genainet.agent.probes.decode import drop_reason, five_tuple, hook_of, text
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

EXPIRES_NS = 5_000_000_000  # glibc's and musl's resolvers wait for 5 s (resolv.conf(5), RES_TIMEOUT)
ANSWERS_PER_SECOND = 500  # messages whose answers are decoded; those of the others are not looked at

# struct dns_record up to its tuples: kind, id, skb, query_len, response_len, query_captured, response_captured,
# flow_count, query_count, response_count; and its client
_HEAD = struct.Struct("<IH2xQ4I3B5x")
_CLIENT_SIZE = 24
_COUNT = struct.Struct("<q")
_RECORD_HEAD = _HEAD.size + _CLIENT_SIZE
_TUPLE = struct.Struct("<16s16sHHB3x")
_PLACE = struct.Struct("<QIIBB6x")
_FLOWS, _PLACES = 4, 8
_QUERY_AT = _RECORD_HEAD + _FLOWS * _TUPLE.size
_RESPONSE_AT = _QUERY_AT + _PLACES * _PLACE.size
_DATA_AT = _RESPONSE_AT + _PLACES * _PLACE.size
RECORD_SIZE = _DATA_AT + 288 + 512
assert RECORD_SIZE == 1408
# struct dns_drop up to its data: kind, id, ip_id, skb, t_ns, tuple, netns, ifindex, len, captured, seq, ack, device,
# location, reason, depth, stack, tcp_flags
_DROP = struct.Struct("<IHHQQ16s16sHHB3x6I16sQII20QB7x")
assert _DROP.size + 288 == 576
_KEY_SIZE = 8
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


def _flow(data: bytes, index: int) -> FiveTuple:
    return five_tuple(*_TUPLE.unpack_from(data, _RECORD_HEAD + index * _TUPLE.size))


def _places(data: bytes, at: int, count: int) -> tuple[DnsPlace, ...]:
    return tuple(
        DnsPlace(t_ns, netns, ifindex, _POINTS[point], flow)
        for t_ns, netns, ifindex, point, flow in _PLACE.iter_unpack(data[at : at + count * _PLACE.size])
    )


def _transaction(data: bytes, end: DnsEnd, context: DecodeContext) -> DnsTransaction:
    (_, number, _, query_len, response_len, query_got, response_got, flows, queries, responses) = _HEAD.unpack_from(
        data
    )
    query, response = _places(data, _QUERY_AT, queries), _places(data, _RESPONSE_AT, responses)
    answer_at = _DATA_AT + query_got
    return DnsTransaction(
        node=context.node,
        t_ns=(response or query)[-1].t_ns,
        id=number,
        end=end,
        flows=tuple(_flow(data, i) for i in range(flows)),
        query=query,
        response=response,
        asked=message_of(data[_DATA_AT:answer_at], query_len, context.options),
        answer=message_of(data[answer_at : answer_at + response_got], response_len, context.options)
        if response
        else None,
    )


def _lone(data: bytes, context: DecodeContext) -> DnsMessageSeen:
    (_, number, _, query_len, response_len, query_got, response_got, _, _, responses) = _HEAD.unpack_from(data)
    place = _places(data, _RESPONSE_AT if responses else _QUERY_AT, 1)[0]
    flow = _flow(data, 0)
    return DnsMessageSeen(
        node=context.node,
        t_ns=place.t_ns,
        netns=place.netns,
        ifindex=place.ifindex,
        point=place.point,
        id=number,
        flow=flow.reversed if responses else flow,
        message=message_of(
            data[_DATA_AT : _DATA_AT + query_got + response_got], query_len or response_len, context.options
        ),
    )


def _drop(data: bytes, context: DecodeContext) -> DnsDropped:
    (
        _,
        number,
        ip_id,
        skb,
        t_ns,
        src,
        dst,
        sport,
        dport,
        proto,
        netns,
        ifindex,
        length,
        captured,
        seq,
        ack,
        device,
        location,
        reason,
        depth,
        *rest,
    ) = _DROP.unpack_from(data)
    stack = tuple(context.symbol(frame) or hex(frame) for frame in rest[: min(depth, 20)])
    is_tcp = proto == 6
    payload = data[_DROP.size : _DROP.size + captured]
    return DnsDropped(
        node=context.node,
        t_ns=t_ns,
        netns=netns,
        ifindex=ifindex,
        device=text(device),
        skb=skb,
        flow=five_tuple(src, dst, sport, dport, proto),
        length=length,
        payload=length,
        ip_id=ip_id,
        tcp=TcpFlags(seq, ack, rest[20]) if is_tcp else None,
        reason=drop_reason(reason, context.drop_reasons),
        location=context.symbol(location) or hex(location),
        stack=stack,
        hook=hook_of(stack),
        id=number,
        message=message_of(payload, length, context.options) if len(payload) >= 12 else None,
    )


def sweep(maps: Maps, context: DecodeContext, now: int, final: bool) -> Iterator[DnsTransaction]:
    """Takes the exchanges out of the kernel that got no response in time; at the end of the session, all."""
    open_by_client: Counter[bytes] = Counter()
    for key, value in list(maps.pairs("pending", _KEY_SIZE, RECORD_SIZE)):
        client = value[_HEAD.size : _RECORD_HEAD]
        queries = value[_HEAD.size - 7]
        first = _PLACE.unpack_from(value, _QUERY_AT)[0]
        if not queries or (now - first < EXPIRES_NS and not final):
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
    for client, _ in list(maps.pairs("open_by_client", _CLIENT_SIZE, _COUNT.size)):
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
