"""Files of a container, read through one of its processes: what the container put there leads nowhere else.

/proc/PID/root is the container's root directory, but a symbolic link below it is resolved from the reader's: an absolute
one, or enough "..", would lead into the agent's files or, with hostPID, the node's. So paths are resolved with the
container's root as theirs (openat2(2), Linux 5.6), or, where a seccomp profile knows no openat2, without links at all.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator

_OPENAT2 = 437  # of every architecture: include/uapi/asm-generic/unistd.h
_RESOLVE_NO_MAGICLINKS, _RESOLVE_IN_ROOT = 0x02, 0x10  # include/uapi/linux/openat2.h
_PATH_ONLY = os.O_PATH | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


class Process:
    """A process by its directory in /proc, held open: a PID that is used again is not taken for it.

    Raises OSError where it has ended or may not be looked at. Use as a context manager.
    """

    def __init__(self, pid: str) -> None:
        self._fd = os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    @property
    def network_namespace(self) -> int:
        """Its inode number."""
        return os.stat("ns/net", dir_fd=self._fd).st_ino

    def read(self, name: str, limit: int) -> str:
        """The start of one of the process's files in /proc, which the kernel writes."""
        fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._fd)
        try:
            return os.read(fd, limit).decode(errors="replace")
        finally:
            os.close(fd)

    def read_in_root(self, path: str, limit: int) -> str:
        """The start of a plain file as the process sees it; "" where there is none that can be read.

        Never waits: a FIFO, a device or anything else is not opened.
        """
        with contextlib.suppress(OSError):
            root = os.open("root", _PATH_ONLY | os.O_DIRECTORY, dir_fd=self._fd)
            try:
                with _resolved(root, path) as opened:
                    return read_plain(f"/proc/self/fd/{opened}", limit) if _is_plain(opened) else ""
            finally:
                os.close(root)
        return ""


def read_plain(path: str, limit: int) -> str:
    """The start of a file; "" where it is no plain file that can be read. Never waits."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return ""
    try:
        return os.read(fd, limit).decode(errors="replace") if _is_plain(fd) else ""
    except OSError:
        return ""
    finally:
        os.close(fd)


def _is_plain(fd: int) -> bool:
    return stat.S_ISREG(os.fstat(fd).st_mode)


@contextlib.contextmanager
def _resolved(root: int, path: str) -> Iterator[int]:
    """A descriptor (O_PATH) of what `path` names below `root`. Raises OSError."""
    try:
        fd = open_in_root(root, path)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM):
            raise
        fd = open_without_links(root, path)
    try:
        yield fd
    finally:
        os.close(fd)


def open_in_root(root: int, path: str) -> int:
    """openat2(2) with `root` as the root directory of every link. ENOSYS or EPERM where there is no such call."""
    how = _OpenHow(_PATH_ONLY, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    fd = int(_libc.syscall(_OPENAT2, root, os.fsencode(path), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd


def open_without_links(root: int, path: str) -> int:
    """One directory after the other, none of which may be a link (a link is opened as itself: it is no directory)."""
    *folders, name = path.strip("/").split("/")
    fd = os.dup(root)
    try:
        for folder in folders:
            below = os.open(folder, _PATH_ONLY | os.O_NOFOLLOW | os.O_DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = below
        return os.open(name, _PATH_ONLY | os.O_NOFOLLOW, dir_fd=fd)
    finally:
        os.close(fd)
