"""What the agents took, in words."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.model.results.agents import AgentCost


def busiest(agents: Sequence[AgentCost]) -> str:
    """What the busiest agent took of its budget."""
    most = max(agents, key=lambda a: a.processes + (a.programs or 0.0))
    taken = f"the busiest agent ({most.node}) took {most.processes + (most.programs or 0.0):.1f} % of a core"
    return f"{taken}, of {most.budget:g} %" + (", its BPF programs not counted" if most.programs is None else "")
