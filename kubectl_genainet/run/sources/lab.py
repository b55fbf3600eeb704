"""A lab: a cluster on this machine."""

from __future__ import annotations

import os
import socket

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.run.agents import Agents, Warn
from kubectl_genainet.run.sources.base import Follower, Source
from kubectl_genainet.stream import Dial


class LabSource(Source):
    """The lab of a name: its objects are files, its agents listen on unix sockets."""

    live = True

    def __init__(self, name: str = "default", *, namespace: str = "", all_namespaces: bool = False) -> None:
        super().__init__(namespace=namespace, all_namespaces=all_namespaces)
        self.name = name

    def _read(self) -> ClusterSnapshot:
        from kubectl_genainet.lab.state import lab_snapshot

        return lab_snapshot(self.name)

    def agents(self) -> Agents:
        from kubectl_genainet.lab.state import lab_agents

        paths = lab_agents(self.name)
        if not all(os.access(path, os.W_OK) for path in paths.values() if os.path.exists(path)):
            raise GenainetError(
                f"the agents of the lab {self.name!r} belong to another user, and do not answer you",
                "Run the command as the user who brought the lab up: with sudo, for root.",
            )
        return Agents({node: unix_dial(path) for node, path in paths.items()})

    def objects_recorder(self) -> Agents | None:
        from kubectl_genainet.lab.state import lab_objects_recorder

        path = lab_objects_recorder(self.name)
        return Agents({"objects": unix_dial(path)}) if path else None

    def follow(self, snapshot: ClusterSnapshot, warn: Warn) -> Follower:
        return _PolledLab(self, snapshot)

    @property
    def _own_options(self) -> tuple[tuple[str, ...], ...]:
        return (("--lab",) if self.name == "default" else ("--lab", self.name),)

    def __str__(self) -> str:
        return f"the lab {self.name}"


class _PolledLab:
    """A lab's objects are a file: it is read again."""

    def __init__(self, lab: LabSource, snapshot: ClusterSnapshot) -> None:
        self._lab, self._last = lab, snapshot

    def newer(self) -> ClusterSnapshot | None:
        now = self._lab._read()
        if now.objects == self._last.objects:
            return None
        self._last = now
        return now

    def close(self) -> None:
        pass


def unix_dial(path: str) -> Dial:
    def dial() -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(path)
        except OSError:
            sock.close()
            raise
        return sock

    return dial
