"""Compiled probes, kept: what BCC made of a probe once is loaded again without BCC and its compiler.

Compiling costs about a second of a core and 100 MB; loading an image costs milliseconds and next to no memory. An image
belongs to one kernel build, one source and one set of flags; its key holds all of them.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from kubectl_genainet.agent.bpf.headers import write_file
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError

FORMAT = 3
INSN = struct.Struct("<BBhi")
MAP_REFERENCE = (0x18, 1)  # ld_imm64 with BPF_PSEUDO_MAP_FD
_CALL, _PSEUDO_KFUNC_CALL = 0x85, 2  # include/uapi/linux/bpf.h
_TYPED_CAST = 0x74797065  # TYPED in genainet.h calls the helper of this number, which no kernel has
COMPILE_S = 600.0  # a second on an idle core; minutes where the node leaves the agent a hundredth of one


class MapImage(msgspec.Struct, frozen=True):
    """A map's definition: `type` is enum bpf_map_type's number; sizes in bytes."""

    name: str
    type: int
    key_size: int
    value_size: int
    max_entries: int
    flags: int


class Image(msgspec.Struct, frozen=True):
    """Maps, and programs by function: struct bpf_insn as bytes, in which a map is referred to by its place in `maps`, and a typed
    cast is a call of no kernel's helper."""

    maps: tuple[MapImage, ...]
    programs: dict[str, bytes]


def loadable(code: bytes, descriptors: list[int], typed_cast: int) -> bytes:
    """The instructions with the places of maps replaced by their descriptors, and the typed casts made calls of the kernel's
    function of this BTF id: BCC's compiler knows no calls of kernel functions, only of helpers by number."""
    out = bytearray(code)
    for offset_in_code in range(0, len(code), INSN.size):
        opcode, registers, offset, value = INSN.unpack_from(code, offset_in_code)
        if (opcode, registers >> 4) == MAP_REFERENCE:
            INSN.pack_into(out, offset_in_code, opcode, registers, offset, descriptors[value])
        elif (opcode, value) == (_CALL, _TYPED_CAST):
            INSN.pack_into(out, offset_in_code, opcode, registers | _PSEUDO_KFUNC_CALL << 4, offset, typed_cast)
    return bytes(out)


class CompileJob(msgspec.Struct, frozen=True):
    """What the compiler's process gets on standard input."""

    source: str
    headers: str  # the value for BCC_KERNEL_SOURCE
    flags: tuple[str, ...]
    functions: tuple[str, ...]


def private_folder(path: Path) -> Path:
    """`path` as a folder that nobody else can write: what is in it gets into the kernel.

    Where somebody else owns it or may write it, another one is made and returned.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022:
        return path
    return Path(tempfile.mkdtemp(prefix="kubectl-genainet-"))


def image_of(name: str, job: CompileJob, cache: Path, compiling: Callable[[], None] = lambda: None) -> Image:
    """The image of a probe: from the cache, or compiled now, which `compiling` is told before. Raises GenainetError with
    the compiler's own words."""
    key = hashlib.sha256(repr((FORMAT, platform.release(), platform.version(), job)).encode()).hexdigest()[:16]
    stored = cache / f"{name}-{key}.image"
    try:
        return msgspec.msgpack.decode(stored.read_bytes(), type=Image)
    except (OSError, *DECODE_ERRORS):
        pass
    compiling()
    image = compiled(name, job)
    write_file(stored, msgspec.msgpack.encode(image))
    return image


def compiled(name: str, job: CompileJob) -> Image:
    """Compiles in a process of its own: the compiler's memory goes with it."""
    command: Sequence[str] = (sys.executable, "-m", "kubectl_genainet.agent.bpf.compiler")
    try:
        done = subprocess.run(
            command, input=msgspec.msgpack.encode(job), capture_output=True, timeout=COMPILE_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise GenainetError(
            f"the probe {name} was not compiled within {COMPILE_S:.0f} s: is the node overloaded?"
        ) from None
    if done.returncode:
        errors = done.stderr.decode(errors="replace").strip()
        raise GenainetError(
            f"the probe {name} can't be compiled: {errors[-2000:] or f'the compiler ended with {done.returncode}'}",
            hint="Loading BPF needs root, or CAP_BPF and CAP_PERFMON, and the package python3-bpfcc.",
        )
    return msgspec.msgpack.decode(done.stdout, type=Image)
