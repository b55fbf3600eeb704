"""What watching cost the nodes."""

from __future__ import annotations

import msgspec


class AgentCost(msgspec.Struct, frozen=True):
    """What an agent took while it watched, in per cent of a core: its processes and (None: unknown) its BPF programs, beside
    its `budget`; `highest` is the most within a second or so, of both."""

    node: str
    budget: float
    processes: float
    programs: float | None
    highest: float
