"""Reads the packet rules of a namespace once a packet has died there where they may be why: a pod's are read only then, the
host's anew."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.events import Event, PacketDropped
from kubectl_genainet.model.node import NetnsRules

MAX_NAMESPACES = 64  # a session reads so many; each takes some hundred ms of commands
AGAIN_S = 15.0  # rules change while a session runs
HOSTS_AGAIN_S = 10.0  # the host's are read regularly too; a rule may be there for seconds only
_REASONS = frozenset({"NETFILTER_DROP", "NO_SOCKET"})


class PodRules:
    """Asked for by drops, reads in a thread of its own: no packet waits for it."""

    def __init__(
        self, node: str, inventory: Inventory, report: Callable[[Event], object], hosts: Callable[[], object]
    ) -> None:
        self._read_hosts = hosts
        self._node, self._inventory, self._report = node, inventory, report
        self._host = inventory.host_inode
        self._read_at: dict[int, float] = {}
        self._wanted: queue.SimpleQueue[int] = queue.SimpleQueue()
        threading.Thread(target=self._run, daemon=True).start()

    def see(self, event: Event) -> None:
        """Takes note of a drop that the rules of its namespace may explain."""
        if not isinstance(event, PacketDropped) or event.reason not in _REASONS or not event.netns:
            return
        if event.netns == self._host and event.reason != "NETFILTER_DROP":
            return
        now, last = time.monotonic(), self._read_at.get(event.netns)
        again = HOSTS_AGAIN_S if event.netns == self._host else AGAIN_S
        if (last is None and len(self._read_at) < MAX_NAMESPACES) or (last is not None and now - last > again):
            self._read_at[event.netns] = now
            self._wanted.put(event.netns)

    def _run(self) -> None:
        while True:
            inode = self._wanted.get()
            if inode == self._host:
                self._read_hosts()
                continue
            path = self._inventory.path_of(inode)
            if path is not None:
                dumps = tuple(read_rulesets(self._node, path, only_rules=True))
                self._report(NetnsRules(node=self._node, t_ns=time.monotonic_ns(), netns=inode, dumps=dumps))
