"""The connections probe (probes/connections.bpf.c): how many TCP connections there were, how they ended, what they carried."""

from __future__ import annotations

import struct
from collections.abc import Iterator

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
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import ConnectionCounts, Event
from kubectl_genainet.wire.sightings import address

# struct row_key: client, server, port, side
ROW_KEY = struct.Struct("<16s16sHB5x")
# struct row: opened, established, refused, timed_out, given_up, ended, reset, sent, received
ROW = struct.Struct("<9Q")
_SIDES = ("client", "server")


def decode(_: bytes, context: DecodeContext) -> Event:
    raise GenainetError(f"node {context.node}: the connections probe sends no events")


def drain(maps: Maps, context: DecodeContext, seen: dict[bytes, int], now: int) -> Iterator[ConnectionCounts]:
    """The rows that have changed since `seen`."""
    for key, value in maps.pairs("rows", ROW_KEY.size, ROW.size):
        counts = ROW.unpack(value)
        if seen.get(key) == sum(counts):
            continue
        seen[key] = sum(counts)
        client, server, port, side = ROW_KEY.unpack(key)
        opened, established, refused, timed_out, given_up, ended, reset, sent, received = counts
        yield ConnectionCounts(
            node=context.node,
            t_ns=now,
            side=_SIDES[side % 2],
            client=address(client),
            server=address(server),
            port=port,
            opened=opened,
            established=established,
            refused=refused,
            timed_out=timed_out,
            given_up=given_up,
            ended=ended,
            reset=reset,
            sent=sent,
            received=received,
        )


PROBE = Probe(
    name="connections",
    source="connections.bpf.c",
    views=(
        SKB_HEAD,
        SKB_PLACE,
        *COMMON_VIEWS,
        View("tcp_bytes", "tcp_sock", ("bytes_received", "bytes_acked")),
        View("sock_end", "sock", ("sk_err", "__sk_common.skc_flags")),
    ),
    attachments=(
        Attachment(
            "sock", "inet_sock_set_state", "on_state", required=False, without="connections are not counted in total"
        ),
    ),
    decode=decode,
    drain=drain,
)
