"""Which connections the agents followed whole, where they kept within their budgets."""

from __future__ import annotations

from collections.abc import Container, Iterable

from kubectl_genainet.model.events import Sampled
from kubectl_genainet.model.packet import ALL_KEPT, FiveTuple, followed

MAX_CHANGES = 10_000  # of a node's number that are remembered


class Sampling:
    """How many connections the nodes followed over time, each on the node's own clock. A connection is whole where it was
    among those that were followed on its way all the time that it lasted."""

    def __init__(self) -> None:
        self._changes: dict[str, list[tuple[int, int]]] = {}  # node -> (in force from, kept)

    def __bool__(self) -> bool:
        return bool(self._changes)

    @property
    def fewest(self) -> int:
        return min((kept for changes in self._changes.values() for _, kept in changes), default=ALL_KEPT)

    def learn(self, event: Sampled, since_ns: int) -> None:
        """A lower number may have been in force since `since_ns`, the last moment at which it was known not to be; a higher one
        is from the moment that it is told."""
        changes = self._changes.setdefault(event.node, [])
        before = changes[-1][1] if changes else ALL_KEPT
        changes.append((since_ns if event.share < before else event.t_ns, event.share))
        del changes[:-MAX_CHANGES]

    def kept(self, node: str, begin_ns: int, end_ns: int) -> int:
        """The fewest that the node followed between two moments."""
        changes = self._changes.get(node, [])
        share = ALL_KEPT
        for number, (since, kept) in enumerate(changes):
            until = changes[number + 1][0] if number + 1 < len(changes) else end_ns
            if since <= end_ns and until >= begin_ns:
                share = min(share, kept)
        return share

    def whole(self, flows: Iterable[FiveTuple], named: Container[int], spans: Iterable[tuple[str, int, int]]) -> bool:
        """Whether all nodes followed the connection, whatever its tuple was there; `named` are the ports of the filters,
        `spans` are (node, begin, end) on the nodes' clocks."""
        fewest = min((self.kept(*span) for span in spans), default=ALL_KEPT)
        return all(followed(flow, fewest, named) for flow in flows)
