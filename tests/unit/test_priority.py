"""Scheduling policies as the kernel has them."""

from __future__ import annotations

import os
import threading

from kubectl_genainet.priority import giving_way


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
