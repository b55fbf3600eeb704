"""HTTP with somebody who may send anything, and as slowly as they like."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterator

# What reading an answer may raise. ValueError: a chunk of less than no bytes.
BROKEN = (OSError, http.client.HTTPException, ValueError)


@contextlib.contextmanager
def hung_up_after(sock: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Shuts the connection down when the time is over: a byte now and then keeps each single wait short. The event is set
    then, before a reader is woken: what it has is a part."""
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield late
    finally:
        timer.cancel()
