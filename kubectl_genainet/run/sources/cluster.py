"""A cluster: its API server, and the agents behind it."""

from __future__ import annotations

import shlex
from collections.abc import Collection
from functools import cached_property
from typing import TYPE_CHECKING

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.user import Impersonation
from kubectl_genainet.run.agents import Agents, Warn
from kubectl_genainet.run.sources.base import Follower, Source

if TYPE_CHECKING:
    from kubectl_genainet.kube.client import KubeClient
    from kubectl_genainet.kube.resources import Resource
    from kubectl_genainet.kube.snapshot import Listing


class ClusterSource(Source):
    """A context of the kubeconfig; by default the current one."""

    live = True

    def __init__(
        self,
        *,
        context: str = "",
        kubeconfig: str = "",
        namespace: str = "",
        all_namespaces: bool = False,
        user: str = "",
        groups: tuple[str, ...] = (),
    ) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self.context, self.kubeconfig, self.user = context, kubeconfig, Impersonation(user, groups)
        self._listings: tuple[Listing, ...] = ()
        self._is_whole = False

    def _read(self) -> ClusterSnapshot:
        from kubectl_genainet.kube.resources import COMMON_KINDS

        return self._listed(COMMON_KINDS)

    def snapshot(self, *, whole: bool = False) -> ClusterSnapshot:
        from kubectl_genainet.kube.resources import KINDS

        if whole and not self._is_whole:
            self._snapshot, self._is_whole = self._listed(KINDS), True
        return super().snapshot()

    def forget(self) -> None:
        super().forget()
        self._is_whole = False

    def _listed(self, kinds: Collection[Resource]) -> ClusterSnapshot:
        from kubectl_genainet.kube.snapshot import read_listings

        snapshot, self._listings = read_listings(self._client, namespace=self.namespace or None, kinds=kinds)
        return snapshot

    @cached_property
    def _client(self) -> KubeClient:
        from kubectl_genainet.kube.client import connect

        return connect(context=self.context, kubeconfig=self.kubeconfig, user=self.user)

    @cached_property
    def _context_namespace(self) -> str:
        from kubectl_genainet.kube.client import context_namespace

        return context_namespace(context=self.context, kubeconfig=self.kubeconfig)

    @property
    def default_namespace(self) -> str:
        return self.namespace or self._context_namespace

    @property
    def judged_namespace(self) -> str:
        return self.scope_namespace

    def agents(self) -> Agents:
        from kubectl_genainet.kube.agents.forward import cluster_agents

        return Agents(*cluster_agents(context=self.context, kubeconfig=self.kubeconfig, user=self.user))

    def recorders(self) -> Agents:
        from kubectl_genainet.kube.agents.forward import cluster_agents
        from kubectl_genainet.kube.agents.record import HISTORY_CAPABILITY

        where = {"context": self.context, "kubeconfig": self.kubeconfig}
        return Agents(*cluster_agents(**where, user=self.user, capability=HISTORY_CAPABILITY))

    def objects_recorder(self) -> Agents | None:
        from kubectl_genainet.kube.agents.forward import objects_recorder

        addresses = objects_recorder(context=self.context, kubeconfig=self.kubeconfig, user=self.user)
        return Agents(*addresses) if addresses is not None else None

    def follow(self, snapshot: ClusterSnapshot, warn: Warn) -> Follower:
        from kubectl_genainet.kube.live import LiveCluster

        def problem(message: str) -> None:
            warn(f"cluster changes are not followed: {message}" if message else "cluster changes are followed again")

        return LiveCluster(self._client, problem, snapshot=snapshot, listings=self._listings)

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        options = (("--context", self.context), ("--kubeconfig", self.kubeconfig), ("--as", self.user.name))
        groups = tuple(("--as-group", shlex.quote(group)) for group in self.user.groups)
        return (*((name, shlex.quote(value)) for name, value in options if value), *groups)

    def __str__(self) -> str:
        return f"context {self.context}" if self.context else "the cluster"
