"""Puts the clocks of nodes that do not share a kernel on one time line, from packets that cross in both directions.

A packet from A to B says t_B - t_A = delay + offset, one from B to A says delay - offset, and delays are not negative:
the smallest of each bound the offset from both sides (Cristian 1989). The middle is the estimate, half the width its
uncertainty; nothing is claimed before both directions were seen.
"""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.model.events import Hello
from kubectl_genainet.model.units import rfc3339


@dataclass(frozen=True, slots=True)
class Offset:
    """What to add to a node's times, and by how much that may be wrong at most, in ns."""

    add_ns: int
    error_ns: int


class Clocks:
    """Collects crossings and answers with offsets. Nodes with the same boot id share a clock exactly."""

    def __init__(self) -> None:
        self._boot: dict[str, str] = {}
        self._least: dict[tuple[str, str], int] = {}

    def learn(self, node: str, boot_id: str) -> None:
        self._boot[node] = boot_id

    def same(self, a: str, b: str) -> bool:
        return a == b or (a in self._boot and self._boot[a] == self._boot.get(b))

    def crossed(self, sender: str, sent_ns: int, receiver: str, received_ns: int) -> None:
        """A packet left `sender` and arrived at `receiver`, each on its own clock."""
        if not self.same(sender, receiver):
            key = (sender, receiver)
            delay = received_ns - sent_ns
            self._least[key] = min(delay, self._least.get(key, delay))

    def offset(self, node: str, reference: str) -> Offset | None:
        """What turns `node`'s times into `reference`'s; None while only one direction, or none, was seen."""
        if self.same(node, reference):
            return Offset(0, 0)
        to_reference, from_reference = self._least.get((node, reference)), self._least.get((reference, node))
        if to_reference is None or from_reference is None:
            return None
        # reference = node + x: from_reference = delay - x, to_reference = delay + x
        low, high = -from_reference, to_reference
        return Offset((low + high) // 2, max(0, (high - low + 1) // 2))


class WallClocks:
    """Turns the nodes' monotonic times into wall-clock times, by their Hellos."""

    def __init__(self) -> None:
        self._ahead: dict[str, int] = {}

    def learn(self, hello: Hello) -> None:
        self._ahead[hello.node] = hello.realtime_ns - hello.t_ns

    def time(self, node: str, t_ns: int) -> str:
        """A node's time as RFC 3339; "" where its wall clock is not known, and for 0."""
        return rfc3339(self.realtime_ns(node, t_ns))

    def realtime_ns(self, node: str, t_ns: int) -> int:
        """A node's time in ns since 1970; 0 where its wall clock is not known, and for 0."""
        return t_ns + self._ahead[node] if t_ns and node in self._ahead else 0
