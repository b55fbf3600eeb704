"""What looking at the node costs it."""

from __future__ import annotations

import resource
import threading
import time

_charged = threading.local()


def charge(seconds: float) -> None:
    """Adds the CPU time of a thread that did this one's work."""
    _charged.seconds = getattr(_charged, "seconds", 0.0) + seconds


def spent_s() -> float:
    """CPU time of this thread, of those that worked for it, and of the commands that the process has run. Not the time that
    passes: on a busy node it is much longer, and a report that is needed would be put off when most depends on it."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = time.thread_time() + getattr(_charged, "seconds", 0.0)
    return own + children.ru_utime + children.ru_stime
