"""Scheduling policies as the kernel has them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading

from kubectl_genainet.priority import LONG_SLICE_NS, giving_way

_GETATTR = {"x86_64": 315, "aarch64": 275}


def slice_ns() -> int:
    """sched_attr.sched_runtime of this thread, as sched_getattr has it."""
    attributes = ctypes.create_string_buffer(56)
    assert ctypes.CDLL(None).syscall(_GETATTR[platform.machine()], 0, attributes, 56, 0) == 0
    return int(struct.unpack_from("=Q", attributes, 24)[0])


def test_a_thread_gives_way_for_a_while_and_so_do_those_that_it_starts() -> None:
    policies: list[int] = []
    before = os.sched_getscheduler(0)
    with giving_way():
        policies.append(os.sched_getscheduler(0))
        thread = threading.Thread(target=lambda: policies.append(os.sched_getscheduler(0)))
        thread.start()
        thread.join()
    assert policies == [os.SCHED_BATCH, os.SCHED_BATCH]
    assert os.sched_getscheduler(0) == before


def test_what_wakes_up_does_not_wait_for_the_end_of_its_slice() -> None:
    before = slice_ns()
    with giving_way():
        assert slice_ns() == (LONG_SLICE_NS if before else 0)  # 0: a kernel whose threads have no slice of their own
    assert slice_ns() == before
