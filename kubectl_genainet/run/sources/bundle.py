"""A bundle: what an earlier run recorded."""

from __future__ import annotations

import shlex
from pathlib import Path

from kubectl_genainet.bundle import Bundle, read_bundle
from kubectl_genainet.run.sources.recorded import RecordedSource


class BundleSource(RecordedSource):
    """A recorded bundle."""

    def __init__(self, path: str | Path, *, namespace: str = "", all_namespaces: bool = False) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self.path = path

    def _load(self) -> Bundle:
        return read_bundle(self.path)

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        return (("--from", shlex.quote(str(self.path))),)

    def __str__(self) -> str:
        return f"the bundle {self.path}"
