"""Tells when a device of a network namespace comes or goes: in the node's, that is how pods do."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from types import TracebackType

from kubectl_genainet.agent.node.netns import inside_path

_RTMGRP_LINK, _RTM_NEWLINK, _RTM_DELLINK = 1, 16, 17  # rtnetlink(7)
_MESSAGE = struct.Struct("=IHHII")  # struct nlmsghdr
_LINK = struct.Struct("=BxHiII")  # struct ifinfomsg
_READ = 1 << 16
_STOP_S = 0.5  # so late is a stop noticed


class LinkNews:
    """Devices are the same if their numbers are: news of one that is known already (its counters, its carrier) is none."""

    def __init__(self, netns: str) -> None:
        """Raises OSError where the namespace at this path can't be entered."""
        self._socket, self._known = inside_path(netns, _subscribed)

    def wait(self, stop: threading.Event, timeout_s: float) -> bool:
        """Whether a device has come or gone since the last call, at the latest after so long. False also once `stop` is set."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        until = time.monotonic() + timeout_s
        while not stop.is_set():
            left = until - time.monotonic()
            ready = poll.poll(max(0.0, min(left, _STOP_S)) * 1000)
            if ready and self._take():
                return True
            if left <= 0:
                break
        return False

    def _take(self) -> bool:
        """Reads what has come."""
        changed = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    data = self._socket.recv(_READ)
                except BlockingIOError:
                    raise
                except OSError:  # more has come than there was room for
                    return True
                changed = self._learn(data) or changed
        return changed

    def _learn(self, data: bytes) -> bool:
        changed, offset = False, 0
        while offset + _MESSAGE.size + _LINK.size <= len(data):
            size, kind, *_ = _MESSAGE.unpack_from(data, offset)
            _, _, index, *_ = _LINK.unpack_from(data, offset + _MESSAGE.size)
            if kind == _RTM_NEWLINK and index not in self._known:
                self._known.add(index)
                changed = True
            elif kind == _RTM_DELLINK:
                self._known.discard(index)
                changed = True
            offset += max(-(-size // 4) * 4, _MESSAGE.size)
        return changed

    def __enter__(self) -> LinkNews:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def _subscribed() -> tuple[socket.socket, set[int]]:
    """The namespace's news, and the numbers of its devices."""
    news = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0)
    try:
        news.bind((0, _RTMGRP_LINK))
        return news, {index for index, _ in socket.if_nameindex()}
    except BaseException:
        news.close()
        raise
