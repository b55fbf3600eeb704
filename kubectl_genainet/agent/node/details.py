"""What a report says beyond namespaces and their devices: who listens, how often containers were throttled, kube-proxy.

It changes seldom, and is read less often than the rest while packets are watched.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Set
from dataclasses import dataclass, field

from kubectl_genainet.agent.node.sockets import listeners
from kubectl_genainet.model.fabric import Fabric
from kubectl_genainet.model.node import ContainerCpu, KubeProxyState, Listener

DETAILS_S = 15.0
Sockets = tuple[tuple[Listener, ...] | None, tuple[Listener, ...] | None]  # TCP, UDP


@dataclass(frozen=True, slots=True)
class Details:
    """As of one moment, of the namespaces with these inode numbers. `read_at` is time.monotonic()."""

    read_at: float
    inodes: frozenset[int]
    listeners: dict[int, Sockets] = field(default_factory=dict)
    containers: tuple[ContainerCpu, ...] = ()
    kube_proxy: KubeProxyState | None = None
    fabric: Fabric | None = None
    unreadable: tuple[str, ...] = ()

    def outdated(self, inodes: Set[int]) -> bool:
        """Whether to read them anew: after DETAILS_S, and where a namespace has come or gone."""
        return inodes != self.inodes or time.monotonic() - self.read_at > DETAILS_S

    def sockets(self, inode: int) -> Sockets:
        """(None, None) for a namespace that could not be entered."""
        return self.listeners.get(inode, (None, None))


def receiving() -> Sockets:
    """Of the namespace that the caller is in."""
    return listeners(socket.IPPROTO_TCP), listeners(socket.IPPROTO_UDP)
