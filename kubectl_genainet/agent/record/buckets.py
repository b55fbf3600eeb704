"""Totals of ten seconds, from what the kernel counted and the probes saw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from kubectl_genainet.agent.record.histograms import MAX_ROWS, HistogramBuilder, Times
from kubectl_genainet.model.events import (
    ConnectionCounts,
    DnsEnd,
    DnsTransaction,
    DropCount,
    Event,
    LostEvents,
)
from kubectl_genainet.model.history import (
    COUNTED,
    ENDS,
    Bucket,
    ConnectionEnds,
    ConnectionSums,
    DnsSums,
    DropSums,
    ends_of,
)
from kubectl_genainet.model.packet import ALL_KEPT

REST = "…"  # all names beyond those that fit


@dataclass(slots=True)
class _Drops:
    packets: int = 0
    bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0


@dataclass(slots=True)
class _Dns:
    count: int = 0
    times: HistogramBuilder = field(default_factory=HistogramBuilder)


class Buckets:
    """Feed it every record; `close` gives the bucket since the last call."""

    def __init__(self, node: str, times: Times) -> None:
        self.node, self._times = node, times
        self.followed = ALL_KEPT
        self._connections: dict[ConnectionEnds, list[int]] = {}
        self._drops: dict[tuple[object, ...], _Drops] = {}
        self._dns: dict[tuple[str, str, str, str], _Dns] = {}
        self._lost = 0

    def take(self, event: Event, ahead_ns: int) -> None:
        match event:
            case DropCount():
                self._drop(event, event.t_ns + ahead_ns)
            case DnsTransaction():
                self._exchange(event)
            case LostEvents():
                self._lost += event.count
            case _:
                pass

    def counted(self, counts: ConnectionCounts) -> None:
        """Of the time since the last ones."""
        sums = self._connections.setdefault(ends_of(counts), [0] * len(COUNTED))
        for number, name in enumerate(COUNTED):
            sums[number] += getattr(counts, name)

    def _drop(self, event: DropCount, at_ns: int) -> None:
        flow = event.flow
        key = (event.reason, event.location, event.netns, flow.src, flow.dst, flow.dport, flow.protocol)
        if key not in self._drops and len(self._drops) >= MAX_ROWS:
            key = (event.reason, event.location, event.netns, "", "", 0, flow.protocol)
        sums = self._drops.setdefault(key, _Drops(first_ns=at_ns))
        sums.packets += event.packets
        sums.bytes += event.bytes
        sums.last_ns = at_ns

    def _exchange(self, event: DnsTransaction) -> None:
        flow = event.flows[0]
        question = event.asked.question if event.asked is not None else None
        name = question.name if question is not None else ""
        ended = event.end is DnsEnd.ANSWERED and event.answer is not None
        rcode = event.answer.rcode if ended and event.answer is not None else event.end.value
        key = (flow.src, flow.dst, name, rcode)
        if key not in self._dns and len(self._dns) >= MAX_ROWS:
            key = (flow.src, flow.dst, REST, rcode)
            if key not in self._dns and len(self._dns) >= 2 * MAX_ROWS:
                key = ("", "", REST, rcode)
        sums = self._dns.setdefault(key, _Dns())
        sums.count += 1
        if event.query and event.response:
            sums.times.add(event.response[-1].t_ns - event.query[0].t_ns)

    def close(self, since_ns: int, until_ns: int) -> Bucket:
        """The totals between two wall-clock times."""
        connections, self._connections = self._connections, {}
        drops, self._drops = self._drops, {}
        dns, self._dns = self._dns, {}
        lost, self._lost = self._lost, 0
        followed = self.followed
        return Bucket(
            node=self.node,
            since_ns=since_ns,
            until_ns=until_ns,
            connections=tuple(_sums(ends, numbers) for ends, numbers in connections.items()),
            times=self._times.drain(),
            drops=tuple(_drop_sums(key, sums) for key, sums in drops.items()),
            dns=tuple(
                DnsSums(
                    client=client, server=server, name=name, rcode=rcode, count=sums.count, times=sums.times.histogram
                )
                for (client, server, name, rcode), sums in dns.items()
            ),
            lost=lost,
            followed=followed,
        )


def _sums(ends: ConnectionEnds, numbers: list[int]) -> ConnectionSums:
    fields: dict[str, Any] = dict(zip((*ENDS, *COUNTED), (*ends, *numbers), strict=True))
    return ConnectionSums(**fields)


def _drop_sums(key: tuple[object, ...], sums: _Drops) -> DropSums:
    names = ("reason", "location", "netns", "src", "dst", "dport", "protocol")
    return DropSums(
        **dict(zip(names, key, strict=True)),  # type: ignore[arg-type]
        packets=sums.packets,
        bytes=sums.bytes,
        at_first_ns=sums.first_ns,
        at_last_ns=sums.last_ns,
    )
