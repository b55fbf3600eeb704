"""The report for a terminal."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

from rich.console import Console
from rich.text import Text

from kubectl_genainet.doctor.check import Area
from kubectl_genainet.doctor.objects.recognise import Recognised
from kubectl_genainet.doctor.report import CheckOutcome, Report
from kubectl_genainet.model.finding import Finding, NotChecked, Severity
from kubectl_genainet.render.paragraphs import command_lines
from kubectl_genainet.render.table import Column, table
from kubectl_genainet.render.text import CERTAINTY_STYLE, SEVERITY_STYLE, printable

WORKLOAD_COLUMNS: tuple[Column[Recognised], ...] = (
    Column("WORKLOAD", lambda r: f"{r.object.kind.lower()}/{r.object.name}"),
    Column("NAMESPACE", lambda r: r.object.namespace),
    Column("ROLE", lambda r: r.role.value),
    Column("STACK", lambda r: r.stack or "-"),
    Column("PODS", lambda r: str(r.pods), right=True),
    Column("WHY", lambda r: "; ".join(r.why)),
)

NARROW = 110  # columns below which the table of workloads would break names


def plural(count: int, word: str) -> str:
    return f"{count} {word}" + ("" if count == 1 else "s")


def print_report(console: Console, report: Report, *, wide: bool = False) -> None:
    """Facts, workloads, findings by area, what was not checked, and a last line that sums up.

    Commands and YAML are printed unwrapped, so that they can be pasted.
    """
    console.print(_facts(report), end="\n\n")
    if report.workloads and console.width < NARROW:
        for workload in report.workloads:
            _print_workload(console, workload)
    elif report.workloads:
        console.print(table(WORKLOAD_COLUMNS, report.workloads, wide=wide), end="\n")
    else:
        console.print(Text("No GenAI workload was recognised (--workload names one).", style="yellow"))
    for area, findings in findings_by_area(report):
        console.print(Text(f"\n{area.title}", style="bold"))
        for finding in findings:
            _print_finding(console, finding, wide=wide)
    _print_not_checked(console, report.not_checked)
    console.print()
    console.print(summary(report))


def findings_by_area(report: Report) -> list[tuple[Area, list[Finding]]]:
    """The findings, areas in the report's order, the worst first within one."""
    areas = {r.check: r.area for r in report.checks}
    by_area: dict[Area, list[Finding]] = defaultdict(list)
    for finding in report.findings:
        by_area[areas[finding.check]].append(finding)
    return [(a, sorted(by_area[a], key=lambda f: -f.severity.rank)) for a in Area if a in by_area]


def _facts(report: Report) -> Text:
    out = Text()
    for index, fact in enumerate(report.facts):
        out.append(("\n" if index else "") + f"{fact.name}: ", style="dim")
        out.append(printable(fact.value))
    return out


def _hanging(console: Console, label: Text, body: Text, indent: int = 0) -> None:
    """A label and a text whose further lines stand below its first."""
    before = indent + label.cell_len
    lines = body.wrap(console, max(20, console.width - before))
    for number, line in enumerate(lines):
        line.rstrip()
        first = Text(" " * indent) + label if number == 0 else Text(" " * before)
        console.print(first + line, soft_wrap=True)


def _print_workload(console: Console, workload: Recognised) -> None:
    """A row of the table where there is no room for one."""
    console.print(
        Text(f"{workload.object.kind.lower()}/{printable(workload.object.name)}", style="bold"), soft_wrap=True
    )
    what = [workload.object.namespace, workload.role.value, workload.stack, plural(workload.pods, "pod")]
    why = "; ".join(workload.why)
    _hanging(console, Text("  "), Text(printable(f"{', '.join(filter(None, what))}: {why}")))


def _print_finding(console: Console, finding: Finding, *, wide: bool) -> None:
    about = f"{finding.object}: " if finding.object else ""
    label = Text(f"{finding.severity.value.upper():8}", style=SEVERITY_STYLE[finding.severity])
    head = ((printable(about), "bold"), printable(finding.title), (f"  [{finding.check}]", "dim"))
    _hanging(console, label, Text.assemble(*head))
    for item in finding.evidence:
        where = f"{item.object} " if item.object and item.object != finding.object else ""
        field = f"{item.field}: " if item.field else ""
        node = f" (node {item.node})" if item.node else ""
        certainty = Text(f"{item.certainty.value} ", style=CERTAINTY_STYLE[item.certainty])
        statement = Text.assemble((printable(where + field), "dim"), printable(item.statement + node))
        _hanging(console, certainty, statement, 8)
    if finding.detail:
        _hanging(console, Text(), Text(printable(finding.detail)), 8)
    if finding.remedy is not None:
        _hanging(console, Text("→ "), Text(printable(finding.remedy.text)), 8)
        if finding.remedy.trial:
            _hanging(console, Text(), Text(f"({printable(finding.remedy.trial)})", style="dim"), 10)
        _print_command(console, finding.remedy.command)
        if wide:
            _print_pasteable(console, finding.remedy.yaml)
        elif finding.remedy.yaml:
            _hanging(console, Text(), Text("(YAML to paste: -o wide)", style="dim"), 10)


def _print_command(console: Console, command: str) -> None:
    lines = command.splitlines()
    if len(lines) == 1:
        console.print(*command_lines(command, console.width, indent=10), sep="\n", soft_wrap=True)
    else:
        _print_pasteable(console, command)


def _print_pasteable(console: Console, text: str) -> None:
    for line in text.splitlines():
        console.print(Text(" " * 10 + printable(line), style="cyan"), soft_wrap=True)


def by_reason(not_checked: Iterable[NotChecked]) -> list[tuple[str, list[str]]]:
    """Reasons with the checks they concern, in the order they came."""
    names_by_reason: dict[str, list[str]] = {}
    for item in not_checked:
        names = names_by_reason.setdefault(item.reason, [])
        if item.what not in names:
            names.append(item.what)
    return list(names_by_reason.items())


def _print_not_checked(console: Console, not_checked: Iterable[NotChecked]) -> None:
    reasons = by_reason(not_checked)
    if reasons:
        console.print(Text("\nNot checked", style="bold"))
    for reason, names in reasons:
        _hanging(console, Text(), Text.assemble(printable(reason), (f"  [{', '.join(names)}]", "dim")), 2)


def summary(report: Report) -> Text:
    """The counts in one line."""
    levels = Counter(f.severity for f in report.findings)
    outcomes = Counter(r.outcome for r in report.checks)
    severities = ", ".join(plural(levels[s], s.value) for s in reversed(Severity) if s is not Severity.INFO)
    accepted = f", {len(report.accepted)} accepted" if report.accepted else ""
    return Text(
        f"{severities}, {levels[Severity.INFO]} info{accepted}. {plural(len(report.checks), 'check')}: "
        f"{outcomes[CheckOutcome.FOUND]} with findings, {outcomes[CheckOutcome.PASSED]} passed, "
        f"{outcomes[CheckOutcome.NOT_CHECKED]} not checked, {outcomes[CheckOutcome.NOT_APPLICABLE]} not applicable."
    )
