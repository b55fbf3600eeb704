"""What a trace amounts to: the backends, the findings over all connections, the account of what was seen and lost."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from kubectl_genainet.model.finding import counted
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.losses import COUNTS_LEFT_OUT
from kubectl_genainet.model.results.measure import Quantiles
from kubectl_genainet.model.results.trace import BackendSummary, ConnectionTotals, TraceSummary
from kubectl_genainet.render.agents import busiest
from kubectl_genainet.render.paragraphs import hanging
from kubectl_genainet.render.table import Column, table
from kubectl_genainet.render.text import duration, printable
from kubectl_genainet.render.trace.blocks import evidence
from kubectl_genainet.render.trace.parts import line
from kubectl_genainet.trace.summary import forgotten_text

BACKENDS_SHOWN = 5
FINDINGS_SHOWN = 20


def _name(of: BackendSummary) -> str:
    if of.backend is None:
        return "(none)"
    return of.backend.pod or address_text(of.backend.ip, of.backend.port)


def _quantiles(which: str) -> tuple[Column[BackendSummary], ...]:
    def of(b: BackendSummary) -> Quantiles:
        quantiles: Quantiles = getattr(b, which)
        return quantiles

    spare = {"response": 0, "handshake": 2, "path": 3}[which]
    return (
        Column(f"{which.upper()} P50", lambda b: duration(of(b).p50) if of(b).count else "-", right=True, spare=spare),
        Column("P99", lambda b: duration(of(b).p99) if of(b).count else "-", right=True, spare=spare),
    )


BACKEND_COLUMNS: tuple[Column[BackendSummary], ...] = (
    Column("BACKEND", _name),
    Column("NODE", lambda b: (b.backend.node or "?") if b.backend else "-"),
    Column("CONNS", lambda b: str(b.connections), right=True),
    Column("SHARE", lambda b: f"{b.share:.0%}", right=True, spare=1),
    Column("DROPS", lambda b: str(b.drops), right=True, style=lambda b: "bold red" if b.drops else ""),
    Column("RETRANS", lambda b: str(b.retransmits), right=True, spare=1),
    *_quantiles("response"),
    *_quantiles("handshake"),
    *_quantiles("path"),
)


def _number_of(name: str) -> Column[ConnectionTotals]:
    return Column(name.upper().replace("_", " "), lambda totals: str(getattr(totals, name)), right=True)


TOTALS_TITLE = "All TCP connections of the trace, counted in the kernel at the clients' and at the servers' sockets:"
TOTALS_COLUMNS: tuple[Column[ConnectionTotals], ...] = (
    Column("COUNTED AT", lambda t: t.counted_at),
    Column("CLIENT", lambda t: t.client),
    Column("SERVICE", lambda t: f"svc/{t.service.name}:{t.service.port}" if t.service else "-"),
    Column("BACKEND", lambda t: t.backend or "-"),
    *map(
        _number_of,
        ("opened", "established", "ended", "refused", "timed_out", "given_up", "reset", "sent", "received"),
    ),
)


def summary_block(
    summary: TraceSummary, width: int, *, shown: frozenset[str] = frozenset(), most: int = BACKENDS_SHOWN
) -> RenderableType:
    """The backends, the worst first; findings whose checks are not `shown` yet; the account of what was seen and lost."""
    parts: list[RenderableType] = []
    backends = sorted(summary.backends, key=lambda b: (-b.drops, -b.connections))
    if backends:
        parts += [Text(""), table(BACKEND_COLUMNS, backends[:most])]
    if len(backends) > most:
        parts.append(Text(f"… and {len(backends) - most} more backends (all with -o wide)", style="dim"))
    findings = [finding for finding in summary.findings if finding.check not in shown]
    for finding in findings[:FINDINGS_SHOWN]:
        parts += hanging(line(Text("! ", style="bold yellow"), finding.title), width, hang=2)
        parts += [part for item in finding.evidence for part in hanging(evidence(item), width, indent=2, hang=2)]
    if len(findings) > FINDINGS_SHOWN:
        parts.append(Text(f"… and {len(findings) - FINDINGS_SHOWN} more findings (all with -o json)", style="dim"))
    if summary.sampled > 1 and summary.totals:
        parts += [Text(""), Text(TOTALS_TITLE, style="dim"), table(TOTALS_COLUMNS, summary.totals)]
    parts += [Text(""), *hanging(Text(account(summary), style="dim"), width)]
    return Group(*parts)


def totals_lack(summary: TraceSummary) -> bool:
    return any(losses.probe == "connections" for losses in summary.lost)


def account(summary: TraceSummary) -> str:
    verdicts = ", ".join(f"{n} {name}" for name, n in sorted(summary.verdicts.items())) or "none"
    events = summary.events
    emitted, lost = events.get("emitted"), events.get("lost")
    account_of_events = (
        f"{emitted} events, {lost} lost"
        if emitted is not None
        else "events not accounted for: not every agent ended its stream"
    )
    sightings = f"{counted(summary.counted.get('packets', 0), 'packet sighting')} counted"
    if without := sum(losses.count for losses in summary.lost if losses.where == COUNTS_LEFT_OUT):
        sightings += f", without {counted(without, 'record')} of flows beyond those that are held"
    text = f"{counted(summary.connections, 'connection')} ({verdicts}); {account_of_events}; {sightings}"
    text += f"; nodes: {', '.join(summary.nodes) or 'none'}"
    if summary.half_seen:
        text += f"; {summary.half_seen} began before the trace or were open at its end"
    if summary.forgotten:
        text += f"; {forgotten_text(summary.forgotten)}"
    if summary.not_shown:
        text += f"; {summary.not_shown} left out by the filters"
    if summary.sampled > 1:
        text += (
            f"; the agents kept within their budget of CPU time (--budget): at times one connection in {summary.sampled} was "
            f"followed, and {summary.left_out} that were seen in part are left out; "
            f"totals are of all{' but what was lost of them' if totals_lack(summary) else ''}"
        )
    if summary.agents:
        text += f"; {busiest(summary.agents)}"
    if summary.findings_left_out:
        text += f"; {counted(summary.findings_left_out, 'finding')} beyond those that are held"
    if summary.silent_nodes:
        text += f"; broke off: {', '.join(summary.silent_nodes)}"
    return printable(text)
