"""When the nodes lost records. An agent reports a loss before the tick of the second in which it happened."""

from __future__ import annotations

from collections import defaultdict
from math import inf


class LossTimes:
    """Times are on the nodes' own clocks. A loss lies between the tick before its report and the tick after: that does not
    depend on what other nodes have reported meanwhile."""

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def learn(self, node: str, ticked_ns: int) -> None:
        """The node reports a loss; `ticked_ns` is its last tick before."""
        spans = self._spans[node]
        if not spans or spans[-1][1] != inf:
            spans.append((ticked_ns, inf))

    def tick(self, node: str, t_ns: int) -> None:
        spans = self._spans.get(node)
        if spans and spans[-1][1] == inf:
            spans[-1] = (spans[-1][0], t_ns)

    def during(self, node: str, begin_ns: int, end_ns: int) -> bool:
        return any(began <= end_ns and begin_ns <= until for began, until in self._spans.get(node, ()))
