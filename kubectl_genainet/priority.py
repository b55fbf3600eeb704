"""Gives way to the work that is watched: neither an agent nor a client in a lab takes a core from a program that wakes up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def give_way() -> None:
    """This thread, and those that it starts, interrupt no other that runs (SCHED_BATCH, sched(7)): they wait for the end of its
    slice. Does nothing where there is no such thing."""
    with suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


@contextmanager
def giving_way() -> Iterator[None]:
    """The same for a while."""
    try:
        before = os.sched_getscheduler(0)
    except (AttributeError, OSError):
        yield
        return
    give_way()
    try:
        yield
    finally:
        with suppress(AttributeError, OSError):
            if before != os.SCHED_BATCH:
                os.sched_setscheduler(0, before, os.sched_getparam(0))
