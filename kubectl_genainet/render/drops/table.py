"""How drops are shown: a table that refreshes in place on a terminal, with what is behind each row; JSON or YAML."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.text import Text

from kubectl_genainet.model.diagnoses.rules import CONNTRACK_FULL, POLICY_DISAGREEMENT
from kubectl_genainet.model.finding import Certainty, Severity, counted
from kubectl_genainet.model.packet import address_text
from kubectl_genainet.model.results.drops import Agreement, DropOutcome, DropRow, DropSummary
from kubectl_genainet.model.results.path import Party
from kubectl_genainet.render.agents import busiest
from kubectl_genainet.render.paragraphs import hanging
from kubectl_genainet.render.table import Column
from kubectl_genainet.render.text import CERTAINTY_STYLE, SEVERITY_STYLE, moment, printable

DETAILS = 12  # rows that are explained below the table


EVIDENCE = 8


_AGREEMENT = {
    Agreement.AGREE: "the policies agree: none of them admits it",
    Agreement.API_ADMITS: "the policies admit it",
    Agreement.API_ISOLATES: "the policies do not admit it, and it passes: the kernel and the API disagree",
    Agreement.UNKNOWN: "it is not known what the policies say",
}


def agreement(row: DropRow) -> str | None:
    """What the policies say beside the kernel; that the two disagree only where an enforcer's rule stands against them."""
    if row.policy is None:
        return None
    enforcer = row.check == POLICY_DISAGREEMENT.name
    return _AGREEMENT[row.policy.agreement] + (": the kernel and the API disagree" if enforcer else "")


def who(party: Party | None) -> str:
    """A pod by name, else a node, else the address; the port where there is one."""
    if party is None:
        return "-"
    name = party.pod or (f"node/{party.node}" if party.node else "")
    if not name:
        return address_text(party.ip, party.port)
    return f"{name}:{party.port}" if party.port else name


def client(row: DropRow) -> str:
    return f"{who(row.client)} or behind it" if row.client_hidden else who(row.client)


def where(row: DropRow) -> str:
    """The namespace it happened in, and the hook or device."""
    place = row.pod.partition("/")[2] if row.pod else row.node
    spot = (row.drop.hook or row.drop.device) if row.drop else None
    return f"{place} {spot}" if spot else place


def reason(row: DropRow) -> str:
    return row.drop.reason if row.drop is not None else row.check


def _arrow(row: DropRow) -> str:
    return "" if row.direction == "request" else row.direction


COLUMNS: tuple[Column[DropRow], ...] = (
    Column("PACKETS", lambda r: str(r.packets), right=True),
    Column("WHAT", lambda r: r.outcome.value, style=lambda r: SEVERITY_STYLE[r.severity]),
    Column("CLIENT", client),
    Column("SERVER", lambda r: who(r.server)),
    Column("SERVICE", lambda r: f"{r.service.name}:{r.service.port}" if r.service else "-"),
    Column("PROTO", lambda r: r.protocol.value if r.client or r.server else "-", spare=1),
    Column("WAY", _arrow, wide=True),
    Column("WHERE", where),
    Column("NODE", lambda r: r.node, wide=True),
    Column("REASON", reason),
    Column("LOCATION", lambda r: r.drop.location if r.drop else "-", wide=True),
    Column("FIRST", lambda r: moment(r.time) or "-", spare=1),
    Column("LAST", lambda r: moment(r.last_time) or "-"),
    Column("BYTES", lambda r: str(r.bytes), wide=True, right=True),
    Column("POLICY", lambda r: r.policy.agreement.value if r.policy else "-", wide=True),
    Column("WHY", lambda r: r.title, wide=True),
)


def _certain(text: str, certainty: Certainty, style: str = "") -> Text:
    line = Text(printable(text), style=style, overflow="fold")
    return line.append(f" [{certainty.value}]", style=CERTAINTY_STYLE[certainty])


def alike(rows: list[DropRow]) -> list[tuple[DropRow, int]]:
    """The first row of each kind (check, workloads, Service, direction), and how many more are like it."""
    kinds: dict[tuple[object, ...], list[DropRow]] = {}
    for row in rows:
        if row.check == CONNTRACK_FULL.name:
            kinds.setdefault((row.check, row.node), []).append(row)
            continue
        ends = tuple((p.workload or p.pod or p.ip) if p is not None else None for p in (row.client, row.server))
        service = (row.service.namespace, row.service.name) if row.service else ends[1]
        kinds.setdefault((row.check, row.outcome, ends[0], service, row.direction), []).append(row)
    return [(same[0], len(same) - 1) for same in kinds.values()]


def details(row: DropRow, width: int, more: int = 0) -> RenderableType:
    """What is behind a row, each statement with how it is known; `more` rows are like it."""
    mark = "✗" if row.severity is Severity.ERROR else "!" if row.severity is Severity.WARNING else "·"
    arrow = "?→" if row.direction == "unknown" else "→"
    ends = f"{client(row)} {arrow} {who(row.server)}" if row.client or row.server else row.node
    head = Text(f"{mark} ", style=SEVERITY_STYLE[row.severity], overflow="fold")
    head.append(printable(f"{ends} {row.protocol.value if row.client else ''}".rstrip()), style="bold")
    way = {"reply": ", in the reply's direction", "unknown": "; which end is the server is not known"}.get(
        row.direction, ""
    )
    unit = "connection" if row.outcome is DropOutcome.PASSED else "packet"
    unit += "s" if row.packets != 1 else ""
    others = f"; {more} more like it" if more else ""
    head.append(printable(f"  {row.outcome.value}, {row.packets} {unit}{way}{others}"))
    certainty = row.drop.certainty if row.drop is not None else Certainty.OBSERVED
    lines = [_certain(row.title, certainty)]
    if row.drop is not None and row.drop.rule:
        lines.append(_certain(row.drop.rule, row.drop.certainty, "cyan"))
        if row.drop.told:
            lines.append(_certain(f"the rule tells the sender: {row.drop.told}", Certainty.DERIVED))
    if (said := agreement(row)) is not None:
        lines.append(_certain(said, Certainty.ASSUMED))
    if row.policy is not None and row.policy.causes:
        lines.append(_certain(f"not known which: {'; '.join(row.policy.causes)}", Certainty.UNKNOWN))
    lines += [_certain(item.statement, item.certainty) for item in row.evidence[:EVIDENCE]]
    wrapped = (part for text in lines for part in hanging(text, width, indent=4, hang=2))
    return Group(*hanging(head, width, hang=2), *wrapped)


def account(summary: DropSummary) -> str:
    nothing = "nothing was dropped" if summary.nodes else "no node was watched"
    packets = ", ".join(f"{n} {name}" for name, n in sorted(summary.packets.items())) or nothing
    events = summary.events
    account_of_samples = (
        f"{events['emitted']} samples, {events['lost']} lost"
        if events.get("emitted") is not None
        else "samples not accounted for: not every agent ended its stream"
    )
    text = packets
    if summary.background:
        text += f"; {counted(summary.background, 'harmless free')} hidden (--all shows them)"
    text += f"; {account_of_samples}"
    if summary.observers:
        text += f"; {summary.observers} of the agents' own left out"
    if summary.forgotten:
        text += f"; {summary.forgotten} counts found no room"
    text += f"; nodes: {', '.join(summary.nodes) or 'none'}"
    if summary.agents:
        text += f"; {busiest(summary.agents)}"
    if summary.silent_nodes:
        text += f"; broke off: {', '.join(summary.silent_nodes)}"
    return printable(text)
