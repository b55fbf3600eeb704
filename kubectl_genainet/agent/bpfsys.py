"""The bpf system call itself, for what BCC does not offer: whole maps read by batches, statistics of programs."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_OBJ_GET_INFO_BY_FD = 15  # enum bpf_cmd, include/uapi/linux/bpf.h
_LOOKUP_BATCH = 24
_LOOKUP_AND_DELETE_BATCH = 25
_libc = ctypes.CDLL(None, use_errno=True)


class _BatchAttr(ctypes.Structure):
    """union bpf_attr, the member for BPF_MAP_*_BATCH."""

    _fields_ = [
        ("in_batch", ctypes.c_uint64), ("out_batch", ctypes.c_uint64), ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64), ("count", ctypes.c_uint32), ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64), ("flags", ctypes.c_uint64),
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class ProgramStatistics:
    """`run_ns` and `runs` are 0 unless kernel.bpf_stats_enabled; `missed` counts runs skipped for recursion."""

    run_ns: int
    runs: int
    missed: int


def program_statistics(fd: int) -> ProgramStatistics:
    """What the kernel counts for a program: struct bpf_prog_info, run_time_ns, run_cnt and recursion_misses.

    Kernels before 5.12 do not count misses: 0. Raises OSError.
    """
    info = ctypes.create_string_buffer(256)
    attr = ctypes.create_string_buffer(struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)), 16)
    if _libc.syscall(_SYSCALL[platform.machine()], _OBJ_GET_INFO_BY_FD, attr, len(attr)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "BPF_OBJ_GET_INFO_BY_FD")
    return ProgramStatistics(*struct.unpack_from("=QQQ", info, 192))


def possible_cpus() -> int:
    """How many values a per-CPU map holds for each key."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


_MEMBARRIER = {"x86_64": 324, "aarch64": 283}


def wait_for_programs() -> None:
    """Returns when every BPF program on a tracepoint that runs now has ended.

    membarrier(2), MEMBARRIER_CMD_GLOBAL, waits for an RCU grace period (kernel/sched/membarrier.c), as such
    programs run inside one. Where it is refused (nohz_full), a time is waited that no such program takes.
    """
    if _libc.syscall(_MEMBARRIER[platform.machine()], 1, 0, 0):
        time.sleep(0.05)


def entries(
    fd: int, key_size: int, value_size: int, batch: int = 1024, *, delete: bool = False
) -> Iterator[tuple[bytes, bytes]]:
    """Every (key, value) of a hash map; of a per-CPU map the values of all CPUs, one after the other.

    With `delete`, each is taken out of the map as it is read.

    Entries that come or go meanwhile may be missed or seen twice. Raises OSError.
    """
    keys, values = ctypes.create_string_buffer(key_size * batch), ctypes.create_string_buffer(value_size * batch)
    cursor, following = ctypes.create_string_buffer(max(key_size, 8)), ctypes.create_string_buffer(max(key_size, 8))
    first = True
    while True:
        attr = _BatchAttr(
            0 if first else ctypes.addressof(cursor), ctypes.addressof(following), ctypes.addressof(keys),
            ctypes.addressof(values), batch, fd, 0, 0,
        )  # fmt: skip
        command = _LOOKUP_AND_DELETE_BATCH if delete else _LOOKUP_BATCH
        result = _libc.syscall(_SYSCALL[platform.machine()], command, ctypes.byref(attr), ctypes.sizeof(attr))
        error = ctypes.get_errno() if result else 0
        if error not in (0, 2):  # ENOENT: that was the last batch
            raise OSError(error, os.strerror(error), "BPF_MAP_LOOKUP_BATCH")
        all_keys, all_values = keys.raw[: attr.count * key_size], values.raw[: attr.count * value_size]
        for i in range(attr.count):
            key, value = i * key_size, i * value_size
            yield all_keys[key : key + key_size], all_values[value : value + value_size]
        if error:
            return
        ctypes.memmove(cursor, following, len(following))
        first = False
