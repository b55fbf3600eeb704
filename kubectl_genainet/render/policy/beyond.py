"""The matrix beyond its pods, as rows: from and to the nodes, the API server, clients outside and the internet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NotRequired, TypedDict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kubectl_genainet.policy.model import Direction, PolicyVerdict
from kubectl_genainet.policy.reach.grid import Grid, PodGroup, Port
from kubectl_genainet.policy.reach.outside import Beyond, BeyondCell
from kubectl_genainet.render.paragraphs import print_prose
from kubectl_genainet.render.text import printable

STYLE = {"all": "green", "some": "yellow", "none": "red", "unknown": "yellow", "empty": "dim"}
_MOST_REASONS = 8
BeyondRow = tuple[str, list[tuple[str, str, str]]]  # its name; for each group the text, the kind of the cell and why


CellJson = TypedDict(
    "CellJson",
    {
        "from": str,
        "to": str,
        "protocol": str,
        "port": int,
        "verdict": str,
        "from_pods": list[str],
        "to_pods": list[str],
        "beyond": NotRequired[str],  # where one end is beyond the pods, with `why`
        "why": NotRequired[str],
    },
)


def port_text(port: Port) -> str:
    return str(port[1]) if port[0] == "TCP" else f"{port[1]}/{port[0]}"


def beyond_rows(grid: Grid, cells: Sequence[BeyondCell]) -> Iterator[BeyondRow]:
    """One row for each thing beyond and each direction, a cell for each group of pods."""
    by_place: dict[tuple[Beyond, Direction, tuple[tuple[str, str], ...]], list[BeyondCell]] = {}
    for cell in cells:
        by_place.setdefault((cell.beyond, cell.direction, cell.group.pods), []).append(cell)
    for direction in (Direction.INGRESS, Direction.EGRESS):
        for beyond in Beyond:
            row = [by_place.get((beyond, direction, group.pods), []) for group in grid.groups]
            if any(row):
                yield _name(beyond, direction, row), [_cell(alike) for alike in row]


def _name(beyond: Beyond, direction: Direction, row: Sequence[Sequence[BeyondCell]]) -> str:
    if direction is Direction.INGRESS:
        return f"from {beyond.value}"
    ports = sorted({c.port for cells in row for c in cells})
    return f"to {beyond.value} ({', '.join(map(port_text, ports))})"


def _cell(cells: Sequence[BeyondCell]) -> tuple[str, str, str]:
    if not cells:
        return "·", "empty", ""
    why = "\n".join(f"{port_text(c.port)} {c.verdict.value}: {printable(c.why)}" for c in cells)
    verdicts = {c.verdict for c in cells}
    if len(verdicts) == 1:
        match verdicts.pop():
            case PolicyVerdict.ALLOW:
                return "✓", "all", why
            case PolicyVerdict.DENY:
                return "✗", "none", why
            case _:
                return "?", "unknown", why
    marks = [
        port_text(c.port) + ("?" if c.verdict is PolicyVerdict.UNKNOWN else "")
        for c in cells
        if c.verdict is not PolicyVerdict.DENY
    ]
    return ",".join(marks), "some", why


def print_beyond(console: Console, grid: Grid, cells: Sequence[BeyondCell]) -> None:
    """Rows below the grid, with the numbers of the same columns; as many columns at once as fit."""
    rows = list(beyond_rows(grid, cells))
    if not rows:
        return
    names = max(len(name) for name, _ in rows) + 2
    widths = [max(len(str(j + 1)), *(len(row[j][0]) for _, row in rows)) for j in range(len(grid.groups))]
    start = 0
    while start < len(widths):
        end, used = start, names
        while end < len(widths) and (end == start or used + widths[end] + 2 <= console.width):
            used += widths[end] + 2
            end += 1
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
        table.add_column("BEYOND THE PODS", overflow="fold")
        for j in range(start, end):
            table.add_column(str(j + 1), justify="center", no_wrap=True)
        for name, row in rows:
            table.add_row(Text(name), *(Text(text, style=STYLE[kind]) for text, kind, _ in row[start:end]))
        console.print()
        console.print(table)
        start = end
    open_cells = dict.fromkeys(f"{_where(c)}: {c.why}" for c in cells if c.verdict is PolicyVerdict.UNKNOWN)
    for text in list(open_cells)[:_MOST_REASONS]:
        print_prose(console, Text(f"? {printable(text)}", style="dim"))
    if len(open_cells) > _MOST_REASONS:
        console.print(f"? {len(open_cells) - _MOST_REASONS} more: -o json says why", style="dim")


def _where(cell: BeyondCell) -> str:
    into = cell.direction is Direction.INGRESS
    ends = (cell.beyond.value, cell.group.name) if into else (cell.group.name, cell.beyond.value)
    return f"{ends[0]} → {ends[1]} {port_text(cell.port)}"


def beyond_json(cells: Sequence[BeyondCell]) -> Iterator[CellJson]:
    """One object for each cell, as those of the grid, with `beyond` and `why`."""
    for cell in cells:
        into = cell.direction is Direction.INGRESS
        pods = _pods(cell.group)
        yield {
            "from": cell.beyond.value if into else cell.group.name,
            "to": cell.group.name if into else cell.beyond.value,
            "protocol": cell.port[0],
            "port": cell.port[1],
            "verdict": cell.verdict.value,
            "from_pods": [] if into else pods,
            "to_pods": pods if into else [],
            "beyond": cell.beyond.name.lower(),
            "why": cell.why,
        }


def _pods(group: PodGroup) -> list[str]:
    return [f"{namespace}/{name}" for namespace, name in group.pods]
