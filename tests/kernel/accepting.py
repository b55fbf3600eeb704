"""Servers of the tests."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def accepting(listener: socket.socket, handle: Callable[[socket.socket], object]) -> Iterator[None]:
    """Hands each connection that the listener takes to `handle`, in one thread; closes it."""
    ended = threading.Event()
    listener.settimeout(0.1)  # how late the end is seen

    def serve() -> None:
        with contextlib.suppress(OSError):
            while not ended.is_set():
                with contextlib.suppress(TimeoutError):
                    handle(listener.accept()[0])

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(10)
        listener.close()
