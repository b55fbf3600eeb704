"""The bpf system call: maps, programs, raw tracepoints, statistics. Errors are OSError, with the command's name."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import platform
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_SYSCALL = {"x86_64": 321, "aarch64": 280}
# enum bpf_cmd, include/uapi/linux/bpf.h
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT_KEY, _PROG_LOAD = range(6)
_PROG_TEST_RUN, _OBJ_GET_INFO_BY_FD, _RAW_TRACEPOINT_OPEN, _LOOKUP_BATCH, _LOOKUP_AND_DELETE_BATCH = 10, 15, 17, 24, 25
_DELETE_BATCH, _ENABLE_STATS = 27, 32
KPROBE, RAW_TRACEPOINT = 2, 17  # enum bpf_prog_type
_DO_NOTHING = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 0, 0x95, 0, 0, 0)  # r0 = 0; exit
_PER_CPU = {5, 6, 10}  # enum bpf_map_type: percpu hash, percpu array, lru percpu hash
_LOG_BYTES = 1 << 20
_libc = ctypes.CDLL(None, use_errno=True)


def _bpf(command: int, attr: bytes, name: str) -> int:
    """The system call; `attr` is union bpf_attr as far as the command reads it."""
    buffer = ctypes.create_string_buffer(attr, len(attr))
    result: int = _libc.syscall(_SYSCALL[platform.machine()], command, buffer, len(attr))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), name)
    return result


class BpfMap:
    """A map of this process. Keys and values are bytes; of a per-CPU map the values of all CPUs, one after the other."""

    def __init__(self, name: str, kind: int, key_size: int, value_size: int, max_entries: int, flags: int) -> None:
        attr = struct.pack("=5I2I16s", kind, key_size, value_size, max_entries, flags, 0, 0, name.encode()[:15])
        self.fd = _bpf(_MAP_CREATE, attr, f"BPF_MAP_CREATE {name}")
        self.max_entries = max_entries
        self._key = ctypes.create_string_buffer(max(1, key_size))
        step = -(-value_size // 8) * 8
        self._value = ctypes.create_string_buffer(max(1, step * possible_cpus() if kind in _PER_CPU else value_size))

    def _call(self, command: int, key: bytes, value: bytes, name: str) -> None:
        ctypes.memmove(self._key, key, len(key))
        ctypes.memmove(self._value, value, len(value))
        places = ctypes.addressof(self._key), ctypes.addressof(self._value)
        _bpf(command, struct.pack("=I4xQQQ", self.fd, *places, 0), name)

    def get(self, key: bytes) -> bytes | None:
        try:
            self._call(_MAP_LOOKUP, key, b"", "BPF_MAP_LOOKUP_ELEM")
        except FileNotFoundError:
            return None
        return self._value.raw

    def set(self, key: bytes, value: bytes) -> None:
        self._call(_MAP_UPDATE, key, value, "BPF_MAP_UPDATE_ELEM")

    def delete(self, key: bytes) -> None:
        """Removes an entry; one that is not there is no error."""
        with contextlib.suppress(FileNotFoundError):
            ctypes.memmove(self._key, key, len(key))
            attr = struct.pack("=I4xQ", self.fd, ctypes.addressof(self._key))  # what follows must not be given
            _bpf(_MAP_DELETE, attr, "BPF_MAP_DELETE_ELEM")

    def keys(self) -> Iterator[bytes]:
        """Every key, while nobody else removes any."""
        places = [0, ctypes.addressof(self._value)]
        following = ctypes.create_string_buffer(len(self._key))
        current = ctypes.create_string_buffer(len(self._key))
        while True:
            places[1] = ctypes.addressof(following)
            try:
                _bpf(_MAP_NEXT_KEY, struct.pack("=I4xQQQ", self.fd, *places, 0), "BPF_MAP_GET_NEXT_KEY")
            except FileNotFoundError:
                return
            yield following.raw
            ctypes.memmove(current, following, len(following))
            places[0] = ctypes.addressof(current)

    def close(self) -> None:
        os.close(self.fd)


def load_program(code: bytes, name: str, kind: int) -> int:
    """Loads a program of a kind of enum bpf_prog_type; returns its descriptor. The verifier's last words are in the error where
    it refuses."""

    def attr(level: int, log: int) -> bytes:
        return struct.pack(
            "=IIQQIIQII16s",
            kind,
            len(code) // 8,
            ctypes.addressof(insns),
            ctypes.addressof(licence),
            level,
            _LOG_BYTES if log else 0,
            log,
            0,
            0,
            name.encode()[:15],
        )

    insns, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    try:
        return _bpf(_PROG_LOAD, attr(0, 0), f"BPF_PROG_LOAD {name}")
    except OSError as error:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        with contextlib.suppress(OSError):
            return _bpf(_PROG_LOAD, attr(1, ctypes.addressof(log)), "BPF_PROG_LOAD")
        last_lines = log.value.decode(errors="replace").strip()[-1000:]
        raise OSError(
            error.errno, f"{error.strerror}{f': {last_lines}' if last_lines else ''}", error.filename
        ) from None


def attach_raw_tracepoint(program: int, tracepoint: str) -> int:
    """Attaches a program; closing the descriptor that is returned detaches it."""
    name = ctypes.create_string_buffer(tracepoint.encode())
    return _bpf(_RAW_TRACEPOINT_OPEN, struct.pack("=QI4x", ctypes.addressof(name), program), "BPF_RAW_TRACEPOINT_OPEN")


class RingBuffer:
    """A ring buffer map's reader: libbpf's, from the library that BCC brings (its memory ordering is not ours to write)."""

    def __init__(self, ring: BpfMap, handle: Callable[[bytes], None]) -> None:
        self._lib = ctypes.CDLL("libbcc_bpf.so.0", use_errno=True)
        sample = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)

        def callback(_: object, data: int, size: int) -> int:
            handle(ctypes.string_at(data, size))
            return 0

        self._callback = sample(callback)
        self._lib.ring_buffer__new.restype = ctypes.c_void_p
        self._lib.ring_buffer__new.argtypes = [ctypes.c_int, sample, ctypes.c_void_p, ctypes.c_void_p]
        self._lib.ring_buffer__consume.argtypes = [ctypes.c_void_p]
        self._lib.ring_buffer__free.argtypes = [ctypes.c_void_p]
        self._reader = self._lib.ring_buffer__new(ring.fd, self._callback, None, None)
        if not self._reader:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), "ring_buffer__new")

    def consume(self) -> None:
        """Handles all records that are there now."""
        self._lib.ring_buffer__consume(self._reader)

    def close(self) -> None:
        if self._reader:
            self._lib.ring_buffer__free(self._reader)
            self._reader = None


class _BatchAttr(ctypes.Structure):
    """union bpf_attr, the member for BPF_MAP_*_BATCH."""

    _fields_ = [
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


def enable_statistics() -> int | None:
    """Has the kernel measure the time of all its BPF programs until the descriptor is closed (Linux 5.8); None where it
    refuses."""
    try:
        return _bpf(_ENABLE_STATS, struct.pack("=I12x", 0), "BPF_ENABLE_STATS")
    except OSError:
        return None


def measuring_ns(runs: int = 64) -> int:
    """What the measuring adds to run_ns at each run, at least: what a program that does nothing is said to take, while
    statistics are on. 0 where the kernel runs no such program on demand (before 5.10)."""
    took: list[int] = []
    before = 0
    with contextlib.suppress(OSError):
        program = load_program(_DO_NOTHING, "nothing", RAW_TRACEPOINT)
        try:
            for _ in range(runs):
                _bpf(_PROG_TEST_RUN, struct.pack("=I72x", program), "BPF_PROG_TEST_RUN")
                now = program_statistics(program).run_ns
                took.append(now - before)
                before = now
        finally:
            os.close(program)
    return min(took, default=0)


@dataclass(frozen=True, slots=True)
class ProgramStatistics:
    """Of the program with this number in the kernel. `run_ns` and `runs` are 0 unless kernel.bpf_stats_enabled; `missed` counts
    runs skipped for recursion."""

    program: int
    run_ns: int
    runs: int
    missed: int


def program_statistics(fd: int) -> ProgramStatistics:
    """What the kernel counts for a program: struct bpf_prog_info, id, run_time_ns, run_cnt and recursion_misses.

    Kernels before 5.12 do not count misses: 0. Raises OSError.
    """
    info = ctypes.create_string_buffer(256)
    attr = ctypes.create_string_buffer(struct.pack("=IIQ", fd, len(info), ctypes.addressof(info)), 16)
    if _libc.syscall(_SYSCALL[platform.machine()], _OBJ_GET_INFO_BY_FD, attr, len(attr)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), "BPF_OBJ_GET_INFO_BY_FD")
    return ProgramStatistics(*struct.unpack_from("=I", info, 4), *struct.unpack_from("=QQQ", info, 192))


def possible_cpus() -> int:
    """How many values a per-CPU map holds for each key."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").split("-")[-1]
    return int(last) + 1


def tick_ns() -> int:
    """How often the kernel counts on its jiffies: by so much CLOCK_MONOTONIC_COARSE goes on (clock_getres(2))."""
    return round(time.clock_getres(6) * 1e9)


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
    key_of, value_of = struct.Struct(f"{key_size}s"), struct.Struct(f"{value_size}s")
    first = True
    while True:
        attr = _BatchAttr(
            0 if first else ctypes.addressof(cursor),
            ctypes.addressof(following),
            ctypes.addressof(keys),
            ctypes.addressof(values),
            batch,
            fd,
            0,
            0,
        )
        command = _LOOKUP_AND_DELETE_BATCH if delete else _LOOKUP_BATCH
        result = _libc.syscall(_SYSCALL[platform.machine()], command, ctypes.byref(attr), ctypes.sizeof(attr))
        error = ctypes.get_errno() if result else 0
        if error not in (0, 2):  # ENOENT: that was the last batch
            raise OSError(error, os.strerror(error), "BPF_MAP_LOOKUP_BATCH")
        all_keys, all_values = keys.raw[: attr.count * key_size], values.raw[: attr.count * value_size]
        for (key,), (value,) in zip(key_of.iter_unpack(all_keys), value_of.iter_unpack(all_values), strict=True):
            yield key, value
        if error:
            return
        ctypes.memmove(cursor, following, len(following))
        first = False


def delete_entries(fd: int, keys: list[bytes]) -> None:
    """Takes entries out of a hash map, many at once; those that are gone already are no error. Raises OSError."""
    done = 0
    while done < len(keys):
        remaining_keys = ctypes.create_string_buffer(b"".join(keys[done:]))
        attr = _BatchAttr(0, 0, ctypes.addressof(remaining_keys), 0, len(keys) - done, fd, 0, 0)
        result = _libc.syscall(_SYSCALL[platform.machine()], _DELETE_BATCH, ctypes.byref(attr), ctypes.sizeof(attr))
        error = ctypes.get_errno() if result else 0
        if error not in (0, errno.ENOENT):
            raise OSError(error, os.strerror(error), "BPF_MAP_DELETE_BATCH")
        done += attr.count + (1 if error else 0)  # it stops at one that is not there
