"""What a session's probes emitted, what reached the client's queue, and what was lost on the way, by place."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from kubectl_genainet.agent.bpf.loader import LoadedProbe
from kubectl_genainet.model.events import Bye, LostEvents

KERNEL_LOSSES = ("ring buffer", "event budget", "flow table")  # by the names that a probe's accounts give them
UNREPORTED_LOSSES = ("ring buffer", "event budget")  # events that the probe emitted; the others were never emitted


class CountsItsLosses(Protocol):
    """A reader in user space that counts what it could not keep up with."""

    @property
    def lost(self) -> int: ...


class Ledger:
    """Holds emitted = sent + lost for one session. Every loss is reported once, as soon as it is known."""

    def __init__(self, node: str, report: Callable[[LostEvents], object]) -> None:
        self._node, self._report = node, report
        self._reported: dict[tuple[str, str], int] = {}  # by probe and place
        self._emitted = 0
        self.from_user_space = 0  # events that no kernel program has counted
        self.received = 0
        self.refused = 0  # by the client's queue

    def losses_of_probes(self, probes: Iterable[LoadedProbe]) -> None:
        self._emitted = self.from_user_space
        for probe in probes:
            totals = probe.accounts()
            self._emitted += totals["emitted"]
            for place in KERNEL_LOSSES:
                self.lost(probe.probe.name, place, totals[place])
            self.lost(probe.probe.name, "kernel recursion", sum(s.missed for s in probe.statistics().values()))

    def losses_of_taps(self, taps: Mapping[str, CountsItsLosses]) -> None:
        for name, tap in taps.items():
            self.lost(name, "tcp reader", tap.lost)

    def lost(self, probe: str, place: str, total: int) -> None:
        """Reports what was lost there since the last report. `total` is of the whole session."""
        new = total - self._reported.get((probe, place), 0)
        if new > 0:
            self._reported[probe, place] = total
            self._report(LostEvents(node=self._node, probe=probe, count=new, where=place))

    def bye(self, reason: str) -> Bye:
        """The session's last record."""
        in_kernel = sum(total for (_, place), total in self._reported.items() if place in UNREPORTED_LOSSES)
        return Bye(
            node=self._node,
            emitted=self._emitted,
            sent=self.received - self.refused,
            lost=self.refused + in_kernel,
            reason=reason,
        )
