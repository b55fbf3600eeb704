"""What a command looks at: a target, a namespace, or all; as filters for the kernel and as a question of a flow."""

from __future__ import annotations

from kubectl_genainet.context.targets import Resolved, resolve, resolve_namespace
from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.packet import FiveTuple
from kubectl_genainet.model.target import Target
from kubectl_genainet.wire import FilterEntry


class Scope:
    """A target in `namespace`; without a target the whole namespace; with neither, everything."""

    def __init__(self, target: Target | None, namespace: str, snapshot: ClusterSnapshot) -> None:
        self._target, self._namespace = target, namespace
        self._resolved: Resolved | None = self._resolve(snapshot)

    def __str__(self) -> str:
        return str(self._target) if self._target else (f"namespace {self._namespace}" if self._namespace else "all")

    def _resolve(self, snapshot: ClusterSnapshot) -> Resolved | None:
        if self._target is not None:
            return resolve(self._target, snapshot, self._namespace)
        return resolve_namespace(self._namespace, snapshot) if self._namespace else None

    def update(self, snapshot: ClusterSnapshot) -> None:
        """The objects have changed. Of a target that is gone, the last addresses are kept."""
        try:
            self._resolved = self._resolve(snapshot)
        except InputError:
            return

    @property
    def filters(self) -> tuple[FilterEntry, ...]:
        """Empty: everything."""
        return self._resolved.filters if self._resolved else ()

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._resolved.warnings if self._resolved else ()

    def concerns(self, flow: FiveTuple) -> bool:
        """Whether one of the flow's ends is looked at. Port 0, on either side, stands for any."""
        if self._resolved is None:
            return True
        return self._has(flow.dst, flow.dport) or self._has(flow.src, flow.sport)

    def _has(self, ip: str, port: int) -> bool:
        assert self._resolved is not None
        servers = self._resolved.servers
        return (ip, port) in servers or (ip, 0) in servers or (port == 0 and any(ip == s for s, _ in servers))
