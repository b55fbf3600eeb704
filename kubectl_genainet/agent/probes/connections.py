"""The connections probe (probes/connections.bpf.c): how many TCP connections there were, how they ended, what they carried."""

from __future__ import annotations

from collections.abc import Iterator

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
from kubectl_genainet.agent.probes.layout import layout
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.events import ConnectionCounts, Event
from kubectl_genainet.wire.sightings import address

ROW_KEY = layout("connections.bpf.c", "row_key")
ROW = layout("connections.bpf.c", "row")
_SIDES = ("client", "server")


def decode(_: bytes, context: DecodeContext) -> Event:
    raise GenainetError(f"node {context.node}: the connections probe sends no events")


def drain(maps: Maps, context: DecodeContext, seen: dict[bytes, int], now: int) -> Iterator[ConnectionCounts]:
    """The rows that have changed since `seen`."""
    for key, value in maps.pairs("rows", ROW_KEY.size, ROW.size):
        counts = ROW.read(value)
        if seen.get(key) == sum(counts):
            continue
        seen[key] = sum(counts)
        ends = ROW_KEY.read(key)
        yield ConnectionCounts(
            node=context.node,
            t_ns=now,
            side=_SIDES[ends.side % 2],
            client=address(ends.client),
            server=address(ends.server),
            port=ends.port,
            backend=address(ends.backend) if ends.backend_port else "",
            backend_port=ends.backend_port,
            **counts._asdict(),
        )


PROBE = Probe(
    name="connections",
    source="connections.bpf.c",
    views=(
        SKB_HEAD,
        SKB_PLACE,
        *COMMON_VIEWS,
        StructView("tcp_bytes", "tcp_sock", ("bytes_received", "bytes_acked", "snd_una")),
        StructView("sock_port", "inet_sock", ("inet_sport",)),
        StructView("sock_end", "sock", ("sk_err", "__sk_common.skc_flags")),
    ),
    attachments=(
        Attachment(
            "sock", "inet_sock_set_state", "on_state", required=False, without="connections are not counted in total"
        ),
    ),
    decode=decode,
    drain=drain,
    shared_maps=(WAYS,),
)
