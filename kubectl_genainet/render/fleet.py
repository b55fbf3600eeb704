"""The agents as a table, one row a node."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import RenderableType

from kubectl_genainet.model.results.fleet import AgentStatus
from kubectl_genainet.render.table import Column, table

_STYLE = {"ready": "green", "not ready": "red", "silent": "red", "incompatible": "red", "none": "yellow"}
COLUMNS: tuple[Column[AgentStatus], ...] = (
    Column("NODE", lambda r: r.node),
    Column("AGENT", lambda r: r.state, style=lambda r: _STYLE.get(r.state, "")),
    Column("VERSION", lambda r: r.version),
    Column("KERNEL", lambda r: r.kernel),
    Column("TIER", lambda r: r.tier),
    Column("POD", lambda r: r.pod, wide=True),
    Column("PROBLEM", lambda r: r.problem),
)


def fleet_table(rows: Iterable[AgentStatus], *, wide: bool = False) -> RenderableType:
    return table(COLUMNS, rows, wide=wide)
