"""Keeps a session within its budget of CPU time: beyond it fewer connections, and fewer DNS exchanges, are followed, each of
them whole.

The kernel follows fewer by itself within the second (press, probes/packet.bpf.c); here the number is set by what the session
really took: this process, what it started, and the BPF programs themselves.
"""

from __future__ import annotations

import os
import resource
import struct
import time

from kubectl_genainet.agent.bpf import syscalls as bpfsys
from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.model.packet import ALL_KEPT

FEWEST_KEPT = 4  # of ALL_KEPT
EVENT_S = 15e-6  # what an event takes until it has been measured
ENOUGH_EVENTS = 500  # of a second, to measure it by
EVENTS_SHARE = 0.6  # of the budget; the rest is for counters, namespaces and rules
BURST = 2  # times the events of a second that the budget has room for: the kernel does not wait for the next look
AIM = 0.92  # of the budget: where the number is set to
ROOM = 0.82  # of the budget: below it more are followed
MOST_MORE = 2.0  # times as many as before, at once
FEWEST_LESS = 0.25
CALM = 2  # looks in a row with room, before more are followed
EVENT_MOST_S = 50e-6  # what an event takes on a slow node
WORTH = 0.5  # of the budget, that following connections may be taking: below it fewer of them save nothing
FEWEST_RECORDS = 50  # a second and CPU, whatever they take
SMOOTH = 0.3  # the part of the last second in the average: rules are read every few seconds, which takes much of one
_SAMPLING = struct.Struct("=II")
_ZERO = bytes(4)


class KernelTime:
    """What the session's BPF programs take, from the kernel's own statistics, switched on for a part of the time only: the
    measuring costs as much as a small program. `spent_s` is None where the kernel or the rights do not give it."""

    def __init__(self, probes: list[LoadedProbe]) -> None:
        self._probes = probes
        self._statistics: int | None = None
        self._began = self._ran = self._asked = 0.0
        self.spent_s: float | None = None

    def begin(self) -> None:
        """Switches on; `end` soon."""
        self._statistics = bpfsys.enable_statistics()
        self._began, self._ran = time.monotonic(), self._run_s()

    def end(self) -> None:
        """Adds what the time since the last measurement took, by the rate within this one."""
        if self._statistics is None:
            return
        ran, now = self._run_s() - self._ran, time.monotonic()
        os.close(self._statistics)
        self._statistics = None
        since = now - (self._asked or self._began)
        self._asked = now
        self.spent_s = (self.spent_s or 0.0) + ran / max(now - self._began, 1e-3) * since

    def _run_s(self) -> float:
        return sum(s.run_ns for probe in self._probes for s in probe.statistics().values()) / 1e9


class Level:
    """How many connections to follow, of ALL_KEPT, from what following some of them took.

    Whoever changes the number expects other costs from then on: what was spent before it counts in the measure of the number
    now in force, or one burst would be answered for many seconds, and the number sink far below what the budget has room for.
    """

    def __init__(self, budget: float, most_events: int) -> None:
        self.kept = ALL_KEPT
        self.event_s = EVENT_S
        self._budget, self._most_events = budget, most_events
        self._average = self._following = 0.0  # shares of the budget
        self._calm = 0

    @property
    def events_per_second(self) -> float:
        """What the budget has room for."""
        return min(self._budget * EVENTS_SHARE / self.event_s, self._most_events)

    def look(self, seconds: float, events: int, own_s: float, kernel_s: float, current: int) -> bool:
        """Takes in what the last `seconds` brought and took; `current` is the number that the kernel has made of `kept`.
        Returns whether `kept` is another than `current` now."""
        share = 1 / seconds / self._budget
        self._average += SMOOTH * ((own_s + kernel_s) * share - self._average)
        self._following += SMOOTH * ((events * EVENT_MOST_S + kernel_s) * share - self._following)
        if events >= ENOUGH_EVENTS:
            self.event_s += SMOOTH * (min(EVENT_MOST_S, own_s / events) - self.event_s)
        used = self._average
        if self._following < WORTH:
            used = min(used, AIM)
        used = max(used, events / seconds / self._most_events)
        self._calm = self._calm + 1 if used < ROOM else 0
        wanted = current
        if used > 1 and current <= self.kept:
            wanted = max(FEWEST_KEPT, int(current * max(FEWEST_LESS, AIM / used)))
        elif self._calm >= CALM and current < ALL_KEPT:
            wanted = min(ALL_KEPT, int(current * min(MOST_MORE, AIM / max(used, 0.01))))
            self._calm = 0
        self._average *= min(1.0, wanted / self.kept)
        self.kept = wanted
        return wanted != current


class Sampler:
    """Of the packet probe. `kept` of ALL_KEPT connections are followed, as last looked at."""

    def __init__(
        self, packets: LoadedProbe, probes: list[LoadedProbe], cpu_percent: float, events_per_second: int
    ) -> None:
        self._map = packets.maps["sampling"]
        self.budget = cpu_percent / 100
        self.kernel = KernelTime(probes)
        self._level = Level(self.budget, events_per_second)
        self._began_s = _own_s()
        self._looked_at, self._own, self._kernel, self._events = time.monotonic(), 0.0, 0.0, 0
        self._set()

    @property
    def own_s(self) -> float:
        """CPU time of this process and of those that it started, since the session began to watch."""
        return _own_s() - self._began_s

    def _set(self) -> None:
        soft = max(50, int(BURST * self._level.events_per_second / (os.cpu_count() or 1)))
        self._map.set(_ZERO, _SAMPLING.pack(ALL_KEPT - self._level.kept, soft))

    def look(self, events: int) -> tuple[int, ...]:
        """Once a second, with the number of events since the start: adjusts how many connections are followed. Returns the
        numbers that were in force one after the other since the last look, none where it has not changed."""
        now, before = time.monotonic(), self._level.kept
        left_out: int = _SAMPLING.unpack(self._map.get(_ZERO) or bytes(_SAMPLING.size))[0]
        current = ALL_KEPT - left_out
        seconds = max(now - self._looked_at, 1e-3)
        own, kernel = self.own_s, self.kernel.spent_s or 0.0
        changed = self._level.look(seconds, events - self._events, own - self._own, kernel - self._kernel, current)
        self._looked_at, self._own, self._kernel, self._events = now, own, kernel, events
        if changed:
            self._set()
        wanted = self._level.kept
        return tuple(kept for kept, last in ((current, before), (wanted, current)) if kept != last)


class RecordBudget:
    """Of the DNS probe: how many exchanges a second it may report, from what reporting them has taken. The kernel counts the
    others, and shares the number between the clients (probes/dns.bpf.c)."""

    def __init__(self, probe: LoadedProbe, cpu_percent: float) -> None:
        self._probe, self._budget = probe, cpu_percent / 100
        self._most = probe.budget.events_per_second
        self._record_s = EVENT_S
        self._own, self._records = _own_s(), 0
        self._set()

    def look(self, records: int) -> None:
        """Once a second, with the number of records since the start."""
        own, new = _own_s(), records - self._records
        if new >= ENOUGH_EVENTS:
            self._record_s += SMOOTH * (min(EVENT_MOST_S, (own - self._own) / new) - self._record_s)
            self._set()
        self._own, self._records = own, records

    def _set(self) -> None:
        share = self._budget / (os.cpu_count() or 1)
        self._probe.limit_events(records_per_second(share, self._record_s, self._most))


def records_per_second(budget: float, record_s: float, most: int) -> int:
    """How many records one CPU may report in a second, where it has that `budget` and each record takes so long."""
    return max(FEWEST_RECORDS, min(most, int(BURST * budget * EVENTS_SHARE / record_s)))


def _own_s() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
