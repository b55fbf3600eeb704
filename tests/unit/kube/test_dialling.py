"""Connections are opened some at a time, and what does not answer holds up no other."""

from __future__ import annotations

import threading
import time

import pytest

from kubectl_genainet.kube.agents import dialling
from kubectl_genainet.kube.agents.dialling import DialPlaces


def test_no_more_than_so_many_dial_at_a_time() -> None:
    places, at_once, most = DialPlaces(3), [0], [0]
    counting = threading.Lock()

    def dial() -> None:
        with places.place():
            with counting:
                at_once[0] += 1
                most[0] = max(most[0], at_once[0])
            time.sleep(0.01)
            with counting:
                at_once[0] -= 1

    threads = [threading.Thread(target=dial) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert at_once == [0] and most == [3]


def test_dials_that_hang_hold_up_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dialling, "SLOW_S", 0.1)
    places, over, hanging = DialPlaces(2), threading.Event(), threading.Semaphore(0)

    def hang() -> None:
        with places.place():
            hanging.release()
            over.wait(60)

    threads = [threading.Thread(target=hang, daemon=True) for _ in range(6)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert hanging.acquire(timeout=10)
    with places.place():
        assert not over.is_set()  # those before still hang
    over.set()
