"""The matrix of reachability as a table, as JSON lines and as a page; differences of two matrices."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypedDict

from jinja2 import Environment, PackageLoader, select_autoescape
from rich.console import Console
from rich.table import Table
from rich.text import Text

from kubectl_genainet.policy.model import PolicyVerdict
from kubectl_genainet.policy.reach.grid import Difference, Grid, PodGroup, Port
from kubectl_genainet.policy.reach.outside import BeyondCell
from kubectl_genainet.render.policy.beyond import CellJson, beyond_rows
from kubectl_genainet.render.table import Column
from kubectl_genainet.render.text import printable

_STYLE = {"all": "green", "some": "yellow", "none": "red", "unknown": "yellow", "self": "dim", "empty": "dim"}
_LEGEND = "✓ passes   ✗ does not   ? not known   · the pod itself, or no declared port (give one with --port)"

DIFFERENCE_COLUMNS: tuple[Column[Difference], ...] = (
    Column("SOURCE", lambda d: d.source),
    Column("DESTINATION", lambda d: d.destination),
    Column("PORT", lambda d: f"{d.port}/{d.protocol}"),
    Column("BEFORE", lambda d: d.before.value),
    Column("AFTER", lambda d: d.after.value, style=lambda d: "green" if d.after is PolicyVerdict.ALLOW else "red"),
)


def cell_text(grid: Grid, source: PodGroup, destination: PodGroup) -> tuple[str, str]:
    """A cell's text and what it is: all, some, none, unknown, self or empty."""
    verdicts = grid.cell(source, destination)
    if grid.is_self(source, destination):
        return "·", "self"
    if not verdicts:
        return "·", "empty"
    allowed = [p for p, v in verdicts.items() if v is PolicyVerdict.ALLOW]
    unknown = [p for p, v in verdicts.items() if v is PolicyVerdict.UNKNOWN]
    if len(allowed) == len(verdicts):
        return "✓", "all"
    if not allowed:
        return ("?", "unknown") if unknown else ("✗", "none")
    text = ",".join(map(_port_text, allowed)) + (
        "," + ",".join(f"{_port_text(p)}?" for p in unknown) if unknown else ""
    )
    return text, "some"


def _port_text(port: Port) -> str:
    return str(port[1]) if port[0] == "TCP" else f"{port[1]}/{port[0]}"


def print_grid(console: Console, grid: Grid) -> None:
    """Rows are sources, numbered columns the destinations of the same numbers; as many columns at once as fit."""
    cells = [[cell_text(grid, a, b) for b in grid.groups] for a in grid.groups]
    widths = [max(len(str(j + 1)), *(len(row[j][0]) for row in cells)) for j in range(len(grid.groups))]
    names = max(len(printable(g.name)) for g in grid.groups) + len(str(len(grid.groups))) + 6
    start = 0
    while start < len(widths):
        end, used = start, names
        while end < len(widths) and (end == start or used + widths[end] + 2 <= console.width):
            used += widths[end] + 2
            end += 1
        console.print(_block(grid, cells, start, end))
        start = end
        if start < len(widths):
            console.print()
    console.print(_LEGEND, style="dim")
    if any(g.host_network for g in grid.groups):
        console.print("A node may always reach the pods that it runs, whatever their policies.", style="dim")


def _block(grid: Grid, cells: list[list[tuple[str, str]]], start: int, end: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("FROM \\ TO", overflow="fold")
    for j in range(start, end):
        table.add_column(str(j + 1), justify="center", no_wrap=True)
    for i, group in enumerate(grid.groups):
        row = [Text(text, style=_STYLE[kind]) for text, kind in cells[i][start:end]]
        table.add_row(Text(f"{i + 1:>3} {printable(group.name)}"), *row)
    return table


DifferenceJson = TypedDict(
    "DifferenceJson",
    {
        "from": str,
        "to": str,
        "protocol": str,
        "port": int,
        "before": str,
        "after": str,
        "from_pods": list[str],
        "to_pods": list[str],
    },
)


def grid_json(grid: Grid) -> Iterator[CellJson]:
    """One object for each source, destination and port."""
    for source in grid.groups:
        for destination in grid.groups:
            if grid.is_self(source, destination):
                continue
            for (protocol, port), verdict in grid.cell(source, destination).items():
                yield {
                    "from": source.name,
                    "to": destination.name,
                    "protocol": protocol,
                    "port": port,
                    "verdict": verdict.value,
                    "from_pods": _pods(source.pods),
                    "to_pods": _pods(destination.pods),
                }


def difference_json(difference: Difference) -> DifferenceJson:
    return {
        "from": difference.source,
        "to": difference.destination,
        "protocol": difference.protocol,
        "port": difference.port,
        "before": difference.before.value,
        "after": difference.after.value,
        "from_pods": _pods(difference.source_pods),
        "to_pods": _pods(difference.destination_pods),
    }


def _pods(pods: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{namespace}/{name}" for namespace, name in pods]


def grid_html(
    grid: Grid,
    title: str,
    *,
    beyond: Sequence[BeyondCell] = (),
    reasons: Mapping[tuple[int, int], str] | None = None,
    enforcer: str = "",
    made: str = "",
) -> str:
    """A page of its own; every text from the cluster is escaped. `made` says of when the objects are."""
    reasons = reasons or {}
    cells = [
        [(*cell_text(grid, a, b), printable(reasons.get((i, j), ""))) for j, b in enumerate(grid.groups)]
        for i, a in enumerate(grid.groups)
    ]
    return (
        _environment()
        .get_template("matrix.html")
        .render(
            title=title,
            names=[printable(g.name) for g in grid.groups],
            cells=cells,
            beyond=list(beyond_rows(grid, beyond)),
            legend=_LEGEND,
            enforcer=enforcer,
            made=made,
        )
    )


def differences_html(differences: list[Difference], title: str, *, made: str = "") -> str:
    rows = [[printable(c.cell(d)) for c in DIFFERENCE_COLUMNS] for d in differences]
    heads = [c.title for c in DIFFERENCE_COLUMNS]
    return _environment().get_template("differences.html").render(title=title, heads=heads, rows=rows, made=made)


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("kubectl_genainet.render", "templates"), autoescape=select_autoescape(["html"])
    )
