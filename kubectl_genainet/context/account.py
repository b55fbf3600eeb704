"""What became of the agents' events: emitted = received + lost, and which nodes ended their streams."""

from __future__ import annotations

from collections import Counter

from kubectl_genainet.model.events import AgentFailed, Bye, Event, Hello, LostEvents, Progress
from kubectl_genainet.model.results.losses import Losses


class Account:
    """Feed it every record. Counts are None until every node has said goodbye: nothing is claimed before."""

    def __init__(self) -> None:
        self._lost: Counter[tuple[str, str, str]] = Counter()
        self._bye: dict[str, Bye] = {}
        self._nodes: set[str] = set()

    def event(self, event: Event) -> None:
        match event:
            case LostEvents():
                self._lost[event.node, event.probe, event.where] += event.count
            case Bye():
                self._bye[event.node] = event
            case Hello():
                self._nodes.add(event.node)
            case _:
                pass

    @property
    def events(self) -> dict[str, int | None]:
        byes = self._bye.values()
        if not self._nodes or len(byes) < len(self._nodes):
            return {"emitted": None, "received": None, "lost": sum(self._lost.values()) or None}
        return {
            "emitted": sum(b.emitted for b in byes),
            "received": sum(b.sent for b in byes),
            "lost": sum(b.lost for b in byes),
        }

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted(self._nodes))

    @property
    def silent_nodes(self) -> tuple[str, ...]:
        """Nodes whose streams broke off, while others ended theirs."""
        return tuple(sorted(self._nodes - self._bye.keys())) if self._bye else ()

    @property
    def lost(self) -> tuple[Losses, ...]:
        return tuple(Losses(node, probe, where, count) for (node, probe, where), count in sorted(self._lost.items()))


def warning_of(event: Event) -> str:
    """What a record says that limits the results: an agent that failed, a missing feature, losses. "" for all others."""
    match event:
        case AgentFailed():
            return f"node {event.node}: {event.message}{f' ({event.hint})' if event.hint else ''}"
        case Progress(stage="missing"):
            return f"node {event.node}: {event.detail}"
        case LostEvents():
            return f"node {event.node}: {event.count} events of {event.probe} lost ({event.where})"
        case _:
            return ""
