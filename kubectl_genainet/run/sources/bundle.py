"""A bundle: what an earlier run recorded."""

from __future__ import annotations

import shlex
from pathlib import Path

from kubectl_genainet.bundle import Bundle, read_bundle
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.recorded import RecordedSource, unknown_objects


class BundleSource(RecordedSource):
    """A recorded bundle. `warn` is told where the objects in it are not those of its time."""

    def __init__(
        self,
        path: str | Path,
        *,
        namespace: str = "",
        all_namespaces: bool = False,
        warn: Warn = lambda _: None,
    ) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self.path, self._warn = path, warn

    def _load(self) -> Bundle:
        return read_bundle(self.path)

    def _read(self) -> ClusterSnapshot:
        header = self.recording.header
        if header.objects_unknown:
            self._warn(unknown_objects(header.objects_unknown, "were when the bundle was written"))
        return super()._read()

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        return (("--from", shlex.quote(str(self.path))),)

    def __str__(self) -> str:
        return f"the bundle {self.path}"
