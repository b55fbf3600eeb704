"""Entering network namespaces."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from kubectl_genainet.agent.node.cpu_time import charge

T = TypeVar("T")

_libc = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000


def inside(netns_fd: int, action: Callable[[], T]) -> T:
    """Runs `action` in a thread of its own that has entered the namespace, and returns its result."""
    result: list[T] = []
    failure: list[BaseException] = []
    spent: list[float] = []

    def run() -> None:
        try:
            if _libc.setns(netns_fd, _CLONE_NEWNET):
                error = ctypes.get_errno()
                raise OSError(error, f"setns: {os.strerror(error)}")
            result.append(action())
        except BaseException as error:
            failure.append(error)
        finally:
            spent.append(time.thread_time())

    thread = threading.Thread(target=run, name="netns")
    thread.start()
    thread.join()
    charge(sum(spent))
    if failure:
        raise failure[0]
    return result[0]


def inside_path(path: str, action: Callable[[], T]) -> T:
    """The same with the namespace's path. Raises OSError where there is none."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return inside(fd, action)
    finally:
        os.close(fd)
