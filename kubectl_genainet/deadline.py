"""Work that may wait for ever, in threads that neither a deadline nor Ctrl-C nor the interpreter's end has to wait for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar, cast

A = TypeVar("A")
T = TypeVar("T")


class Pending(Generic[T]):
    """What `work` returns or raises, as soon as it does."""

    def __init__(self, work: Callable[[], T], name: str) -> None:
        self._name = name
        self._outcome: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def attempt() -> None:
            try:
                self._outcome.put((work(), None))
            except BaseException as error:
                self._outcome.put((None, error))

        threading.Thread(target=attempt, daemon=True, name=name).start()

    def result(self, within_s: float | None = None) -> T:
        """Once. Raises TimeoutError after so many seconds, and leaves the thread behind."""
        try:
            result, error = self._outcome.get(timeout=None if within_s is None else max(0.0, within_s))
        except queue.Empty:
            raise TimeoutError(f"{self._name} takes longer than {within_s:g} s") from None
        if error is not None:
            raise error
        return cast("T", result)


def in_time(work: Callable[[], T], within_s: float, *, name: str) -> T:
    """What `work` returns or raises; raises TimeoutError after so many seconds."""
    return Pending(work, name).result(within_s)


def side_by_side(work: Callable[[A], T], items: Sequence[A], most: int, *, name: str) -> list[T]:
    """What `work` returns for each, so many at a time. What one of them raises is raised, and no other is begun."""
    results: dict[int, T] = {}
    numbered = iter(enumerate(items))
    lock, given_up = threading.Lock(), threading.Event()

    def some() -> None:
        while not given_up.is_set():
            with lock:
                number, item = next(numbered, (-1, None))
            if number < 0:
                return
            try:
                results[number] = work(cast("A", item))
            except BaseException:
                given_up.set()
                raise

    threads = [Pending(some, name) for _ in range(min(most, len(items)))]
    try:
        for thread in threads:
            thread.result()
    finally:
        given_up.set()
    return [results[number] for number in range(len(items))]
