"""The checks themselves: `doctor --list`, `doctor --explain`, docs/checks.md."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from rich.console import Group, RenderableType
from rich.text import Text

from kubectl_genainet.doctor.check import Check, Need
from kubectl_genainet.render.table import Column, table
from kubectl_genainet.render.text import SEVERITY_STYLE

COLUMNS: tuple[Column[Check], ...] = (
    Column("CHECK", lambda c: c.name),
    Column("AREA", lambda c: c.area.value),
    Column("SEVERITY", lambda c: c.severity.value, style=lambda c: SEVERITY_STYLE[c.severity]),
    Column("WHAT IT FINDS", lambda c: c.title),
)


def list_table(checks: Sequence[Check]) -> RenderableType:
    return table(COLUMNS, checks)


def needs_text(check: Check) -> str:
    """What a check needs, in words."""
    kinds = [n for n in check.needs if isinstance(n, str)]
    names = {
        Need.NODES: "node reports",
        Need.RULESETS: "rulesets",
        Need.PACKETS: "packets",
        Need.DNS: "DNS measurements",
        Need.FABRIC: "a measurement of GPU pods' traffic",
    }
    others = [names[n] for n in check.needs if isinstance(n, Need)]
    return ", ".join([*kinds, *others]) or "nothing in particular"


def paragraphs(doc: str) -> str:
    """A docstring with each paragraph on one line, for the terminal to wrap; indented lines stay as they are."""
    blocks = doc.split("\n\n")
    return "\n\n".join(b if "\n " in b else " ".join(b.splitlines()) for b in blocks)


def explanation(check: Check) -> RenderableType:
    """One check in full."""
    head = Text.assemble((check.name, "bold"), "  ", (check.severity.value, SEVERITY_STYLE[check.severity]))
    body = Text(paragraphs(check.doc))
    return Group(
        head,
        Text(f"{check.area.title} (--only {check.area.value})", style="dim"),
        Text(""),
        body,
        Text(""),
        Text(f"Needs: {needs_text(check)}.", style="dim"),
    )


def checks_markdown(checks: Sequence[Check]) -> str:
    """docs/checks.md."""
    lines = [
        "# The checks of `kubectl genainet doctor`",
        "",
        "<!-- Made from the docstrings by `python -m kubectl_genainet.render.doctor.docs > docs/checks.md`. -->",
        "",
        f"{len(checks)} checks. `doctor --explain NAME` prints one of them; `--only AREA` runs those of an area. "
        "A check",
        "whose needs are not met is listed as not checked, never as passed.",
        "",
    ]
    for area, group in groupby(checks, key=lambda c: c.area):
        of_area = list(group)
        lines += [f"## {area.title} (`{area.value}`)", "", "| Check | Severity | Finds |", "|---|---|---|"]
        lines += [f"| [`{c.name}`](#{c.name}) | {c.severity.value} | {c.title} |" for c in of_area]
        lines.append("")
        for check in of_area:
            body = check.doc.split("\n", 1)[1].strip() if "\n" in check.doc else ""
            lines += [f"### {check.name}", "", f"{check.title}.", "", body, "", f"Needs: {needs_text(check)}.", ""]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    from kubectl_genainet.doctor.registry import all_checks

    print(checks_markdown(all_checks()), end="")
