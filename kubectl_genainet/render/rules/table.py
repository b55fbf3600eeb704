"""kube-proxy's rules for a person: a table or a tree of addresses and backends, and the answers to flows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text
from rich.tree import Tree

from kubectl_genainet.model.finding import Finding, counted
from kubectl_genainet.proxy.batch import FlowPart, FlowResult
from kubectl_genainet.proxy.drift.ways import CLIENTS, ServiceWay
from kubectl_genainet.proxy.exact import RuleCount
from kubectl_genainet.proxy.iptables.ipset import IpSet
from kubectl_genainet.proxy.report import RulesReport, RulesRow
from kubectl_genainet.proxy.ruleset import Ruleset
from kubectl_genainet.render.paragraphs import Fitted, command_lines, hanging
from kubectl_genainet.render.table import Column, WhereItFits, table
from kubectl_genainet.render.text import CERTAINTY_STYLE, SEVERITY_STYLE, markup_safe, printable


def rules_records(report: RulesReport, rulesets: Iterable[Ruleset], sets: Sequence[IpSet] = ()) -> Iterator[Any]:
    """A report as records: its rows and ways, then findings, what was not checked, IPVS's servers and ipsets."""
    yield from report.rows
    yield from report.ways
    servers = [server for ruleset in rulesets for server in ruleset.virtual_servers]
    for kind, values in (
        ("finding", report.findings),
        ("not-checked", report.not_checked),
        ("virtual-server", servers),
        ("ipset", sets),
    ):
        yield from ({"kind": kind, **msgspec.to_builtins(value)} for value in values)


def _number(value: int | None) -> str:
    return "?" if value is None else str(value)


def _endpoints(row: RulesRow) -> str:
    have = len({b.address for b in row.address.backends})
    have_text = "?" if row.address.unread else f"{have}"
    return have_text if row.expected is None else f"{have_text}/{row.expected}"


def _hits(row: RulesRow) -> str:
    """By the rules' own counters, or (--hits, where rules have none) the connections that conntrack saw begin."""
    counts = [b.connections for b in row.address.backends]
    if row.address.packets is not None:
        return str(row.address.packets)
    if row.begun is not None:
        return str(row.begun)
    return "?" if not counts or None in counts else str(sum(c or 0 for c in counts))


def _state_style(row: RulesRow) -> str:
    return "" if row.state in ("", "in step") else "yellow"


COLUMNS: tuple[Column[RulesRow], ...] = (
    Column("NODE", lambda r: r.node),
    Column("MODE", lambda r: r.mode),
    Column("SERVICE PORT", lambda r: r.service or "?"),
    Column("PROTOCOL", lambda r: r.protocol),
    Column("ADDRESS", lambda r: r.address.address),
    Column("VIA", lambda r: r.address.via),
    Column("VERDICT", lambda r: r.address.verdict),
    Column("CHAIN", lambda r: r.address.chain or "-"),
    Column("ENDPOINTS", _endpoints, right=True),
    Column("HITS", _hits, right=True),
    Column("CONNTRACK", lambda r: _number(r.conntrack), wide=True, right=True),
    Column("SOURCE", lambda r: r.source, wide=True),
    Column("BACKENDS", lambda r: ", ".join(b.address for b in r.address.backends) or "-", wide=True),
    Column("STATE", lambda r: r.state or "-", style=_state_style),
)


def rules_table(report: RulesReport, target: str = "", *, wide: bool = False) -> RenderableType:
    """The table, or the tree where the terminal is too narrow for it. `target`: what was asked for; "": all Services."""
    if not report.rows:
        return rules_tree(report, target)
    shown = table(COLUMNS, report.rows, wide=wide)
    return Group(WhereItFits(shown, Group(*_trees(report))), *_ways(report), *_findings(report))


def rules_tree(report: RulesReport, target: str = "") -> RenderableType:
    """Service port → node → address → backend, each with its chain, its share and its hits."""
    programmed = _trees(report) if report.rows else [Text(nothing_programmed(report, target))]
    return Group(*programmed, *_ways(report), *_findings(report))


def nothing_programmed(report: RulesReport, target: str) -> str:
    """Why there is no row."""
    if not report.nodes:
        return "No rules were read."
    if target:
        return f"Nothing is programmed for {printable(target)} in the rules that were read."
    return "No Service is programmed in the rules that were read."


def _counted_hits(row: RulesRow) -> str:
    hits = _hits(row)
    return f"{hits} {'hit' if hits == '1' else 'hits'}"


def _trees(report: RulesReport) -> Iterable[RenderableType]:
    trees: dict[str, Tree] = {}
    nodes: dict[tuple[str, str, str], Tree] = {}
    for row in report.rows:
        title = f"{row.service or '?'} {row.protocol}"
        top = trees.setdefault(title, Tree(Text(printable(title), style="bold")))
        key = (title, row.node, row.source)
        node = nodes.get(key)
        if node is None:
            state = f"  [yellow]{markup_safe(row.state)}[/]" if _state_style(row) else f"  [dim]{row.state}[/]"
            node = nodes[key] = top.add(f"{markup_safe(row.node or 'node')}  [dim]{markup_safe(row.source)}[/]{state}")
        address = row.address
        end = f"→ {markup_safe(address.chain)}" if address.chain else f"[red]{address.verdict}[/]"
        branch = node.add(f"{markup_safe(address.address)}  [dim]{address.via}[/]  {end}  {_counted_hits(row)}")
        for backend in address.backends:
            share = "by the scheduler" if backend.probability is None else f"{backend.probability:.0%}"
            hits = "" if backend.connections is None else f"  {counted(backend.connections, 'connection')}"
            branch.add(f"{markup_safe(backend.address)}  {share}  [dim]{markup_safe(backend.chain)}[/]{hits}")
    return trees.values()


WAY_COLUMNS: tuple[Column[ServiceWay], ...] = (
    Column("NODE", lambda w: w.node or "-"),
    Column("FROM", lambda w: CLIENTS[w.client]),
    Column("TO", lambda w: w.address),
    Column("CONNECTIONS", lambda w: _parts(w.outcomes)),
)


def _ways(report: RulesReport) -> Iterator[RenderableType]:
    """What becomes of a Service's connections, where some fail whoever the client is, and others don't."""
    mixed = [way for way in report.ways if way.verdict == "MIXED" and not way.by_policy]
    if mixed:
        yield Text("")
        yield table(WAY_COLUMNS, mixed)


def _findings(report: RulesReport) -> Iterable[RenderableType]:
    for finding in report.findings:
        yield Text("")
        yield Fitted(partial(_finding, finding))
    for item in report.not_checked:
        yield Text(f"not checked: {printable(item.what)}: {printable(item.reason)}", style="dim")


def _finding(finding: Finding, width: int) -> Iterator[Text]:
    severity = Text(finding.severity.value, style=SEVERITY_STYLE[finding.severity])
    title = Text.assemble(severity, f"  {printable(finding.title)}  ", (f"({finding.check})", "dim"))
    yield from hanging(title, width, hang=2)
    for fact in finding.evidence:
        where = f" [{fact.node}]" if fact.node else ""
        certainty = Text(fact.certainty.value, style=CERTAINTY_STYLE[fact.certainty])
        statement = Text.assemble(certainty, f"{printable(where)} {printable(fact.statement)}")
        yield from hanging(statement, width, indent=2, hang=2)
    if finding.remedy is not None:
        yield from hanging(Text(printable(finding.remedy.text)), width, indent=2, hang=2)
        if finding.remedy.command:
            yield from command_lines(finding.remedy.command, width, indent=4, style="bold")


def _backends(result: FlowResult) -> str:
    """The endpoints; where connections go several ways, each way with its share and the rule that decides it."""
    if not result.outcomes:
        return ", ".join(result.backends) or result.redirected or "-"
    return _parts(result.outcomes)


def _parts(outcomes: Sequence[FlowPart]) -> str:
    ways = []
    for part in outcomes:
        share = "?" if part.share is None else f"{part.share:.0%}"
        where = f" {', '.join(part.backends)}" if part.backends else ""
        rule = f" ({part.rule.table} {part.rule.chain} {part.rule.index})" if part.rule is not None else ""
        ways.append(f"{share} {part.verdict}{where}{rule}")
    return "; ".join(ways)


def _deciding_rule(result: FlowResult) -> str:
    rule = result.rule
    return "-" if rule is None else f"{rule.table} {rule.chain} {rule.index or rule.text}"


FLOW_COLUMNS: tuple[Column[FlowResult], ...] = (
    Column("VERDICT", lambda r: r.verdict),
    Column("BACKENDS", _backends),
    Column("RULE", _deciding_rule),
    Column("MASQUERADE", lambda r: {True: "yes", False: "no", None: "?"}[r.masquerade]),
    Column("SERVICE PORT", lambda r: r.service or "-"),
    Column("NODE", lambda r: r.node or "-", wide=True),
    Column("CHAINS", lambda r: " → ".join(dict.fromkeys(rule.chain for rule in r.rules)) or "-", wide=True),
    Column("NOT KNOWN", lambda r: "; ".join(r.unknown) or "-"),
    Column("ASSUMED", lambda r: "; ".join(r.assumed) or "-", wide=True),
)


def flows_table(results: Iterable[FlowResult], *, wide: bool = False) -> RenderableType:
    return table(FLOW_COLUMNS, results, wide=wide)


EXACT_COLUMNS: tuple[Column[RuleCount], ...] = (
    Column("NODE", lambda c: c.node),
    Column("PACKETS", lambda c: str(c.packets), right=True),
    Column("TABLE", lambda c: c.rule.table if c.rule else "?"),
    Column("CHAIN", lambda c: c.rule.chain if c.rule else "rules that the dump does not have"),
    Column("RULE", lambda c: str(c.rule.index) if c.rule else "?", right=True),
    Column("COMMENT", lambda c: c.rule.comment if c.rule else ""),
    Column("TEXT", lambda c: c.rule.text if c.rule else "", wide=True),
)


def exact_table(counts: Iterable[RuleCount], *, wide: bool = False) -> RenderableType:
    return table(EXACT_COLUMNS, counts, wide=wide)


def ipsets_table(sets: Iterable[IpSet]) -> RenderableType:
    columns: tuple[Column[IpSet], ...] = (
        Column("SET", lambda s: s.name),
        Column("TYPE", lambda s: s.type),
        Column("MEMBERS", lambda s: str(len(s.members)), right=True),
        Column("FIRST", lambda s: ", ".join(s.members[:4])),
    )
    return table(columns, sets)
