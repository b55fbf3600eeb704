"""Ctrl-C, never in the middle of a record."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interrupts:
    """Ctrl-C while it is entered: a KeyboardInterrupt as ever, but not in the middle of what is `held`."""

    def __init__(self) -> None:
        self._ours = self._came = False
        self._held = 0  # blocks, one within the other

    def __enter__(self) -> Self:
        # A shell starts what runs in the background with SIGINT ignored: that stays so.
        expected = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        self._ours = expected and threading.current_thread() is threading.main_thread()
        if self._ours:
            signal.signal(signal.SIGINT, self._interrupted)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ours:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _interrupted(self, _: int, __: FrameType | None) -> None:
        if not self._held or self._came:  # the second time at once: what is held may wait for a pipe that nobody reads
            self._came = False
            raise KeyboardInterrupt
        self._came = True

    def held(self) -> Held:
        """Ctrl-C waits for the end of the block; a second one does not."""
        return Held(self)

    def hold(self) -> None:
        self._held += 1

    def release(self, *, raising: bool) -> None:
        """The end of a block; `raising`: by an exception, which Ctrl-C does not replace."""
        self._held -= 1
        if self._came and not self._held and not raising:
            self._came = False
            raise KeyboardInterrupt


class Held:
    """Not a generator's context manager: it is entered twice for each record."""

    __slots__ = ("_interrupts",)

    def __init__(self, interrupts: Interrupts) -> None:
        self._interrupts = interrupts

    def __enter__(self) -> None:
        self._interrupts.hold()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._interrupts.release(raising=kind is not None)
