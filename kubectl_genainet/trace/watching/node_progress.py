"""How far each node has reported, on its own clock."""

from __future__ import annotations

from collections.abc import Collection

from kubectl_genainet.context.loss_times import LossTimes
from kubectl_genainet.model.events import Tick


class NodeProgress:
    """`now` is a node's latest record, `ticked` the time up to which it has reported everything, its losses and its level of
    sampling too, `counted` the time up to which it has reported what it counted. Records of the nodes that are `unfinished`
    are missing."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.ticked: dict[str, int] = {}
        self.counted: dict[str, int] = {}
        self.losses = LossTimes()
        self.unfinished: Collection[str] = ()

    def heard(self, node: str, t_ns: int) -> None:
        self.now[node] = max(self.now.get(node, 0), t_ns)

    def tick(self, event: Tick) -> None:
        self.losses.tick(event.node, event.t_ns)
        self.ticked[event.node] = event.t_ns
        self.counted[event.node] = max(event.counted_ns, self.counted.get(event.node, 0))

    def lost(self, node: str) -> None:
        self.losses.learn(node, self.ticked.get(node, 0))
