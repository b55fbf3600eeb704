"""Looking again: `--watch` for another answer, and at rules that differ from the API before they are said to.

One read of rules may fall into a change. kube-proxy follows the API by a second or so, and iptables-restore commits its tables
one after another: between both, a Service that has just got its first endpoint has neither the REJECT of the one table nor the
rules of the other.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from time import monotonic, sleep
from typing import TypeVar

from kubectl_genainet.model.events import Event
from kubectl_genainet.model.finding import Finding
from kubectl_genainet.model.node import RulesetDump
from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source

T = TypeVar("T")
LOOK_S = 2.0  # between two looks
AGAIN_S = 3.0  # between two reads of rules that differ
MOST = 2  # further reads of them


def watched(answer: Callable[[], T], key: Callable[[T], object]) -> Iterator[T]:
    """The answer as it is now, and again each time that its `key` is another one, without end."""
    shown: object = None
    while True:
        current = answer()
        if key(current) != shown:
            shown = key(current)
            yield current
        sleep(LOOK_S)


def watched_source(
    source: Source, answer: Callable[[], T], key: Callable[[T], object], warn: Warn, *, nodes: bool = True
) -> Iterator[T]:
    """The same of what a source answers, whose objects are followed meanwhile. Without `nodes` the answer hangs on the
    objects alone, and is only asked for again when they have changed."""
    with closing(source.follow(source.snapshot(), warn)) as follower:
        known: list[T] = []

        def current() -> T:
            changed = follower.newer() if known else None
            if changed is not None:
                source.update(changed)
            if not known or changed is not None or nodes:
                known[:] = [answer()]
            return known[0]

        yield from watched(current, key)


def seen_twice(
    now: T, again: Callable[[], T], differs: Callable[[T], Iterable[Finding]], *, read_at: float | None = None
) -> T:
    """`now` where nothing differs; else the first of further reads that shows nothing but what the one before had shown too.

    Where things go on changing it is the last read. `read_at`: when `now` was read (by time.monotonic()), if that was not now.
    """
    before, read_at = keys_of(differs(now)), monotonic() if read_at is None else read_at
    for _ in range(MOST):
        if not before:
            break
        sleep(max(0.0, AGAIN_S - (monotonic() - read_at)))
        now, read_at = again(), monotonic()
        current = keys_of(differs(now))
        if current <= before:
            break
        before = current
    return now


def keys_of(findings: Iterable[Finding]) -> frozenset[object]:
    """What is said of which object on which node, without what each read measures anew."""
    return frozenset((f.check, f.severity, f.object, tuple(sorted({e.node for e in f.evidence}))) for f in findings)


class RulesTold:
    """When a session's agents last told rules, and which sources of each node had any."""

    def __init__(self) -> None:
        self.read_at = 0.0  # by time.monotonic()
        self._sources: dict[str, set[str]] = defaultdict(set)

    def learn(self, event: Event) -> None:
        if isinstance(event, RulesetDump):
            self.read_at = monotonic()
            self._sources[event.node].add(event.source)

    def completed(self, answers: Mapping[str, Sequence[RulesetDump]]) -> Iterator[RulesetDump]:
        """What nodes answered later. A source that has no rules any more is not in an answer: it is told without text."""
        for node, dumps in answers.items():
            yield from dumps
            for source in sorted(self._sources[node] - {dump.source for dump in dumps}):
                t_ns = max((dump.t_ns for dump in dumps), default=0)
                yield RulesetDump(node=node, t_ns=t_ns, source=source, text="")
