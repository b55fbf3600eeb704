"""The verbs of the command line, a file each."""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path


def _age_s() -> float:
    """How long this process has run: on a busy machine its interpreter's start takes seconds. 0 where that is not known."""
    with contextlib.suppress(OSError, AttributeError, ValueError, IndexError):
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")  # starttime, proc(5): since the machine's boot
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started_s)
    return 0.0


STARTED = time.monotonic() - _age_s()  # when the command was given
