"""Gives way to the work that is watched: neither an agent nor a client in a lab takes a core from a program that wakes up."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_SETATTR = {"x86_64": 314, "aarch64": 274}  # sched_setattr
_ATTR = struct.Struct("=IIQiIQQQ")  # struct sched_attr, include/uapi/linux/sched/types.h: its first version
# The longest slice that the kernel takes. A thread that wakes up with a shorter one, as all have by default, does not wait for
# the end of this one (Linux 6.12: 857b158dc5e8, 85e511df3cec); earlier kernels ignore it.
LONG_SLICE_NS = 100_000_000


def give_way() -> None:
    """This thread, and those that it starts, interrupt no other that runs (SCHED_BATCH, sched(7)), and whatever wakes up
    interrupts them. Their share of the CPU stays the same. Does nothing where there is no such thing."""
    with suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        set_slice(LONG_SLICE_NS)


def set_slice(nanoseconds: int) -> None:
    """How long this thread runs before another's turn, where nothing with a shorter slice waits; 0: the kernel's default."""
    policy, nice = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    if platform.machine() in _SETATTR:
        ctypes.CDLL(None).syscall(
            _SETATTR[platform.machine()], 0, _ATTR.pack(_ATTR.size, policy, 0, nice, 0, nanoseconds, 0, 0), 0
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
