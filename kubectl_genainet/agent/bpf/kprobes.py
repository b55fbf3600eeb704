"""The kprobe tier: programs where functions of the kernel begin, for what its tracepoints lack.

Through perf_event_open, not through tracefs: closing the descriptor takes the kprobe away, so that nothing stays behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import platform
import struct
from pathlib import Path

from kubectl_genainet.agent.bpf.symbols import Symbols

_SOURCE = Path("/sys/bus/event_source/devices/kprobe/type")  # Linux 4.17, where it is built with kprobes
_PERF_EVENT_OPEN = {"x86_64": 298, "aarch64": 241}
_CLOSE_ON_EXEC = 8  # PERF_FLAG_FD_CLOEXEC
_ENABLE, _SET_BPF = 0x2400, 0x40042408  # PERF_EVENT_IOC_ENABLE, PERF_EVENT_IOC_SET_BPF
# struct perf_event_attr until config2: type, size, config, sample_period, sample_type, read_format, flags, wakeup_events,
# bp_type, kprobe_func, probe_offset
_ATTR = struct.Struct("=2I5Q2I2Q")
_libc = ctypes.CDLL(None, use_errno=True)


def available() -> bool:
    """Whether the kernel has kprobes to attach to."""
    return _SOURCE.exists()


def attach(program: int, symbol: str) -> int:
    """Has the program run wherever a function begins; closing the descriptor that is returned detaches it. Raises OSError."""
    name = ctypes.create_string_buffer(symbol.encode())
    kind = int(_SOURCE.read_text())
    attr = ctypes.create_string_buffer(_ATTR.pack(kind, _ATTR.size, 0, 1, 0, 0, 0, 0, 0, ctypes.addressof(name), 0))
    # Of all processes (-1); on CPU 0, which has a meaning for samples only: the program runs on each.
    event = _libc.syscall(_PERF_EVENT_OPEN[platform.machine()], attr, -1, 0, -1, ctypes.c_ulong(_CLOSE_ON_EXEC))
    if event < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), f"perf_event_open {symbol}")
    try:
        fcntl.ioctl(event, _SET_BPF, program)
        fcntl.ioctl(event, _ENABLE, 0)
    except OSError:
        os.close(event)
        raise
    return int(event)


def attach_where_whole(program: int, wanted: tuple[str, ...], symbols: Symbols) -> dict[str, int]:
    """Attaches the program to those functions that each caller calls by its symbol; descriptors by symbol."""
    attached = {}
    for symbol in wanted:
        with contextlib.suppress(OSError):
            if symbols.is_whole(symbol):
                attached[symbol] = attach(program, symbol)
    return attached
