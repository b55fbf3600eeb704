"""Which source a command line asks for: a value that another process can open again."""

from __future__ import annotations

from typing import Any

import msgspec

from kubectl_genainet.errors import GenainetError, InputError
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import CHDB, Source

TABLES = ("clickhouse://", CHDB)


def is_table(name: str) -> bool:
    """Whether --from names a table of records rather than a bundle."""
    return name.startswith(TABLES)


class SourceChoice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lab, a bundle, manifests, or a cluster where none of them is given; with what may be said of a cluster."""

    namespace: str = ""
    all_namespaces: bool = False
    context: str = ""
    kubeconfig: str = ""
    user: str = ""
    groups: tuple[str, ...] = ()
    bundle: str = ""
    lab: str = ""
    manifests: tuple[str, ...] = ()

    @property
    def is_cluster(self) -> bool:
        return not (self.lab or self.bundle or self.manifests)

    def check_is_cluster(self) -> None:
        """Raises GenainetError where it is anything else."""
        if not self.is_cluster:
            raise GenainetError("only a cluster or a lab has agents to ask", hint="Leave out --from and --manifests.")

    def within(self, namespace: str, all_namespaces: bool) -> SourceChoice:
        """The same source in another scope, where one is named."""
        if not (namespace or all_namespaces):
            return self
        return msgspec.structs.replace(self, namespace=namespace, all_namespaces=all_namespaces)

    def check(self) -> None:
        """Raises InputError where it names more than one source."""
        named = (("--lab", self.lab), ("--from", self.bundle), ("--manifests", self.manifests))
        named_options = [option for option, value in named if value]
        if len(named_options) > 1:
            raise InputError(f"{' and '.join(named_options)} exclude each other: each says where the state comes from")

    def open(self, warn: Warn) -> Source:
        """The source; nothing is read of it yet. `warn` is told what was not read of it, or not recorded."""
        self.check()
        scope: dict[str, Any] = {"namespace": self.namespace, "all_namespaces": self.all_namespaces}
        if self.lab:
            from kubectl_genainet.run.sources.lab import LabSource

            return LabSource(self.lab, **scope)
        if is_table(self.bundle):
            from kubectl_genainet.run.sources.clickhouse import ClickHouseSource

            return ClickHouseSource(self.bundle, warn=warn, **scope)
        if self.bundle:
            from kubectl_genainet.run.sources.bundle import BundleSource

            return BundleSource(self.bundle, warn=warn, **scope)
        if self.manifests:
            from kubectl_genainet.run.sources.manifests import ManifestsSource

            return ManifestsSource(self.manifests, warn=warn, **scope)
        from kubectl_genainet.run.sources.cluster import ClusterSource

        return ClusterSource(
            context=self.context, kubeconfig=self.kubeconfig, user=self.user, groups=self.groups, **scope
        )
