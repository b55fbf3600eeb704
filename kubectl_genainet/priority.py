"""Gives way to the work that is watched: neither an agent nor a client in a lab takes a core from a program that wakes up."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

_SETATTR = {"x86_64": 314, "aarch64": 274}  # sched_setattr
_ATTR = struct.Struct("=IIQiIQQQ")  # struct sched_attr, include/uapi/linux/sched/types.h: its first version
# The longest slice that the kernel takes. A thread that wakes up with a shorter one, as all have by default, does not wait for
# the end of this one (Linux 6.12: 857b158dc5e8, 85e511df3cec); earlier kernels ignore it.
LONG_SLICE_NS = 100_000_000
LOOK_S = 0.25  # between two looks at how long threads have waited for a core
TOO_LONG = 0.5  # of the time between two looks
INSIST_S = 30.0  # on their share, once they have waited too long
_CAP_SYS_NICE = 23
_TASKS = Path("/proc/self/task")


def give_way() -> None:
    """This thread, and those that it starts, interrupt no other that runs (SCHED_BATCH, sched(7)), and whatever wakes up
    interrupts them. Their share of the CPU stays the same. Does nothing where there is no such thing."""
    with suppress(AttributeError, OSError):
        _schedule(0, os.SCHED_BATCH)


def _schedule(thread: int, policy: int) -> None:
    """Gives a thread (0: this one) a policy, and a long slice."""
    os.sched_setscheduler(thread, policy, os.sched_param(0))
    set_slice(LONG_SLICE_NS, thread)


def set_slice(nanoseconds: int, thread: int = 0) -> None:
    """How long this thread runs before another's turn, where nothing with a shorter slice waits; 0: the kernel's default."""
    policy, nice = os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)
    if platform.machine() in _SETATTR:
        ctypes.CDLL(None).syscall(
            _SETATTR[platform.machine()], thread, _ATTR.pack(_ATTR.size, policy, 0, nice, 0, nanoseconds, 0, 0), 0
        )


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
                set_slice(0)


def this_thread() -> Collection[int]:
    return (threading.get_native_id(),)


class Yielding:
    """While it is entered, threads of this process have what others leave (SCHED_IDLE, sched(7)). A core that runs nothing else
    is free for what wakes up: with any other policy it counts as taken, and what wakes up waits behind others elsewhere.

    Beside programs that never pause such a thread would hardly run. `look`, called several times a second, sees how long they
    have waited for a core: where it is too long, they insist on their share for a while, as `give_way` has them. Who may not
    take it back (CAP_SYS_NICE) does not yield.
    """

    def __init__(self, threads: Callable[[], Collection[int]] = this_thread) -> None:
        self._threads = threads
        self._waited: dict[int, int] = {}  # ns, until the last look
        self._looked = self._insists_until = 0.0
        self._yields = False

    def __enter__(self) -> Self:
        if _may_take_back():
            self._yield()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._yields:
            self._set(os.SCHED_BATCH)
        self._yields, self._insists_until = False, 0.0

    def look(self) -> None:
        now = monotonic()
        if self._insists_until and now >= self._insists_until:
            self._yield()
        elif self._yields and now - self._looked >= LOOK_S:
            before, self._waited = self._waited, _waited_ns(self._threads())
            longest = max((ns - before.get(thread, ns) for thread, ns in self._waited.items()), default=0)
            if longest > TOO_LONG * (now - self._looked) * 1e9:
                self._insist(now)
            self._looked = now

    def _yield(self) -> None:
        self._insists_until = 0.0
        self._looked, self._waited = monotonic(), _waited_ns(self._threads())
        self._yields = True
        self._set(os.SCHED_IDLE)

    def _insist(self, now: float) -> None:
        self._yields, self._insists_until = False, now + INSIST_S
        self._set(os.SCHED_BATCH)

    def _set(self, policy: int) -> None:
        for thread in self._threads():
            with suppress(OSError):  # it has ended
                _schedule(thread, policy)


def _waited_ns(threads: Collection[int]) -> dict[int, int]:
    """How long each thread has waited for a core: the second number of its schedstat
    (Documentation/scheduler/sched-stats.rst); kernels without scheduler information have 0 there."""
    waited = {}
    for thread in threads:
        with suppress(OSError):
            waited[thread] = int((_TASKS / str(thread) / "schedstat").read_text().split()[1])
    return waited


def _may_take_back() -> bool:
    """Whether this process may take SCHED_IDLE back (CAP_SYS_NICE), as root may."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_SYS_NICE & 1)
    return False
