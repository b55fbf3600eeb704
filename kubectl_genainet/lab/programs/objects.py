"""The recorder of a lab's objects: what `genainet-objects` is to a cluster."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from kubectl_genainet.agent.objects.recorder import ObjectsRecorder
from kubectl_genainet.agent.objects.server import ObjectsServer, Watch
from kubectl_genainet.agent.serve.listening import serve_until_stopped
from kubectl_genainet.agent.serve.server import AnyCaller
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.store import RecordingLimits
from kubectl_genainet.lab.state import LabFolder
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject


class LabObjects:
    """The lab's "API server" is a file that is replaced whole."""

    def __init__(self, name: str) -> None:
        self._folder = LabFolder(name)
        self._version: tuple[int, int] | None = None

    def newer(self) -> ClusterSnapshot | None:
        """The objects, where they have changed. Raises GenainetError where they can't be read."""
        try:
            stat = self._folder.objects_path.stat()
            version = (stat.st_ino, stat.st_mtime_ns)
            if version == self._version:
                return None
            objects = self._folder.read_objects()
        except (OSError, ValueError) as error:
            raise GenainetError(f"{self._folder.objects_path}: {error}") from None
        self._version = version
        return ClusterSnapshot(tuple(KubeObject(raw=raw) for raw in objects))


def main() -> None:
    """Records until SIGTERM."""
    parser = argparse.ArgumentParser(prog="genainet-lab-objects")
    parser.add_argument("--lab", required=True)
    parser.add_argument("--socket", required=True)
    parser.add_argument("--record", required=True)
    arguments = parser.parse_args()
    recorder = ObjectsRecorder(Path(arguments.record), RecordingLimits())
    watch = Watch(recorder, LabObjects(arguments.lab).newer)
    server = ObjectsServer(Path(arguments.record), recorder, AnyCaller(), watch.seen.is_set)
    watch.start()
    asyncio.run(serve_until_stopped(server.handle, socket_path=arguments.socket))
    watch.stop()


if __name__ == "__main__":
    main()
