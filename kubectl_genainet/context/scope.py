"""What a command looks at: a target, a namespace, or all; as filters for the kernel and as a question of a flow."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.context.targets import Resolved, resolve, resolve_namespace
from kubectl_genainet.model.cluster import ClusterSnapshot, canonical_ip
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.target import Target, TargetKind
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
    whole = _whole_addresses(target, resolved, snapshot)
    filters = (*resolved.filters, *map(FilterEntry, sorted(whole)))
    return Scope(filters, resolved.servers | {(ip, 0) for ip in whole}, resolved.warnings, pods)


def _whole_addresses(target: Target | None, resolved: Resolved, snapshot: ClusterSnapshot) -> frozenset[str]:
    """Cluster IPs of the Services, where no port was asked for: who calls one that a Service does not have calls that Service."""
    if target is not None and target.port is not None:
        return frozenset()
    followed = {ip for ip, _ in resolved.servers}
    if target is not None and target.kind not in (TargetKind.SERVICE, TargetKind.ADDRESS):
        return frozenset()  # Services in front of pods: their other ports lead to no pod
    return frozenset(ip for s in snapshot.services for ip in map(canonical_ip, s.cluster_ips) if ip in followed)
