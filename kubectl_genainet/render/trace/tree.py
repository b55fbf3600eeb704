"""One path as a tree: client → Service → rule → backend, and under it the hops, the NAT where it happens, the end."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from kubectl_genainet.model.finding import Certainty, Evidence, counted
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.measure import Quantiles
from kubectl_genainet.model.results.path import Hop, PacketPath, Party, Stream, Verdict
from kubectl_genainet.model.results.trace import BackendSummary, TraceSummary
from kubectl_genainet.render.table import Column, table
from kubectl_genainet.render.text import CERTAINTY_STYLE, duration, printable
from kubectl_genainet.render.trace.http import http_text

_VERDICT_STYLE = {
    Verdict.FORWARDED: "green",
    Verdict.DROPPED: "bold red",
    Verdict.REJECTED: "bold red",
    Verdict.UNANSWERED: "bold red",
    Verdict.RESET: "bold red",
    Verdict.UNKNOWN: "yellow",
}


def party_text(party: Party | None) -> str:
    """ "pod (node) address", as much of it as is known."""
    if party is None:
        return "no backend"
    address = address_text(party.ip, party.port)
    name = party.pod or (f"node {party.node}" if party.node else "")
    where = f" on {party.node}" if party.pod and party.node else ""
    return printable(f"{name}{where}  {address}" if name else address)


def certainty(of: Certainty) -> Text:
    return Text(f"[{of.value}]", style=CERTAINTY_STYLE[of])


def _line(*parts: str | Text) -> Text:
    line = Text(overflow="fold")
    for part in parts:
        line.append_text(part) if isinstance(part, Text) else line.append(printable(part))
    return line


def path_tree(path: PacketPath, count: int, width: int) -> RenderableType:
    """The tree of one path; `count` connections went the same way."""
    times = f"  ×{count}" if count > 1 else ""
    root = Tree(_line(Text(party_text(path.flow.client), style="bold"), f"  {path.flow.protocol.value}{times}"))
    branch = root
    if path.flow.service is not None:
        service = path.flow.service
        port = f"{service.port} ({service.port_name})" if service.port_name else str(service.port)
        name = f"svc/{service.name}:{port}"
        branch = branch.add(_line(Text(printable(name), style="cyan"), f"  {address_text(service.ip, service.port)}"))
    if path.nat is not None:
        chains = (
            " → ".join(c for c in (path.nat.service_chain, path.nat.endpoint_chain) if c) or "a rule that is not known"
        )
        branch = branch.add(_line(f"{path.nat.mode} {chains} ", certainty(path.nat.certainty)))
    verdict = Text(path.verdict.value.upper(), style=_VERDICT_STYLE[path.verdict])
    branch = branch.add(_line(Text(party_text(path.backend), style="bold"), "  ", verdict, _times(path)))
    if path.stream is not None:
        branch.add(_line(Text(stream_text(path.stream), style="dim")))
    if path.http is not None:
        branch.add(_line(Text(http_text(path.http), style="dim")))
    if path.hops:
        branch.add(hop_table(path, width))
    _add_ending(branch, path)
    return root


def _times(path: PacketPath) -> str:
    parts = []
    if path.handshake_ns is not None:
        parts.append(f"handshake {duration(path.handshake_ns)}")
    if path.response_ns is not None:
        parts.append(f"response {duration(path.response_ns)}")
    if path.attempts > 1:
        parts.append(counted(path.attempts, "attempt"))
    if path.retransmits:
        parts.append(counted(path.retransmits, "retransmit"))
    if path.recovered_drops:
        parts.append(f"{counted(path.recovered_drops, 'drop')} made good")
    if path.incomplete:
        parts.append("incomplete: records were lost")
    if path.waited and path.verdict is not Verdict.FORWARDED:
        parts.append(path.waited)
    return "  " + ", ".join(parts) if parts else ""


def stream_text(stream: Stream) -> str:
    """What a connection carried, in a line."""
    parts = [f"{stream.request_bytes} bytes asked, {stream.reply_bytes} back"]
    if stream.first_reply_ns is not None:
        parts.append(f"the first after {duration(stream.first_reply_ns)}")
    if stream.gap_p50_ns is not None:
        parts.append(f"gaps {duration(stream.gap_p50_ns)} (p50), {duration(stream.gap_p99_ns or 0)} (p99)")
    if stream.silence is not None:
        silence = stream.silence
        parts.append(f"longest silence {duration(silence.length_ns)} (waiting for the {silence.waited_for})")
    ending = f"ended by the {stream.ended_by} ({stream.ended})" if stream.ended_by else "still open"
    parts.append(f"{ending} after {duration(stream.lasted_ns)}")
    return ", ".join(parts)


def hop_table(path: PacketPath, width: int) -> Table:
    """The hops with the time since the one before; the NAT is marked at the hop where it shows first."""
    out = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("where", "device", "point"):
        out.add_column(name, overflow="fold")
    out.add_column("time", justify="right", no_wrap=True)
    out.add_column("note", overflow="fold")
    before: Hop | None = None
    for number, hop in enumerate(path.hops):
        note = Text(overflow="fold")
        if path.nat is not None and path.nat.hop is not None and number == path.nat.hop + 1:
            note.append(f"NAT {path.nat.before} → {path.nat.after}", style="magenta")
        if hop.tunnel:
            note.append(f"{' ' if note else ''}inside {hop.tunnel}", style="dim")
        if before is not None and before.src != hop.src:
            note.append(f"{' ' if note else ''}source now {hop.src}", style="magenta")
        where = f"{hop.pod}" if hop.pod else f"{hop.node}"
        out.add_row(printable(where), printable(hop.device), hop.point, _since(before, hop), note)
        before = hop
    return out


def _since(before: Hop | None, hop: Hop) -> str:
    if before is None:
        return "0"
    if hop.t_error_ns is None or before.t_error_ns is None:
        return "?" if hop.node != before.node else f"+{duration(hop.t_ns - before.t_ns)}"
    error = (hop.t_error_ns + before.t_error_ns) if hop.node != before.node else 0
    since = hop.t_ns - before.t_ns
    return f"{'-' if since < 0 else '+'}{duration(abs(since))}" + (f" ±{duration(error)}" if error else "")


def _add_ending(branch: Tree, path: PacketPath) -> None:
    """Why the path ended where it did, each statement with how it is known."""
    drop = path.drop
    if drop is not None:
        place = [
            f"hook {drop.hook}" if drop.hook else "",
            f"device {drop.device}" if drop.device else "",
            drop.location,
        ]
        head = f"{drop.reason} in {drop.pod or drop.node or '?'} ({', '.join(p for p in place if p)}) "
        end = branch.add(
            _line(Text("✗ ", style="bold red"), Text(printable(head), style="red"), certainty(Certainty.OBSERVED))
        )
        if drop.explanation:
            end.add(_line(drop.explanation, " ", certainty(drop.certainty)))
        if drop.rule:
            end.add(
                _line(Text(printable(drop.rule), style="cyan"), " ", certainty(drop.rule_certainty or drop.certainty))
            )
        for item in drop.evidence[1:8]:
            end.add(_evidence(item))
        if drop.remedy is not None:
            fix = end.add(_line(Text("what would admit it: ", style="green"), drop.remedy.text))
            fix.add(_line(Text(printable(drop.remedy.command), style="cyan"), "  prints the YAML"))
    for finding in path.findings:
        end = branch.add(_line(Text("! ", style="bold yellow"), finding.title))
        for item in finding.evidence:
            end.add(_evidence(item))


def _evidence(item: Evidence) -> Text:
    return _line(item.statement, " ", certainty(item.certainty))


def _quantile(which: str) -> tuple[Column[BackendSummary], Column[BackendSummary]]:
    def of(b: BackendSummary) -> Quantiles:
        found: Quantiles = getattr(b, which)
        return found

    return (
        Column(f"{which.upper()} P50", lambda b: duration(of(b).p50) if of(b).count else "-", right=True),
        Column("P99", lambda b: duration(of(b).p99) if of(b).count else "-", right=True),
    )


TABLE_WIDTH = 150  # of BACKEND_COLUMNS, with the names that pods have
BACKEND_COLUMNS: tuple[Column[BackendSummary], ...] = (
    Column(
        "BACKEND", lambda b: (b.backend.pod or address_text(b.backend.ip, b.backend.port)) if b.backend else "(none)"
    ),
    Column("NODE", lambda b: (b.backend.node or "?") if b.backend else "-"),
    Column("CONNS", lambda b: str(b.connections), right=True),
    Column("SHARE", lambda b: f"{b.share:.0%}", right=True),
    *_quantile("path"),
    *_quantile("handshake"),
    *_quantile("response"),
    Column("RETRANS", lambda b: str(b.retransmits), right=True),
    Column("DROPS", lambda b: str(b.drops), right=True, style=lambda b: "bold red" if b.drops else ""),
)


def _backend_lines(backend: BackendSummary) -> RenderableType:
    """The row of a backend where its table does not fit."""
    name = "no backend"
    if backend.backend is not None:
        name = backend.backend.pod or address_text(backend.backend.ip, backend.backend.port)
        name += f" on {backend.backend.node}" if backend.backend.node else ""
    times = [
        f"{what} {duration(q.p50)}/{duration(q.p99)}"
        for what, q in (("path", backend.path), ("handshake", backend.handshake), ("response", backend.response))
        if q.count
    ]
    ends = f"{counted(backend.retransmits, 'retransmit')}, {counted(backend.drops, 'drop')}"
    return Group(
        _line(
            Text(printable(name), style="bold"), f"  {counted(backend.connections, 'connection')} ({backend.share:.0%})"
        ),
        _line(
            "  ",
            ", ".join(times),
            " (p50/p99); " if times else "",
            Text(ends, style="bold red" if backend.drops else ""),
        ),
    )


def summary_block(summary: TraceSummary, width: int) -> RenderableType:
    """Per backend a row of a table, or two lines where `width` has no room for it; the findings, and the account of what
    was lost."""
    parts: list[RenderableType] = []
    if summary.backends:
        fits = width >= TABLE_WIDTH
        parts += [
            Text(""),
            *([table(BACKEND_COLUMNS, summary.backends)] if fits else map(_backend_lines, summary.backends)),
        ]
    for finding in summary.findings[:20]:
        parts.append(_line(Text("! ", style="bold yellow"), finding.title))
        parts += [_line("  ", _evidence(item)) for item in finding.evidence]
    parts += [Text(""), Text(_account(summary), style="dim")]
    return Group(*parts)


def _account(summary: TraceSummary) -> str:
    verdicts = ", ".join(f"{n} {name}" for name, n in sorted(summary.verdicts.items())) or "none"
    events = summary.events
    emitted, lost = events.get("emitted"), events.get("lost")
    seen = (
        f"{emitted} events, {lost} lost"
        if emitted is not None
        else "events not accounted for: not every agent ended its stream"
    )
    sightings = f"{counted(summary.counted.get('packets', 0), 'packet sighting')} counted"
    text = f"{counted(summary.connections, 'connection')} ({verdicts}); {seen}; {sightings}"
    text += f"; nodes: {', '.join(summary.nodes) or 'none'}"
    if summary.half_seen:
        text += f"; {summary.half_seen} were already open when the trace started, or still open when it ended"
    if summary.sampled > 1:
        text += (
            f"; the agents kept within their budget of CPU time (--budget): at times one connection in {summary.sampled} was "
            f"followed, and {summary.left_out} that were seen in part are left out"
        )
    if summary.silent_nodes:
        text += f"; broke off: {', '.join(summary.silent_nodes)}"
    return printable(text)
