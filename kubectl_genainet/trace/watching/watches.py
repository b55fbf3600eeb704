"""When each node was watched: a connection that began before every node on its way was, is half seen.

Agents load their probes side by side and are not ready at the same moment, nor do they end at the same one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kubectl_genainet.context.clocks import Clocks, WallClocks
from kubectl_genainet.model.events import AgentFailed, Hello, Progress


@dataclass(slots=True)
class NodeWatch:
    """One node's; times on its own clock, None while not known. `ahead_ns` turns them into wall-clock times."""

    ahead_ns: int
    begun: int | None = None
    ended: int | None = None


class Watches:
    """Learns from the agents' records; answers for moments on any node's clock."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._nodes: dict[str, NodeWatch] = {}
        self._walls = WallClocks()  # of failed agents too

    def learn(self, event: Hello | Progress | AgentFailed) -> None:
        if isinstance(event, Hello):
            self._walls.learn(event)
            self._nodes[event.node] = NodeWatch(event.realtime_ns - event.t_ns)
        elif isinstance(event, AgentFailed):
            watch = self._nodes.get(event.node)
            if watch is not None and watch.ended is None:
                del self._nodes[event.node]  # it sees nothing more; what it saw stands
        elif event.node in self._nodes and event.stage == "attached":
            self._nodes[event.node].begun = event.t_ns
        elif event.node in self._nodes and event.stage == "detached":
            self._nodes[event.node].ended = event.t_ns

    def ended(self, node: str) -> int | None:
        """When the node's probes stopped looking, on its clock."""
        watch = self._nodes.get(node)
        return watch.ended if watch is not None else None

    def covered(self, since: int, clock_of: str, nodes: Iterable[str]) -> bool:
        """Whether all of the nodes were watched from the moment `since`, on the clock of the node `clock_of`.

        Clocks that can't be compared through packets are by the nodes' own wall clocks. A node without an agent does
        not count: nothing of it will ever be seen.
        """
        for node in {*nodes} & self._nodes.keys():
            watch = self._nodes[node]
            moment = self._on(node, since, clock_of)
            if watch.begun is None or moment < watch.begun or (watch.ended is not None and moment > watch.ended):
                return False
        return True

    def wall_clock(self, node: str, t_ns: int) -> int:
        """A node's time as its own wall clock has it; the time itself where its Hello was not seen."""
        watch = self._nodes.get(node)
        return t_ns + (watch.ahead_ns if watch is not None else 0)

    def earliest(self, moments: Iterable[tuple[str, int]]) -> tuple[int, str]:
        """The first of (node, time on its clock) as its time and as RFC 3339; 0 and "" for none."""
        first = min(((n, t) for n, t in moments if t), key=lambda m: self.wall_clock(*m), default=None)
        return (first[1], self._walls.time(*first)) if first is not None else (0, "")

    def knows(self, node: str) -> bool:
        """Whether an agent of the node has said Hello and has not failed."""
        return node in self._nodes

    def _on(self, node: str, t_ns: int, clock_of: str) -> int:
        """A time of one node's clock on another's."""
        offset = self._clocks.offset(clock_of, node)
        if offset is not None:
            return t_ns + offset.add_ns
        there, here = self._nodes.get(clock_of), self._nodes[node]
        return t_ns + (there.ahead_ns - here.ahead_ns if there is not None else 0)
