"""Manifests: files, folders or standard input."""

from __future__ import annotations

from collections.abc import Sequence

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.run.sources.base import Source


class ManifestsSource(Source):
    """YAML or JSON manifests; "-" is standard input. There are objects and nothing else."""

    live = False

    def __init__(self, paths: Sequence[str], *, namespace: str = "", all_namespaces: bool = False) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self.paths = tuple(paths)

    def _read(self) -> ClusterSnapshot:
        from kubectl_genainet.kube.manifests import load_manifests

        return load_manifests(self.paths)

    def __str__(self) -> str:
        return f"manifests ({', '.join(self.paths)})"
