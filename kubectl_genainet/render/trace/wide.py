"""One line a path, for `-o wide`."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.path import Hop, PacketPath, Verdict
from kubectl_genainet.render.table import Column
from kubectl_genainet.render.text import duration, printable
from kubectl_genainet.render.trace.parts import VERDICT_STYLE
from kubectl_genainet.trace.shown.groups import service_name

WIDE_COLUMNS: tuple[Column[PacketPath], ...] = (
    Column("TIME", lambda p: p.time or "-"),
    Column("CLIENT", lambda p: p.flow.client.pod or p.flow.client.ip),
    Column("SERVICE", lambda p: f"{p.flow.service.name}:{p.flow.service.port}" if p.flow.service else "-"),
    Column("BACKEND", lambda p: (p.backend.pod or p.backend.ip) if p.backend else "-"),
    Column("VERDICT", lambda p: p.verdict.value),
    Column("REASON", lambda p: p.drop.reason if p.drop else "-"),
    Column("HOOK", lambda p: (p.drop.hook or "-") if p.drop else "-"),
    Column("HOPS", lambda p: str(len(p.hops))),
    Column("HANDSHAKE", lambda p: duration(p.handshake_ns) if p.handshake_ns is not None else "-"),
    Column("RESPONSE", lambda p: duration(p.response_ns) if p.response_ns is not None else "-"),
    Column("CHAIN", lambda p: (p.nat.service_chain or "-") if p.nat else "-"),
    Column("BYTES BACK", lambda p: str(p.stream.reply_bytes) if p.stream else "-"),
    Column("SILENCE", lambda p: _silence(p)),
    Column("END", lambda p: _ending(p)),
    Column("WAY BACK", lambda p: ways_back(p)),
    Column("ENDPOINT CHAIN", lambda p: (p.nat.endpoint_chain or "-") if p.nat else "-"),
)
_WIDTHS = (27, 28, 24, 30, 10, 18, 13, 5, 10, 10, 28, 10, 18, 14, 40, 0)


def ways_back(path: PacketPath) -> str:
    """The SYN-ACK's way, and the first data's where that took another, or did not get as far. "…": its begin was not seen."""
    first, data = way_back(path.back), way_back(path.back_data)
    if path.back and path.hops and path.back[0].node != path.hops[-1].node:
        first = f"… · {first}"
    return f"{first}; data: {data}" if path.back_data and data != first else first


def way_back(hops: Sequence[Hop]) -> str:
    """The answer's way: each pod and node with the devices by which it came and went."""
    parts: list[str] = []
    for hop in hops:
        where = hop.pod or hop.node
        step = f"{'→' if hop.point == 'tx' else '←'}{hop.device}"
        if parts and parts[-1].startswith(f"{where} "):
            parts[-1] += step
        else:
            parts.append(f"{where} {step}")
    return " · ".join(parts) or "-"


def _silence(path: PacketPath) -> str:
    silence = path.stream.silence if path.stream else None
    return f"{duration(silence.length_ns)} {silence.waited_for.value}" if silence else "-"


def _ending(path: PacketPath) -> str:
    if path.stream is None:
        return "-"
    return f"{path.stream.ended} {path.stream.ended_by}".rstrip()


def wide_line(cells: Sequence[str]) -> Text:
    """The cells side by side, in columns of fixed width: lines come one by one, so no width is known ahead."""
    return Text("  ".join(printable(c).ljust(w) for c, w in zip(cells, _WIDTHS, strict=True)).rstrip(), no_wrap=True)


def follow_line(path: PacketPath) -> Text:
    """Time, verdict, client → Service → backend, the times, and why."""
    client, service, backend = path.flow.client, path.flow.service, path.backend
    ends = [client.pod or address_text(client.ip, client.port), service_name(service)]
    ends.append((backend.pod or address_text(backend.ip, backend.port)) if backend else "no backend")
    times = [
        f"{what} {duration(ns)}"
        for what, ns in (("handshake", path.handshake_ns), ("response", path.response_ns))
        if ns is not None
    ]
    why = (
        path.drop.explanation or path.drop.reason
        if path.drop
        else "; ".join(f.title for f in path.findings) or path.waited
    )
    out = Text(printable(path.time or "-"), style="dim")
    out.append(f"  {path.verdict.value.upper():<10}", style=VERDICT_STYLE[path.verdict])
    out.append(printable(f"  {' → '.join(end for end in ends if end)}"))
    out.append(printable(f"  {', '.join(times)}" if times else ""), style="dim")
    return out.append(printable(f"  {why}" if (why and path.verdict is not Verdict.FORWARDED) or path.findings else ""))
