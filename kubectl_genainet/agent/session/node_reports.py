"""Keeps a session's client informed about the node: its network namespaces, tunnels and rules, as they change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from kubectl_genainet.agent.node.cpu_time import spent_s
from kubectl_genainet.agent.node.inventory import Inventory
from kubectl_genainet.agent.node.rulesets import read_rulesets
from kubectl_genainet.agent.node.tunnels import Tunnels, tunnels_of
from kubectl_genainet.agent.session.link_news import LinkNews
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.history.rules import without_counters
from kubectl_genainet.model.events import Event, Progress
from kubectl_genainet.model.node import NodeReport

RULESETS_S = 15.0
NODE_SHARE = 8  # reading the namespaces, and the rules, may each take one part in so many of the budget
UNREADABLE = 100  # messages at most about what can't be read
BETWEEN_LOOKS_S = 0.5  # at least, however many pods come
ADVANCE_S = 20.0  # so far ahead of the budget may looks at new pods be: later ones make up for it
WIRED_S = 0.3  # a pod's device has its addresses a little after it came,
WIRED_LOOKS = 10  # on a busy node later


class NodeReports:
    """Reports to `report`. Sets `changed` when the namespaces or tunnels that the probes filter by are others than before; who
    sets the filters says so with `applied`. A namespace is reported once it is followed: readers rely on it.

    `pause_after(share, took_s)` says how long to pause after work of `took_s` that may take one part in `share` of the budget.
    """

    def __init__(
        self,
        inventory: Inventory,
        report: Callable[[Event], object],
        changed: threading.Event,
        pause_after: Callable[[int, float], float],
    ) -> None:
        self.inventory = inventory
        self.namespaces: set[int] = set()
        self.tunnels = Tunnels()
        self._applied = threading.Event()
        self._report, self._changed, self._pause_after = report, changed, pause_after
        self._unreadable: set[str] = set()  # messages that were sent
        self._rulesets: dict[str, int] = {}  # hash of what was reported, by source
        self._reading_rulesets = threading.Lock()  # what was read first is reported first

    def read_namespaces(self) -> None:
        self.namespaces = self.inventory.own_inodes()

    def filtered_namespaces(self) -> set[int] | None:
        """The namespaces that the kernel filters by; None where all are this node's."""
        return self.namespaces if self.inventory.shared else None

    def applied(self, namespaces: set[int]) -> None:
        """The probes filter by these, which were `self.namespaces`, from now on."""
        if namespaces is self.namespaces:
            self._applied.set()

    def report_node(self, *, fresh: bool = True) -> NodeReport:
        """Reports the namespaces, and once each thing that can't be read. Returns the report."""
        report = self.inventory.report(fresh=fresh)
        self._report(report)
        tunnels = tunnels_of(report, shared=self.inventory.shared)
        if tunnels != self.tunnels:
            self.tunnels = tunnels
            self._changed.set()
        for message in report.unreadable:
            if message not in self._unreadable and len(self._unreadable) < UNREADABLE:
                self._unreadable.add(message)
                self._report(Progress(node=report.node, stage="missing", detail=f"unreadable: {message}"))
        return report

    def report_rulesets(self) -> None:
        """Reports the rules that differ from those reported before, and sources that have none any more."""
        with self._reading_rulesets:
            for dump in read_rulesets(self.inventory.node, self.inventory.host_netns, with_empty=True):
                if not (dump.text or dump.error) and dump.source not in self._rulesets:
                    continue
                fingerprint = hash((dump.source, without_counters(dump).text, dump.error))
                if self._rulesets.get(dump.source) != fingerprint:
                    self._rulesets[dump.source] = fingerprint
                    self._report(dump)

    def watch_rulesets(self, stop: threading.Event) -> None:
        """Rules change while a session runs; reading them takes a small part of the time."""
        pause = RULESETS_S
        while not stop.wait(pause):
            began = spent_s()
            self.report_rulesets()
            pause = max(RULESETS_S, self._pause_after(NODE_SHARE, spent_s() - began))

    def watch_namespaces(self, stop: threading.Event, every_s: float) -> None:
        """Pods come and go, tables fill: the namespaces are reported anew, and followed where the kernel is shared. A device that
        comes or goes has them looked at right away: what a new pod sends meanwhile is not seen.

        Runs in a thread of its own: on a busy node it takes long, and no packet waits for it.
        """
        with self._link_news() as news:
            looked, pause = time.monotonic(), every_s
            while not stop.is_set():
                is_early = self._wait(news, stop, looked, pause)
                if stop.is_set():
                    return
                began = spent_s()
                try:
                    new = self._follow_namespaces(stop)
                    self._report_wired(new if is_early else set(), stop)
                except OSError:
                    raise GenainetError("the node's network namespace is gone") from None
                ahead = max(0.0, looked + pause - time.monotonic()) if is_early else 0.0
                looked = time.monotonic()
                pause = max(every_s, ahead + self._pause_after(NODE_SHARE, spent_s() - began))

    def _link_news(self) -> LinkNews:
        try:
            return LinkNews(self.inventory.host_netns)
        except OSError:
            raise GenainetError("the node's network namespace is gone") from None

    def _wait(self, news: LinkNews, stop: threading.Event, looked: float, pause: float) -> bool:
        """Until it is time to look, `pause` after the last look; whether it is so early because a device came or went."""
        stop.wait(min(pause, max(BETWEEN_LOOKS_S, pause - ADVANCE_S)) - (time.monotonic() - looked))
        return news.wait(stop, looked + pause - time.monotonic())

    def _report_wired(self, new: set[int], stop: threading.Event) -> None:
        """Reports the namespaces once the new ones have addresses, which tell whose they are."""
        for _ in range(WIRED_LOOKS if new else 1):
            if new:
                stop.wait(WIRED_S)
            report = self.report_node(fresh=False)
            new &= {netns.inode for netns in report.namespaces if not netns.addresses}
            if not new or stop.is_set():
                break

    def _follow_namespaces(self, stop: threading.Event) -> set[int]:
        """Has the probes follow the node's namespaces as they are now. Returns those that are new."""
        current, before = self.inventory.own_inodes(), self.namespaces
        if current == before:
            return set()
        self._applied.clear()
        self.namespaces = current
        self._changed.set()
        while not stop.is_set() and not self._applied.wait(0.1):
            continue
        return current - before
