"""When a watch began and ended, by wall clock, and at which of its seconds something happened."""

from __future__ import annotations

from datetime import datetime

from kubectl_genainet.context.clocks import WallClocks
from kubectl_genainet.model.events import Event, Hello, Progress, Tick
from kubectl_genainet.model.units import rfc3339


class WatchTime:
    """Feed it every record. The watch begins when the first agent has attached its probes."""

    def __init__(self) -> None:
        self._walls = WallClocks()
        self._began_ns = self._ended_ns = 0

    def learn(self, event: Event) -> None:
        match event:
            case Hello():
                self._walls.learn(event)
            case Progress(stage="attached"):
                now = self._walls.realtime_ns(event.node, event.t_ns)
                self._began_ns = min(self._began_ns or now, now)
            case Tick() | Progress(stage="detached"):
                self._ended_ns = max(self._ended_ns, self._walls.realtime_ns(event.node, event.t_ns))
            case _:
                pass

    @property
    def began(self) -> str:
        """RFC 3339; "" where no agent has attached."""
        return rfc3339(self._began_ns)

    @property
    def began_s(self) -> float | None:
        """In seconds since 1970."""
        return self._began_ns / 1e9 if self._began_ns else None

    @property
    def seconds(self) -> float:
        return max(0.0, (self._ended_ns - self._began_ns) / 1e9) if self._began_ns else 0.0

    def at(self, time: str) -> float | None:
        """The second of the watch at an RFC 3339 time; None where either is not known."""
        if not time or not self._began_ns:
            return None
        return max(0.0, datetime.fromisoformat(time).timestamp() - self._began_ns / 1e9)
