"""A direction's data at one place, as it was counted there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubectl_genainet.model.events import FlowCounters, FlowSilence, Point
from kubectl_genainet.trace.joining.connection import Connection, PacketDirection

Wall = Callable[[str, int], int]


@dataclass(frozen=True, slots=True)
class Data:
    """Times are by the wall clock."""

    bytes: int
    first_ns: int
    second_ns: int  # of what came after the first; 0 for nothing
    last_ns: int
    silence_ns: int
    silence_at_ns: int
    at_silence: FlowSilence | None
    first_asked_ns: int  # when data had last passed the other way before the first; 0 for never
    gaps: tuple[int, ...]
    gap_us: tuple[int, ...]
    place: tuple[str, int]  # node and namespace


def data_of(count: FlowCounters, wall: Wall) -> Data:
    """What was counted, in wall-clock times."""
    return Data(
        count.data_bytes,
        wall(count.node, count.first_ns),
        wall(count.node, count.second_ns) if count.second_ns else 0,
        wall(count.node, count.last_ns),
        count.silence_ns,
        wall(count.node, count.silence_at_ns),
        count.at_silence,
        wall(count.node, count.first_asked_ns) if count.first_asked_ns else 0,
        count.gaps,
        count.gap_us,
        (count.node, count.netns),
    )


def data_at(connection: Connection, direction: PacketDirection, point: Point, wall: Wall) -> list[Data]:
    """The direction's data at all places of a kind, in the order of travel."""
    counts = [
        c.latest
        for (place, _), c in connection.counts.items()
        if c.direction is direction
        and place[3] is point
        and c.latest.first_ns
        and {c.latest.flow, c.latest.flow.reversed}.isdisjoint(connection.moved)
    ]
    return sorted((data_of(count, wall) for count in counts), key=lambda data: data.first_ns)
