"""What became of the agents' events: emitted = received + lost; which nodes ended their streams; what the agents took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from kubectl_genainet.model.events import AgentFailed, Bye, Event, Hello, LostEvents, Progress, Tick
from kubectl_genainet.model.history import Gap
from kubectl_genainet.model.results.agents import AgentCost
from kubectl_genainet.model.results.losses import Losses
from kubectl_genainet.model.units import rfc3339


class Account:
    """Feed it every record. Counts are None until every node has said goodbye: nothing is claimed before."""

    def __init__(self) -> None:
        self._lost: Counter[tuple[str, str, str]] = Counter()
        self._bye: dict[str, Bye] = {}
        self._nodes: set[str] = set()
        self._watched: dict[str, Cost] = {}

    def event(self, event: Event) -> None:
        match event:
            case LostEvents():
                self._lost[event.node, event.probe, event.where] += event.count
            case Bye():
                self._bye[event.node] = event
            case Hello():
                self._nodes.add(event.node)
            case Tick() if event.cpu_ns is not None:
                self._watched.setdefault(event.node, Cost(event)).learn(event)
            case _:
                pass

    @property
    def events(self) -> dict[str, int | None]:
        byes, lost = self._bye.values(), sum(self._lost.values())
        if not self._nodes or len(byes) < len(self._nodes):
            return {"emitted": None, "received": None, "lost": lost or None}
        received = sum(b.sent for b in byes)
        return {"emitted": received + lost, "received": received, "lost": lost}

    @property
    def costs(self) -> tuple[AgentCost, ...]:
        return tuple(cost.result for _, cost in sorted(self._watched.items()))

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(sorted(self._nodes))

    @property
    def silent_nodes(self) -> tuple[str, ...]:
        """Nodes whose streams broke off, while others ended theirs."""
        return tuple(sorted(self._nodes - self._bye.keys())) if self._bye else ()

    @property
    def unfinished(self) -> frozenset[str]:
        """Nodes that have not said goodbye: what they have not told is missing."""
        return frozenset(self._nodes - self._bye.keys())

    @property
    def lost(self) -> tuple[Losses, ...]:
        return tuple(Losses(node, probe, where, count) for (node, probe, where), count in sorted(self._lost.items()))


class Cost:
    """What one agent took, from its ticks."""

    def __init__(self, first: Tick) -> None:
        self._first = self._latest = first
        self._highest = 0.0

    def learn(self, tick: Tick) -> None:
        self._highest = max(self._highest, _share(self._latest, tick, _spent(tick) - _spent(self._latest)))
        self._latest = tick

    @property
    def result(self) -> AgentCost:
        first, last = self._first, self._latest
        programs = None if last.kernel_ns is None else _share(first, last, last.kernel_ns - (first.kernel_ns or 0))
        return AgentCost(
            node=last.node,
            budget=last.budget or 0.0,
            processes=round(_share(first, last, (last.cpu_ns or 0) - (first.cpu_ns or 0)), 2),
            programs=None if programs is None else round(programs, 2),
            highest=round(self._highest, 2),
        )


def _spent(tick: Tick) -> int:
    return (tick.cpu_ns or 0) + (tick.kernel_ns or 0)


def _share(begin: Tick, end: Tick, spent_ns: int) -> float:
    """Per cent of a core."""
    return 100 * spent_ns / max(end.t_ns - begin.t_ns, 1)


def warning_of(event: Event) -> str:
    """What a record says that limits the results: an agent that failed, a missing feature. "" for all others; losses are told
    together (`losses_text`)."""
    match event:
        case AgentFailed():
            return f"node {event.node}: {event.message}{f' ({event.hint})' if event.hint else ''}"
        case Progress(stage="missing"):
            return f"node {event.node}: {event.detail}"
        case Gap():
            return gap_text(event)
        case _:
            return ""


def gap_text(gap: Gap) -> str:
    """What a recording does not have."""
    whose = f"node {gap.node}" if gap.node else "the cluster's objects"
    since, until = rfc3339(gap.since_ns), rfc3339(gap.until_ns)
    digits = 19 if since[:19] != until[:19] else 23  # within a second to the millisecond
    time = f"at {since[:19]}Z" if gap.since_ns == gap.until_ns else f"from {since[:digits]}Z to {until[:digits]}Z"
    return f"{whose}: {'some is missing' if gap.partial else 'nothing is known'} {time}: {gap.why}"


def losses_text(lost: Mapping[tuple[str, str, str], int]) -> str:
    """All losses, by node, probe and place, in one line that begins with their sum."""
    places = [f"{count} of node {node} ({probe}: {where})" for (node, probe, where), count in sorted(lost.items())]
    return f"{sum(lost.values())} events lost: {', '.join(places)}"
