"""The lab's processes: started with a mark, found again by it, ended for certain."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kubectl_genainet.lab.datapath import netns

MARK = "GENAINET_LAB_ID"  # environment variable; its value is the id in the lab's record


def marked_environment(lab_id: str) -> dict[str, str]:
    return {**os.environ, MARK: lab_id}


def spawn(
    command: list[str], *, lab_id: str, log: Path, namespace: str = "", environment: Mapping[str, str] | None = None
) -> int:
    """Starts a process of the lab, in a network namespace where one is named, and returns its pid; its output goes to
    `log`.

    It outlives the caller, and keeps open nothing that the caller had from others: a lock that somebody holds while the
    caller runs would be held as long as the lab is up. It carries the mark from its first moment, so it is found even if the
    caller dies before noting the pid.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    files = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644),
        (os.POSIX_SPAWN_DUP2, 1, 2),
        *((os.POSIX_SPAWN_CLOSE, fd) for fd in _inherited()),
    ]
    with netns.inside(namespace) if namespace else contextlib.nullcontext():
        whole = {**marked_environment(lab_id), **(environment or {})}
        return os.posix_spawnp(command[0], command, whole, file_actions=files, setsid=True)


def _inherited() -> Iterator[int]:
    """Descriptors beyond the first three that a program which is started would have too."""
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing
            if int(entry) > 2 and os.get_inheritable(int(entry)):
                yield int(entry)


def processes_of(lab_id: str, namespaces: Iterable[str]) -> list[int]:
    """Pids that carry the lab's mark or live in one of its network namespaces; never the caller and its ancestors."""
    inodes = {netns.inode(name) for name in namespaces} - {0}
    wanted = f"{MARK}={lab_id}".encode()
    spared = _own_line()
    pids = []
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) in spared:
            continue
        with contextlib.suppress(OSError):  # gone, or a kernel thread
            if (
                wanted in Path(entry.path, "environ").read_bytes().split(b"\0")
                or os.stat(f"{entry.path}/ns/net").st_ino in inodes
            ):
                pids.append(int(entry.name))
    return pids


def _own_line() -> set[int]:
    """The caller and its ancestors."""
    pids, pid = set(), os.getpid()
    while pid > 0:
        pids.add(pid)
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            break
        pid = int(stat.rpartition(")")[2].split()[1])
    return pids


def end(pids: Iterable[int], *, grace: float = 2.0) -> None:
    """Ends processes: SIGTERM, and SIGKILL for those that are still there after `grace` seconds."""
    handles: dict[int, int] = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            handles[os.pidfd_open(pid)] = pid
    try:
        for sign, wait in ((signal.SIGTERM, grace), (signal.SIGKILL, 5.0)):
            for handle in handles:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, sign)
            deadline = time.monotonic() + wait
            while handles and (remaining_s := deadline - time.monotonic()) > 0:
                for handle in select.select(list(handles), [], [], remaining_s)[0]:
                    _reap(handles.pop(handle))
                    os.close(handle)
    finally:
        for handle in handles:
            os.close(handle)


def _reap(pid: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
