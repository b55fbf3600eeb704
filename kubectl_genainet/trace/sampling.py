"""Which connections the agents followed whole, where they kept within their budgets."""

from __future__ import annotations

from collections.abc import Iterable

from kubectl_genainet.model.events import Sampled
from kubectl_genainet.model.packet import FiveTuple, followed

MAX_CHANGES = 10_000  # of a node's level that are remembered


class Sampling:
    """The nodes' levels over time, each on the node's own clock. A connection is whole where it was followed at every level
    that was in force on its way while it lasted."""

    def __init__(self) -> None:
        self._changes: dict[str, list[tuple[int, int]]] = {}  # node -> (in force from, level)

    def __bool__(self) -> bool:
        return bool(self._changes)

    @property
    def highest(self) -> int:
        return max((level for changes in self._changes.values() for _, level in changes), default=0)

    def learn(self, event: Sampled, since_ns: int) -> None:
        """The level may have been in force since `since_ns`, the last moment at which it was known not to be."""
        changes = self._changes.setdefault(event.node, [])
        changes.append((since_ns, event.level))
        del changes[:-MAX_CHANGES]

    def level(self, node: str, begin_ns: int, end_ns: int) -> int:
        """The highest level on the node between two moments."""
        changes = self._changes.get(node, [])
        found = 0
        for number, (since, level) in enumerate(changes):
            # A lower level may have come into force at any moment up to the record that told of it.
            until = changes[number + 1][0] if number + 1 < len(changes) else end_ns
            if since <= end_ns and until >= begin_ns:
                found = max(found, level)
        return found

    def whole(self, flow: FiveTuple, spans: Iterable[tuple[str, int, int]]) -> bool:
        """Whether all nodes followed the connection; `spans` are (node, begin, end) on the nodes' clocks."""
        return followed(flow, max((self.level(*span) for span in spans), default=0))
