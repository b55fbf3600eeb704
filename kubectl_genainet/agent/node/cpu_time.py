"""What looking at the node costs it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

_charged = threading.local()
_TICKS = os.sysconf("SC_CLK_TCK")


def charge(seconds: float) -> None:
    """Adds the CPU time of a thread, or of a command, that did this one's work."""
    _charged.seconds = getattr(_charged, "seconds", 0.0) + seconds


def charge_command(pid: int) -> None:
    """Waits until a child has ended, and charges its CPU time. It is still to be waited for then: /proc has it until that.

    Not by getrusage(RUSAGE_CHILDREN), which counts what the commands of all threads took.
    """
    with contextlib.suppress(OSError):
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        charge(_spent_by(pid))


def _spent_by(pid: int) -> float:
    """Source: proc_pid_schedstat, the first number in ns; where the kernel has none, proc_pid_stat(5), fields 14 and 15."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:13])) / _TICKS


def spent_s() -> float:
    """CPU time of this thread, and of the threads and commands that worked for it. Not the time that passes: on a busy node it
    is much longer, and a report that is needed would be put off when most depends on it."""
    return time.thread_time() + getattr(_charged, "seconds", 0.0)
