"""Network namespaces with a name in /run/netns, made and entered as iproute2 does it.

pyroute2's own functions fork the caller for each namespace; these don't, which makes `lab up` a second faster.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator
from pathlib import Path

RUN_NETNS = Path("/run/netns")
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x00020000
MS_BIND, MS_REC, MS_SLAVE, MS_SHARED = 4096, 16384, 1 << 19, 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def mount(source: str, target: str, flags: int) -> None:
    _check(_libc.mount(source.encode(), target.encode(), b"none", flags, None), f"mount {target}")


def umount(target: str) -> None:
    _check(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def setns(fd: int) -> None:
    """Moves the calling thread into the network namespace behind `fd`."""
    _check(_libc.setns(fd, CLONE_NEWNET), "setns")


def _own_netns() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _share_run_netns() -> None:
    """Makes /run/netns a shared mount of its own, so that the names are seen in every mount namespace."""
    RUN_NETNS.mkdir(mode=0o755, parents=True, exist_ok=True)
    try:
        mount("", str(RUN_NETNS), MS_SHARED | MS_REC)
    except OSError:
        mount(str(RUN_NETNS), str(RUN_NETNS), MS_BIND | MS_REC)
        mount("", str(RUN_NETNS), MS_SHARED | MS_REC)


def create(names: list[str]) -> None:
    """Makes the namespaces; raises FileExistsError where a name is taken."""
    _share_run_netns()
    home = _own_netns()
    try:
        for name in names:
            path = RUN_NETNS / name
            os.close(os.open(path, os.O_RDONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444))
            unshare(CLONE_NEWNET)
            mount("/proc/thread-self/ns/net", str(path), MS_BIND)
    finally:
        setns(home)
        os.close(home)


def remove(name: str) -> None:
    """Removes the name; the kernel frees the namespace with its last user. No error where it is gone."""
    path = RUN_NETNS / name
    with contextlib.suppress(OSError):  # not mounted: a crash between making the file and mounting it
        umount(str(path))
    path.unlink(missing_ok=True)


def inode(name: str) -> int:
    """The namespace's number, as /proc/PID/ns/net shows it; 0 where there is none of that name."""
    try:
        return os.stat(RUN_NETNS / name).st_ino
    except OSError:
        return 0


@contextlib.contextmanager
def inside(name: str) -> Iterator[None]:
    """Runs the body in a namespace. Sockets and processes made there stay there."""
    home = _own_netns()
    try:
        target = os.open(RUN_NETNS / name, os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(target)
        finally:
            os.close(target)
        try:
            yield
        finally:
            setns(home)
    finally:
        os.close(home)


def write_sysctls(settings: dict[str, str]) -> None:
    """Writes sysctls of the calling thread's namespace; keys are paths below /proc/sys."""
    for key, value in settings.items():
        (Path("/proc/sys") / key).write_text(value)
