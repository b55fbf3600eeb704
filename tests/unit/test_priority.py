"""Scheduling policies as the kernel has them."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
from collections.abc import Iterator

import pytest

from kubectl_genainet import priority
from kubectl_genainet.priority import INSIST_S, LONG_SLICE_NS, LOOK_S, TOO_LONG, Yielding, giving_way

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


class FakeKernel:
    """A clock, and how long this process's threads have waited for a core."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.waited = 1000.0, 0.0
        monkeypatch.setattr(priority, "monotonic", lambda: self.now)
        monkeypatch.setattr(priority, "_waited_ns", lambda threads: dict.fromkeys(threads, int(self.waited * 1e9)))

    def passes(self, seconds: float, waited: float = 0.0) -> None:
        self.now += seconds
        self.waited += waited


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKernel]:
    if not priority._may_take_back():
        pytest.skip("this process may not take SCHED_IDLE back")
    with giving_way():
        yield FakeKernel(monkeypatch)


def policy() -> int:
    return os.sched_getscheduler(0)


def test_threads_yield_while_it_is_entered(kernel: FakeKernel) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    assert thread.native_id is not None
    threads = (threading.get_native_id(), thread.native_id)
    with Yielding(lambda: threads):
        assert [os.sched_getscheduler(each) for each in threads] == [os.SCHED_IDLE] * 2
    assert [os.sched_getscheduler(each) for each in threads] == [os.SCHED_BATCH] * 2
    stop.set()
    thread.join()


def test_who_waits_too_long_insists_for_a_while(kernel: FakeKernel) -> None:
    with Yielding() as yielding:
        kernel.passes(LOOK_S, waited=0.9 * TOO_LONG * LOOK_S)
        yielding.look()
        assert policy() == os.SCHED_IDLE
        kernel.passes(LOOK_S, waited=1.1 * TOO_LONG * LOOK_S)
        yielding.look()
        assert policy() == os.SCHED_BATCH
        kernel.passes(INSIST_S - 1, waited=INSIST_S)
        yielding.look()
        assert policy() == os.SCHED_BATCH
        kernel.passes(1)
        yielding.look()
        assert policy() == os.SCHED_IDLE
        kernel.passes(LOOK_S)  # what it waited before it yielded again does not count
        yielding.look()
        assert policy() == os.SCHED_IDLE
    assert policy() == os.SCHED_BATCH


def test_who_may_not_take_it_back_does_not_yield(kernel: FakeKernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(priority, "_may_take_back", lambda: False)
    with Yielding() as yielding:
        kernel.passes(LOOK_S)
        yielding.look()
        assert policy() == os.SCHED_BATCH


def test_the_kernel_tells_how_long_a_thread_has_waited() -> None:
    here = threading.get_native_id()
    assert priority._waited_ns((here, 1 << 30)).keys() == {here}
