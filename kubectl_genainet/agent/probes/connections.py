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
_MEMORY = b"connections: active table"


def decode(_: bytes, context: DecodeContext) -> Event:
    raise GenainetError(f"node {context.node}: the connections probe sends no events")


def drain(maps: Maps, context: DecodeContext, memory: dict[bytes, int], now: int) -> Iterator[ConnectionCounts]:
    """What was counted since the last time, not since the start. The tables change places first: what is read is not written
    any more, so that nothing is lost with what is taken out."""
    retired = memory.get(_MEMORY, 0)
    memory[_MEMORY] = 1 - retired
    maps.set_word("active", 0, 1 - retired)
    for key, value in maps.pairs(f"rows{retired}", ROW_KEY.size, ROW.size, delete=True):
        counts = ROW.read(value)
        if not any(counts):
            continue
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
