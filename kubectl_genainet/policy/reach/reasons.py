"""Why cells of the matrix have their verdict, in a few words."""

from __future__ import annotations

from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.flows.arrival import explain_arriving
from kubectl_genainet.policy.model import Direction, Explanation, PolicyFlow, PolicyVerdict, pod_endpoint
from kubectl_genainet.policy.reach.grid import Grid

# Beyond this many cells a page has no reasons: `explain` gives them one by one.
_MOST_CELLS = 2500


def reasons_of(engine: PolicyEngine, grid: Grid) -> dict[tuple[int, int], str]:
    """The reason of each cell that has one, by the numbers of its groups (from 0)."""
    if len(grid.groups) ** 2 > _MOST_CELLS:
        return {}
    reasons = {}
    for i, source in enumerate(grid.groups):
        for j, destination in enumerate(grid.groups):
            pods = _two(source.pods, destination.pods)
            if pods is None or grid.is_self(source, destination):
                continue
            lines = []
            for port, verdict in grid.cell(source, destination).items():
                flow = PolicyFlow(pod_endpoint(*pods[0]), pod_endpoint(*pods[1]), *port)
                why = _reason(explain_arriving(engine, flow))
                lines.append(f"{port[1]}/{port[0]} {verdict.value}" + (f": {why}" if why else ""))
            if lines:
                reasons[i, j] = "\n".join(lines)
    return reasons


def _two(
    sources: tuple[tuple[str, str], ...], destinations: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], tuple[str, str]] | None:
    """A pod of each side that are not the same one."""
    other = next((d for d in destinations if d != sources[0]), None)
    return None if other is None else (sources[0], other)


def _reason(explanation: Explanation) -> str:
    parts = [explanation.arrival] if explanation.arrival else []
    for direction in Direction:
        result = explanation.direction(direction)
        names = ", ".join(map(str, result.isolated_by))
        if result.verdict is PolicyVerdict.DENY:
            decided = ", ".join(f"{p.ref} rule {p.rule}" for p in result.policies if p.effect.value == "denies")
            parts.append(f"{direction.value} " + (f"isolated by {names}" if names else f"denied by {decided}"))
        elif result.verdict is PolicyVerdict.UNKNOWN:
            parts.append(f"{direction.value} depends on " + "; ".join(map(str, result.not_evaluated)))
        elif result.admitted_by:
            parts.append(f"{direction.value} admitted by " + ", ".join(map(str, result.admitted_by)))
    return "; ".join(parts)
