"""The agents as a table, one row a node."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from kubectl_genainet.model.fleet import NodeStatus
from kubectl_genainet.render.table import Column, table

_STYLE = {"ready": "green", "not ready": "red", "silent": "red", "none": "yellow"}
COLUMNS = (
    Column[NodeStatus]("NODE", lambda r: r.node),
    Column[NodeStatus]("AGENT", lambda r: r.state, style=lambda r: _STYLE.get(r.state, "")),
    Column[NodeStatus]("VERSION", lambda r: r.version),
    Column[NodeStatus]("KERNEL", lambda r: r.kernel),
    Column[NodeStatus]("TIER", lambda r: r.tier),
    Column[NodeStatus]("POD", lambda r: r.pod, wide=True),
    Column[NodeStatus]("PROBES", lambda r: ",".join(r.probes), wide=True),
    Column[NodeStatus]("PROBLEM", lambda r: r.problem or "; ".join(r.missing)),
)


def fleet_table(rows: Iterable[NodeStatus], *, wide: bool = False) -> Table:
    return table(COLUMNS, rows, wide=wide)
