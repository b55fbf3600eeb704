"""How many connections are open at a time, and who makes room for whom."""

from __future__ import annotations

import asyncio
from typing import Any

from kubectl_genainet.agent.serve.http import HttpError


class ConnectionSlots:
    """`most` connections, `most_known` of them of callers that have shown a token. Each connection is the current task: it
    enters, becomes known, and leaves."""

    def __init__(self, most: int, most_known: int) -> None:
        self._most, self._most_known = most, most_known
        self._unknown: dict[asyncio.Task[Any] | None, None] = {}  # those that have not shown a token, oldest first
        self._open = 0

    def enter(self) -> None:
        """Whoever waits without a token makes room for the next, the oldest first: the kubelet's probe is among them. Raises
        HttpError where nobody does."""
        self._open += 1
        if self._open > self._most:
            if not self._unknown:
                raise HttpError(503, "too many connections")
            oldest = next(iter(self._unknown))
            del self._unknown[oldest]
            if oldest is not None:
                oldest.cancel()
        self._unknown[asyncio.current_task()] = None

    def known(self) -> None:
        """The caller has shown a token. Raises HttpError where too many have."""
        if self._open - len(self._unknown) >= self._most_known:
            raise HttpError(503, "too many requests at a time")
        self._unknown.pop(asyncio.current_task(), None)

    def leave(self) -> None:
        self._unknown.pop(asyncio.current_task(), None)
        self._open -= 1
