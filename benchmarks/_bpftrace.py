"""bpftrace as the baseline: it wants tracefs, which is mounted in a mount namespace of its own and leaves with it."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

_SCRIPT = (
    "mount -t debugfs none /sys/kernel/debug; "
    "mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; "
    'exec bpftrace -e "$1"'
)


@contextmanager
def bpftrace(program: str) -> Iterator[subprocess.Popen[str]]:
    """Runs the program while the block runs; what it prints at its end can be read from its stdout afterwards."""
    process = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", _SCRIPT, "sh", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("Attaching"):
            raise RuntimeError(line + (process.stderr.read()[-500:] if process.stderr else ""))
        time.sleep(2)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
