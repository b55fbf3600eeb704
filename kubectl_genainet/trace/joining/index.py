"""Finds connections: by tuple, by a client's end, by what NAT leaves alone of the first packet."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TypeVar

from kubectl_genainet.model.packet import FiveTuple, Protocol
from kubectl_genainet.trace.joining.connection import AddressPort, Connection, FirstPacketKey

K = TypeVar("K")

MAX_CONNECTIONS = 200_000


class ConnectionIndex:
    """`forgotten` counts the connections that were let go for want of room before they were over: what comes of them later is
    taken for another connection's. `let_go` is told of each that no path was told of."""

    def __init__(self, let_go: Callable[[Connection], None] = lambda _: None) -> None:
        self.forgotten = 0
        self._let_go = let_go
        self._all: dict[int, Connection] = {}  # by id, the oldest first
        self._reported: dict[int, Connection] = {}  # those whose paths were told, by id, the first told first
        self._by_key: dict[FirstPacketKey, dict[int, Connection]] = defaultdict(dict)
        self._by_sender: dict[tuple[FirstPacketKey, AddressPort], dict[int, Connection]] = defaultdict(dict)
        self._by_tuple: dict[FiveTuple, Connection] = {}
        self._by_client: dict[AddressPort, Connection] = {}  # TCP's

    def __iter__(self) -> Iterator[Connection]:
        return iter(self._all.values())

    def __len__(self) -> int:
        return len(self._all)

    def of_tuple(self, flow: FiveTuple) -> Connection | None:
        """The connection of a packet in either direction."""
        return self._by_tuple.get(flow) or self._by_tuple.get(flow.reversed)

    def has(self, flow: FiveTuple) -> bool:
        """Whether this is a known tuple in its client's direction."""
        return flow in self._by_tuple

    def of_client(self, end: AddressPort) -> Connection | None:
        """The TCP connection that this end opened last."""
        return self._by_client.get(end)

    def with_key(self, key: FirstPacketKey) -> Iterable[Connection]:
        """Those whose first packet looks like this one, the oldest first."""
        return self._by_key.get(key, {}).values()

    def from_sender(self, key: FirstPacketKey, sender: AddressPort) -> Iterable[Connection]:
        """Those of them that this end sent."""
        return self._by_sender.get((key, sender), {}).values()

    def add(self, connection: Connection) -> None:
        if len(self._all) >= MAX_CONNECTIONS:
            self._forget()
        self._all[id(connection)] = connection
        self._by_key[connection.key][id(connection)] = connection

    def learn(self, connection: Connection, flow: FiveTuple) -> None:
        """`flow` is the connection's, in its client's direction."""
        sender = (flow.src, flow.sport)
        before = self._by_tuple.get(flow)
        if before is not None and before is not connection and not before.reported:
            connection.earlier, before.earlier = before, None
        connection.tuples.setdefault(flow)
        self._by_tuple[flow] = connection
        if flow.protocol is Protocol.TCP:
            self._by_client[sender] = connection
        else:
            self._by_sender[connection.key, sender][id(connection)] = connection

    def reported(self, connection: Connection) -> None:
        """Its path has been told: where room is needed, it goes first."""
        if id(connection) in self._all:
            self._reported[id(connection)] = connection

    def remove(self, connection: Connection) -> None:
        self._all.pop(id(connection), None)
        self._reported.pop(id(connection), None)
        _take_out(self._by_key, connection.key, connection)
        for flow in connection.tuples:
            sender = (flow.src, flow.sport)
            if self._by_tuple.get(flow) is connection:
                del self._by_tuple[flow]
            if self._by_client.get(sender) is connection:
                del self._by_client[sender]
            _take_out(self._by_sender, (connection.key, sender), connection)

    def _forget(self) -> None:
        """Makes room: a tenth goes of those that were told first; where none was told yet, the oldest."""
        going = list(islice(self._reported.values(), max(1, MAX_CONNECTIONS // 10)))
        for connection in going or [next(iter(self._all.values()))]:
            self.remove(connection)
            self.forgotten += not connection.over
            if not connection.reported:
                self._let_go(connection)


def _take_out(groups: dict[K, dict[int, Connection]], key: K, connection: Connection) -> None:
    group = groups.get(key)
    if group is not None:
        group.pop(id(connection), None)
        if not group:
            del groups[key]
