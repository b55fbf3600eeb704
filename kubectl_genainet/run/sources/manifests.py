"""Manifests: files, folders or standard input."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source


class ManifestsSource(Source):
    """YAML or JSON manifests; "-" is standard input. There are objects and nothing else. `warn` is told what was not read."""

    live = False

    def __init__(
        self, paths: Sequence[str], *, namespace: str = "", all_namespaces: bool = False, warn: Warn = lambda _: None
    ) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self.paths, self._warn = tuple(paths), warn

    def _read(self) -> ClusterSnapshot:
        from kubectl_genainet.kube.manifests import load_manifests

        snapshot = load_manifests(self.paths, self.namespace)
        for note in snapshot.notes:
            self._warn(note)
        return snapshot

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        return tuple(("--manifests", shlex.quote(path)) for path in self.paths)

    def __str__(self) -> str:
        return f"manifests ({', '.join(self.paths)})"
