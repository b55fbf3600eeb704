"""Keeps a session within its budget of CPU time: beyond it fewer connections are followed, each of them whole.

The kernel raises the level by itself within the second (press, probes/packet.bpf.c); here it is raised by the time that
events really took, and lowered when there is room again.
"""

from __future__ import annotations

import os
import struct
import time

from kubectl_genainet.agent.bpf.loader import LoadedProbe

MAX_LEVEL = 12
EVENT_S = 25e-6  # what an event takes to decode and to send, at first sight
EVENTS_SHARE = 0.6  # of the budget; the rest is for counters, namespaces and rules
ROOM = 0.35  # below this part of the budget there is room for twice as many
BUSY = 2  # looks in a row over the budget, before it is raised: the first events look up the kernel's symbols
CALM = 5  # looks in a row with room, before the level is lowered
_SAMPLING = struct.Struct("=II")
_ZERO = bytes(4)


class Sampler:
    """Of the packet probe. `level` is the one in force as last looked at."""

    def __init__(self, probe: LoadedProbe, cpu_percent: float) -> None:
        self._map = probe.maps["sampling"]
        self._budget = cpu_percent / 100 * EVENTS_SHARE
        self.level = 0
        self._spent = 0.0
        self._looked_at = time.monotonic()
        self._calm = self._busy = 0
        self._set(0)

    def _set(self, level: int) -> None:
        self.level = level
        soft = max(100, int(self._budget / EVENT_S / (os.cpu_count() or 1)))
        self._map.set(_ZERO, _SAMPLING.pack(level, soft))

    def took(self, seconds: float) -> None:
        """Time of the CPU that handling events took."""
        self._spent += seconds

    def look(self) -> bool:
        """Once a second: adjusts the level. Returns whether it has changed since the last look."""
        now, before = time.monotonic(), self.level
        current: int = _SAMPLING.unpack(self._map.get(_ZERO) or bytes(_SAMPLING.size))[0]
        share = self._spent / max(now - self._looked_at, 1e-3)
        self._spent, self._looked_at = 0.0, now
        self._calm = self._calm + 1 if share < ROOM * self._budget else 0
        self._busy = self._busy + 1 if share > self._budget else 0
        if self._busy >= BUSY and current < MAX_LEVEL and current == before:
            current += 1
            self._busy = 0
            self._set(current)
        elif self._calm >= CALM and current:
            current -= 1
            self._calm = 0
            self._set(current)
        self.level = current
        return current != before
