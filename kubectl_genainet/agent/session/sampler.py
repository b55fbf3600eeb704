"""Keeps a session within its budget of CPU time: beyond it fewer connections, and fewer DNS exchanges, are followed, each of
them whole.

The kernel follows fewer by itself within the second (press, probes/packet.bpf.c); here the number is set by what the session
really took: this process, what it started, and the BPF programs themselves.
"""

from __future__ import annotations

import os
import struct
import time
from dataclasses import dataclass, fields

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.agent.session.meter import Meter
from kubectl_genainet.model.packet import ALL_KEPT

FEWEST_KEPT = 4  # of ALL_KEPT
EVENT_S = 15e-6  # what an event takes until it has been measured
ENOUGH_EVENTS = 500  # of a second, to measure it by
OTHERS = 0.2  # of the budget, that tables, namespaces and rules take until it has been measured
EVENTS_SHARE = 0.6  # of the budget; the rest is for counters, namespaces and rules
BURST = 2  # times the events of a second that the budget has room for: the kernel does not wait for the next look
MOST = 0.95  # of the budget: beyond it fewer are followed
AIM = 0.9  # of the budget: where the number is set to
ROOM = 0.8  # of the budget: below it more are followed
MOST_MORE = 2.0  # times as many as before, at once
FEWEST_LESS = 0.25
CALM = 2  # looks in a row with room, before more are followed
EVENT_MOST_S = 50e-6  # what an event takes on a slow node
TABLES = 2  # times what reading an event takes: its flow is in the kernel's tables too
PACKET_MOST_S = 2e-6  # what the programs take for a packet that is followed; others cost as much whatever is followed
WORTH = 0.1  # of the budget, that following connections may be taking: below it fewer of them save nothing
LEAST_RECORDS = 0.2  # of the budget, for reporting DNS exchanges
FEWEST_RECORDS = 50  # a second and CPU, whatever they take
SMOOTH = 0.3  # the part of the last second in the average
SLOW = 0.05  # in that of what comes now and then: rules and tables are read every few seconds, which takes much of one
_SAMPLING = struct.Struct("=II")
_ZERO = bytes(4)


@dataclass(frozen=True, slots=True)
class Spent:
    """What some `seconds` brought and took: events, packets that were followed; CPU time of the agent, of it what reading the
    events took, and that of the programs."""

    seconds: float
    events: int
    packets: int
    own_s: float
    reading_s: float
    kernel_s: float

    def since(self, before: Spent) -> Spent:
        """Of two totals."""
        return Spent(*(getattr(self, f.name) - getattr(before, f.name) for f in fields(self)))


class Level:
    """How many connections to follow, of ALL_KEPT, from what following some of them took.

    Whoever changes the number expects other costs from then on: what following took before it counts in the measure of the number
    now in force, or one burst would be answered for many seconds, and the number sink far below what the budget has room for.
    What does not depend on the number stays as it is: following has what that leaves of the budget.
    """

    def __init__(self, budget: float, most_events: int) -> None:
        self.kept = ALL_KEPT
        self.event_s = EVENT_S
        self._budget, self._most_events = budget, most_events
        self._average = self._following = 0.0  # shares of the budget
        self._calm = 0
        self._smooth = SMOOTH
        self._others = (
            OTHERS  # what all but events and programs takes: much of a second now and then, so on a long average
        )

    @property
    def events_per_second(self) -> float:
        """What the budget has room for."""
        return min(self._budget * EVENTS_SHARE / self.event_s, self._most_events)

    def look(self, spent: Spent, current: int) -> bool:
        """Takes in what the time since the last look brought and took. `current` is the number that the kernel has made of
        `kept`. Returns whether `kept` is another than `current` now."""
        was_cut = current != self.kept  # by the kernel, which has seen a burst
        if spent.events >= ENOUGH_EVENTS:
            self.event_s += SMOOTH * (min(EVENT_MOST_S, spent.reading_s / spent.events) - self.event_s)
        self._measure(spent)
        used = self._average + self._others
        used = used if self._following > WORTH else min(used, AIM)
        events_used = spent.events / spent.seconds / self._most_events
        self._calm = self._calm + 1 if max(used, events_used) < ROOM else 0
        wanted = current
        following = max(self._following, WORTH)
        by_cost = max(WORTH / following, 1 + (AIM - used) / following)
        part = min(by_cost, AIM / max(events_used, 0.01))
        if was_cut:
            self._begin_anew()
        elif used > MOST or events_used > 1:
            wanted = max(FEWEST_KEPT, int(current * max(FEWEST_LESS, min(1.0, part))))
        elif self._calm >= CALM and current < ALL_KEPT:
            wanted = min(ALL_KEPT, int(current * max(1.0, min(MOST_MORE, part))))
            self._calm = 0
        if wanted != current:
            self._expect(wanted / current)
        self.kept = wanted
        return wanted != current

    def _measure(self, spent: Spent) -> None:
        share = 1 / spent.seconds / self._budget
        event_s = min(EVENT_MOST_S, TABLES * self.event_s)
        following = (spent.events * event_s + min(spent.kernel_s, spent.packets * PACKET_MOST_S)) * share
        used = (spent.reading_s + spent.kernel_s) * share
        self._others += SLOW * (max(0.0, spent.own_s - spent.reading_s) * share - self._others)
        self._average += self._smooth * (used - self._average)
        self._following += self._smooth * (min(used, following) - self._following)
        self._smooth = SMOOTH

    def _begin_anew(self) -> None:
        """What this second took was by several numbers: the next one alone tells what the present one takes."""
        self._smooth, self._calm = 1.0, 0

    def _expect(self, part: float) -> None:
        """From now on, with that part of the number followed before. What is measured next counts for more than what is
        expected."""
        less = max(0.0, 1 - part) * self._following
        self._average -= less
        self._following -= less
        self._smooth = 2 * SMOOTH


class Sampler:
    """Of the packet probe. `kept` of ALL_KEPT connections are followed, as last looked at."""

    def __init__(self, packets: LoadedProbe, meter: Meter, cpu_percent: float, events_per_second: int) -> None:
        self._packets, self._map = packets, packets.maps["sampling"]
        self._meter = meter
        self._level = Level(cpu_percent / 100, events_per_second)
        self._until_now: Spent | None = None  # what was spent before the first look is what attaching takes
        self._set()

    def _set(self) -> None:
        soft = max(50, int(BURST * self._level.events_per_second / (os.cpu_count() or 1)))
        self._map.set(_ZERO, _SAMPLING.pack(ALL_KEPT - self._level.kept, soft))

    def look(self, reading_s: float) -> tuple[int, ...]:
        """Once a second, with the CPU time that reading the probe's events has taken since the start: adjusts how many
        connections are followed. Returns the numbers that were in force one after the other since the last look, none where
        it has not changed."""
        before = self._level.kept
        left_out: int = _SAMPLING.unpack(self._map.get(_ZERO) or bytes(_SAMPLING.size))[0]
        current = ALL_KEPT - left_out
        kernel_s = self._meter.kernel.spent_s or 0.0
        now = Spent(
            time.monotonic(),
            self._packets.taken,
            self._packets.followed_packets,
            self._meter.own_s,
            reading_s,
            kernel_s,
        )
        last, self._until_now = self._until_now, now
        if last is None or now.seconds <= last.seconds:
            return ()
        changed = self._level.look(now.since(last), current)
        if changed:
            self._set()
        wanted = self._level.kept
        return tuple(kept for kept, last in ((current, before), (wanted, current)) if kept != last)


class RecordLevel:
    """How many DNS exchanges a second and CPU may be reported, from what reporting them has taken: what all else of the session
    leaves of the budget, and a part of it in any case."""

    def __init__(self, budget: float, most: int, cpus: int) -> None:
        self._budget, self._most, self._cpus = budget, most, cpus
        self._record_s = EVENT_S
        self.per_second = self._room(EVENTS_SHARE * budget)

    def _room(self, share: float) -> int:
        """As many as take that share of a core, and a burst more: the load may be one CPU's, and one client has half."""
        return max(FEWEST_RECORDS, min(self._most, int(BURST * share / self._record_s / self._cpus)))

    def look(self, seconds: float, records: int, reading_s: float, others_s: float) -> None:
        """Takes in what the time since the last look brought: records, and CPU time of reading them and of all else."""
        if records >= ENOUGH_EVENTS:
            self._record_s += SMOOTH * (min(EVENT_MOST_S, reading_s / records) - self._record_s)
        allowed = max(LEAST_RECORDS * self._budget, AIM * self._budget - others_s / seconds)
        more = min(MOST_MORE, allowed * seconds / max(reading_s, 1e-6)) - 1
        self.per_second = max(FEWEST_RECORDS, min(self._room(allowed), int(self.per_second * (1 + SMOOTH * more))))


class RecordBudget:
    """Of the DNS probe. The kernel counts the exchanges that are not reported, and shares the number between the clients
    (probes/dns.bpf.c)."""

    def __init__(self, probe: LoadedProbe, meter: Meter, cpu_percent: float) -> None:
        self._probe, self._meter = probe, meter
        self._level = RecordLevel(cpu_percent / 100, probe.budget.events_per_second, os.cpu_count() or 1)
        self._until_now = (time.monotonic(), 0, 0.0, 0.0)
        self._probe.limit_events(self._level.per_second)

    def look(self, reading_s: float) -> None:
        """Once a second, with the CPU time that reading the probe's records has taken since the start."""
        others_s = self._meter.own_s + (self._meter.kernel.spent_s or 0.0) - reading_s
        now = (time.monotonic(), self._probe.taken, reading_s, others_s)
        seconds, records, reading, others = (new - old for new, old in zip(now, self._until_now, strict=True))
        self._until_now = now
        self._level.look(max(seconds, 1e-3), int(records), reading, others)
        if self._level.per_second != self._probe.budget.events_per_second:
            self._probe.limit_events(self._level.per_second)
