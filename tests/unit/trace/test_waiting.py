"""Only those open connections are looked at of which something is new, or whose time has come."""

from __future__ import annotations

import random
from math import inf

from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.trace.joining.connection import Connection
from kubectl_genainet.trace.waiting import LOOK_AGAIN, OpenConnections, Wait


def connections(count: int) -> tuple[OpenConnections, list[Connection]]:
    """So many open connections that have been looked at."""
    open_connections = OpenConnections()
    made = [Connection(("tcp", number, 0), Protocol.TCP) for number in range(count)]
    for connection in made:
        open_connections.add(connection)
    assert open_connections.due("a", 1) == made
    return open_connections, made


def test_one_is_looked_at_when_its_time_has_come_on_that_nodes_clock() -> None:
    waiting, (first, second) = connections(2)
    waiting.wait(first, Wait("a", 10))
    waiting.wait(second, Wait("b", 5))
    assert waiting.due("a", 10) == [] and waiting.due("b", 6) == [second]
    assert waiting.due("a", 11) == [first] and waiting.due("a", 12) == []


def test_one_that_lives_is_looked_at_when_there_is_something_new() -> None:
    waiting, (stream,) = connections(1)
    waiting.wait(stream, Wait("a", inf))
    assert waiting.due("a", 10**18) == []
    waiting.add(stream)
    assert waiting.due("a", 1) == [stream]


def test_a_tick_of_the_node_that_is_waited_for_brings_it_back() -> None:
    waiting, (first, second) = connections(2)
    waiting.wait(first, Wait("a", None))
    waiting.wait(second, LOOK_AGAIN)
    assert waiting.due("a", 1) == [second]
    waiting.ticked("b")
    assert waiting.due("a", 1) == []
    waiting.ticked("a")
    assert waiting.due("a", 1) == [first]


def test_all_are_looked_at_where_what_they_wait_for_may_never_come() -> None:
    waiting, made = connections(3)
    for connection, wait in zip(made, (Wait("a", 100), Wait("a", None), Wait("b", inf)), strict=True):
        waiting.wait(connection, wait)
    waiting.look_at_all()
    assert waiting.due("a", 1) == made


def test_one_that_is_no_longer_open_is_not_looked_at() -> None:
    waiting, (first, second) = connections(2)
    waiting.wait(first, Wait("a", 5))
    waiting.wait(second, Wait("a", 5))
    waiting.remove(first)
    assert waiting.due("a", 6) == [second] and list(waiting) == [second]


def test_none_is_looked_at_late_whatever_it_waited_for_before() -> None:
    chance = random.Random(14)
    waiting, made = connections(50)
    until = {}
    for now in range(1, 3000):
        for connection in chance.sample(made, 5):
            waiting.add(connection)
        for connection in waiting.due("a", now):
            until[id(connection)] = now + chance.randrange(60)
            waiting.wait(connection, Wait("a", until[id(connection)]))
        assert all(now <= late for late in until.values())
