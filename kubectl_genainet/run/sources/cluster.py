"""A cluster: its API server, and the agents behind it."""

from __future__ import annotations

import shlex
from functools import cached_property

from kubectl_genainet.kube.user import Impersonation
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.run.agents import Agents, Warn
from kubectl_genainet.run.sources.base import Follower, Source


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

    def _read(self) -> ClusterSnapshot:
        from kubectl_genainet.kube.snapshot import read_cluster

        return read_cluster(
            context=self.context, kubeconfig=self.kubeconfig, namespace=self.namespace or None, user=self.user
        )

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

    def follow(self, snapshot: ClusterSnapshot, warn: Warn) -> Follower:
        from kubectl_genainet.kube.client import connect
        from kubectl_genainet.kube.live import LiveCluster

        def problem(message: str) -> None:
            warn(f"cluster changes are not followed: {message}" if message else "cluster changes are followed again")

        client = connect(context=self.context, kubeconfig=self.kubeconfig, user=self.user)
        return LiveCluster(client, problem, snapshot=snapshot)

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        options = (("--context", self.context), ("--kubeconfig", self.kubeconfig), ("--as", self.user.name))
        groups = tuple(("--as-group", shlex.quote(group)) for group in self.user.groups)
        return (*((name, shlex.quote(value)) for name, value in options if value), *groups)

    def __str__(self) -> str:
        return f"context {self.context}" if self.context else "the cluster"
