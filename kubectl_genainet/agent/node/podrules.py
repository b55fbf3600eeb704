"""Reads the packet rules of a namespace once a packet has died there where they may be why: a pod's are read only then, the
host's anew."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kubectl_genainet.agent.node.cpu_time import spent_s
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.model.events import Event, PacketDropped
from kubectl_genainet.model.node import NetnsRules, RulesetDump
from kubectl_genainet.model.reasons import rules_may_explain

MAX_NAMESPACES = 64  # a session reads so many at a time; each takes some hundred ms of commands
FORGET_S = 600.0  # one in which nothing died for so long makes room for another
AGAIN_S = 3.0  # rules change while a session runs, and one may be there for seconds only
HOSTS_AGAIN_S = 4.0  # sooner than a path stops waiting for them (trace/settling.py)
SHARE = 100  # reading the host's takes one part in so many of a CPU's time, at most
PODS_SHARE = 25  # a pod's are few, and a path waits for them for 8 s (trace/settling.py)
WHOLE_SHARE = 10  # and all of them together
LAST_S = 3.0  # what is due at a session's end may be read for so long


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
        self._free_at = 0.0  # when the next one may be read
        self._is_reading = self._is_ending = False
        self._asked = threading.Condition()
        threading.Thread(target=self._run, daemon=True).start()

    def see(self, event: Event) -> None:
        """Takes note of a drop that the rules of its namespace may explain."""
        if not isinstance(event, PacketDropped) or not event.netns:
            return
        if not rules_may_explain(event.reason, event.location, opening=event.opening):
            return
        if event.netns == self._host and event.reason != "NETFILTER_DROP":
            return
        with self._asked:
            now = time.monotonic()
            if event.netns in self._due or not self._has_room(event.netns, now):
                return
            self._due[event.netns] = max(now, self._next.get(event.netns, 0.0))
            self._asked.notify()

    def finish(self) -> None:
        """Reads at once what is due, at a session's end: what has died just now is explained as well."""
        with self._asked:
            self._is_ending = True
            self._asked.notify_all()
            self._asked.wait_for(lambda: not (self._due or self._is_reading), LAST_S)

    def _has_room(self, inode: int, now: float) -> bool:
        if inode not in self._next and len(self._next) >= MAX_NAMESPACES:
            self._next = {
                other: read_at
                for other, read_at in self._next.items()
                if now - read_at < FORGET_S or other in self._due
            }
        return inode in self._next or len(self._next) < MAX_NAMESPACES

    def _run(self) -> None:
        while True:
            inode = self._take()
            began, spent = time.monotonic(), spent_s()
            self._read(inode)
            took = spent_s() - spent
            again, share = (HOSTS_AGAIN_S, SHARE) if inode == self._host else (AGAIN_S, PODS_SHARE)
            with self._asked:
                self._next[inode] = began + max(again, share * took)
                self._free_at = began + WHOLE_SHARE * took
                self._is_reading = False
                self._asked.notify_all()

    def _take(self) -> int:
        """The next namespace that is due; waits for one."""
        with self._asked:
            while True:
                inode = min(self._due, key=lambda namespace: self._due[namespace], default=None)
                wait_s = max(self._due[inode], self._free_at) - time.monotonic() if inode is not None else None
                if inode is not None and wait_s is not None and (wait_s <= 0 or self._is_ending):
                    del self._due[inode]
                    self._is_reading = True
                    self._next.setdefault(inode, 0.0)
                    return inode
                self._asked.wait(wait_s)

    def _read(self, inode: int) -> None:
        began = time.monotonic_ns()
        dumps: tuple[RulesetDump, ...] = ()
        if inode == self._host:
            self._read_hosts()  # reports what has changed
        else:
            path = self._inventory.path_of(inode)
            if path is None:
                return
            dumps = tuple(read_rulesets(self._node, path, only_rules=True, with_empty=True))
        self._report(NetnsRules(node=self._node, t_ns=began, netns=inode, dumps=dumps))
