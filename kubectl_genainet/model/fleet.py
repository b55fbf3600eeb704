"""The agents of a cluster, as `status` shows them."""

from __future__ import annotations

import msgspec


class NodeStatus(msgspec.Struct, frozen=True):
    """One node's agent. `state` is "ready", "not ready", "silent" (ready, but it doesn't answer) or "none"."""

    node: str
    state: str
    pod: str = ""
    version: str = ""
    kernel: str = ""
    tier: str = ""
    problem: str = ""
    hint: str = ""

    @property
    def wrong(self) -> bool:
        return self.state != "ready"
