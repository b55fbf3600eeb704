"""Which open connections may have settled since the last look: those with something new, and those whose time has come.

To look at every open connection several times a second for each node costs more than all else where many stay open.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from heapq import heappop, heappush
from math import inf
from typing import NamedTuple

from kubectl_genainet.trace.joining.connection import Connection


class Wait(NamedTuple):
    """What a connection waits for, unless something new comes: that the node has reported beyond a time on its clock (`inf`:
    something new alone ends it); without a time, that the node has ticked; without a node, what only another look can tell."""

    node: str
    until_ns: float | None


LOOK_AGAIN = Wait("", None)


class OpenConnections:
    """The connections of which no path was told yet, the oldest first, and when each is looked at."""

    def __init__(self) -> None:
        self._added = self._pushed = 0
        self._open: dict[int, tuple[int, Connection]] = {}  # by id, with its place in the order
        self._look: dict[int, Connection] = {}  # at the next look
        self._for_tick: dict[str, dict[int, Connection]] = defaultdict(dict)  # by node
        self._for_time: dict[str, list[tuple[float, int, Connection]]] = defaultdict(list)  # heaps, by node

    def __iter__(self) -> Iterator[Connection]:
        return (connection for _, connection in self._open.values())

    def add(self, connection: Connection) -> None:
        """There is something new of it."""
        key = id(connection)
        if key not in self._open:
            self._added += 1
            self._open[key] = self._added, connection
        self._look[key] = connection

    def remove(self, connection: Connection) -> None:
        self._open.pop(id(connection), None)
        self._look.pop(id(connection), None)

    def wait(self, connection: Connection, wait: Wait) -> None:
        node, until_ns = wait
        if wait is LOOK_AGAIN:
            self._look[id(connection)] = connection
        elif until_ns is None:
            self._for_tick[node][id(connection)] = connection
        elif until_ns != inf:
            self._wake(connection, node, until_ns)

    def _wake(self, connection: Connection, node: str, until_ns: float) -> None:
        """Looks at it then, or earlier: one that goes on and on has one place in the heap, not one for each of its packets."""
        if connection.wakes is not None and connection.wakes[0] == node and connection.wakes[1] <= until_ns:
            return
        connection.wakes = node, until_ns
        self._pushed += 1
        heappush(self._for_time[node], (until_ns, self._pushed, connection))

    def ticked(self, node: str) -> None:
        self._look.update(self._for_tick.pop(node, {}))

    def look_at_all(self) -> None:
        """What they wait for may never come: a node has failed, or other nodes are on their way."""
        self._for_tick.clear()
        self._look.update({key: connection for key, (_, connection) in self._open.items()})

    def due(self, node: str, now_ns: int) -> list[Connection]:
        """Those to look at, now that the node has reported up to this time, the oldest first. Each may `wait` again."""
        heap = self._for_time.get(node)
        while heap and heap[0][0] < now_ns:
            until_ns, _, connection = heappop(heap)
            if connection.wakes == (node, until_ns):
                connection.wakes = None
                self._look[id(connection)] = connection
        look, self._look = self._look, {}
        places = sorted(self._open[key] for key in look if key in self._open)
        return [connection for _, connection in places]
