"""Reads the packet rules of a namespace once a packet has died there where they may be why: a pod's are read only then, the
host's anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.events import Event, PacketDropped
from kubectl_genainet.model.node import NetnsRules

MAX_NAMESPACES = 64  # a session reads so many at a time; each takes some hundred ms of commands
FORGET_S = 600.0  # one in which nothing died for so long makes room for another
AGAIN_S = 3.0  # rules change while a session runs, and one may be there for seconds only
HOSTS_AGAIN_S = 10.0  # the host's are read regularly too
SHARE = 100  # reading takes one part in so many of the time, at most
_REASONS = frozenset({"NETFILTER_DROP", "NO_SOCKET"})


class PodRules:
    """Asked for by drops, reads in a thread of its own: no packet waits for it."""

    def __init__(
        self, node: str, inventory: Inventory, report: Callable[[Event], object], hosts: Callable[[], object]
    ) -> None:
        self._read_hosts = hosts
        self._node, self._inventory, self._report = node, inventory, report
        self._host = inventory.host_inode
        self._next: dict[int, float] = {}  # when each may be read again
        self._due: dict[int, float] = {}
        self._asked = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def see(self, event: Event) -> None:
        """Takes note of a drop that the rules of its namespace may explain."""
        if not isinstance(event, PacketDropped) or event.reason not in _REASONS or not event.netns:
            return
        if event.netns == self._host and event.reason != "NETFILTER_DROP":
            return
        with self._asked:
            now = time.monotonic()
            if event.netns in self._due or not self._has_room(event.netns, now):
                return
            self._due[event.netns] = max(now, self._next.get(event.netns, 0.0))
            self._asked.notify()

    def _has_room(self, inode: int, now: float) -> bool:
        if inode not in self._next and len(self._next) >= MAX_NAMESPACES:
            self._next = {other: at for other, at in self._next.items() if now - at < FORGET_S or other in self._due}
        return inode in self._next or len(self._next) < MAX_NAMESPACES

    def _run(self) -> None:
        while True:
            inode = self._take()
            began = time.monotonic()
            self._read(inode)
            took = time.monotonic() - began
            again = HOSTS_AGAIN_S if inode == self._host else AGAIN_S
            with self._asked:
                self._next[inode] = began + max(again, SHARE * took)

    def _take(self) -> int:
        """The next namespace that is due; waits for one."""
        with self._asked:
            while True:
                inode = min(self._due, key=lambda one: self._due[one], default=None)
                left = self._due[inode] - time.monotonic() if inode is not None else None
                if inode is not None and left is not None and left <= 0:
                    del self._due[inode]
                    self._next.setdefault(inode, 0.0)
                    return inode
                self._asked.wait(left)

    def _read(self, inode: int) -> None:
        if inode == self._host:
            self._read_hosts()
            return
        path = self._inventory.path_of(inode)
        if path is not None:
            began = time.monotonic_ns()
            dumps = tuple(read_rulesets(self._node, path, only_rules=True))
            self._report(NetnsRules(node=self._node, t_ns=began, netns=inode, dumps=dumps))
