"""The agents of a cluster, and the versions of all that takes part."""

from __future__ import annotations

import msgspec


class AgentStatus(msgspec.Struct, frozen=True):
    """One node's agent. `state` is "ready", "not ready", "silent" (ready, but it doesn't answer), "incompatible" (it answers,
    but not this client's requests) or "none"."""

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


class Versions(msgspec.Struct, frozen=True):
    """`server` and `agents` (nodes by version) are None where they were not asked, or did not answer."""

    client: str
    protocol: int
    server: str | None = None
    agents: dict[str, int] | None = None
