"""A lab as `lab status` and `lab list` show it."""

from __future__ import annotations

import msgspec


class LabPod(msgspec.Struct, frozen=True, kw_only=True):
    namespace: str
    name: str
    node: str
    ips: tuple[str, ...]
    ready: bool
    netns: str  # the file in /run/netns; empty for a pod on its node's network


class LabStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A lab as it is now. `state` is "up", "partial" (its `lab up` died) or "degraded" (`problems` says why)."""

    name: str
    state: str
    nodes: tuple[str, ...]
    proxy_mode: str
    overlay: str
    ip_families: tuple[str, ...]
    policy_enforcer: str
    pods: tuple[LabPod, ...]
    agents: dict[str, str]
    incidents: tuple[str, ...]
    problems: tuple[str, ...]
