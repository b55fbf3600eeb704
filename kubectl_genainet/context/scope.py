"""What a command looks at: a target, a namespace, or all; as filters for the kernel and as a question of a flow."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.context.targets import resolve, resolve_namespace
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.target import Target
from kubectl_genainet.wire import FilterEntry


@dataclass(frozen=True, slots=True)
class Scope:
    """`filters` go to the kernel; `servers` are (address, port), port 0 for any. Both are empty for everything."""

    filters: tuple[FilterEntry, ...] = ()
    servers: frozenset[tuple[str, int]] = frozenset()
    warnings: tuple[str, ...] = ()
    pods: frozenset[str] = frozenset()  # addresses of pods of which some ports only are looked at

    def concerns(self, flow: FiveTuple) -> bool:
        """Whether one of the flow's ends is looked at. Port 0, on either side, stands for any."""
        if not self.filters:
            return True
        return self._has(flow.dst, flow.dport) or self._has(flow.src, flow.sport)

    def _has(self, ip: str, port: int) -> bool:
        servers = self.servers
        return (ip, port) in servers or (ip, 0) in servers or (port == 0 and any(ip == s for s, _ in servers))


def scope_of(target: Target | None, namespace: str, snapshot: ClusterSnapshot) -> Scope:
    """A target in `namespace`; without a target the whole namespace; with neither, everything.

    Raises InputError, with near matches, for what does not exist.
    """
    if target is None and not namespace:
        return Scope()
    resolved = resolve(target, snapshot, namespace) if target is not None else resolve_namespace(namespace, snapshot)
    pods = frozenset(ip for ip, port in resolved.servers if port and snapshot.pod_at(ip) is not None)
    return Scope(resolved.filters, resolved.servers, resolved.warnings, pods)
