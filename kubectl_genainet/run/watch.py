"""`--watch`: an answer, and again each time that it is another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from time import sleep
from typing import TypeVar

from kubectl_genainet.run.agents import Warn
from kubectl_genainet.run.sources.base import Source

T = TypeVar("T")
LOOK_S = 2.0  # between two looks


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
