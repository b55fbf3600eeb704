"""Compiles one probe with BCC and writes its image to standard output. The only place that imports bcc."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import msgspec

from kubectl_genainet.agent.bpf.image import INSN, MAP_REFERENCE, CompileJob, Image, MapImage
from kubectl_genainet.agent.session.outbox import write_all

_RINGBUF = 27  # enum bpf_map_type


def compile_probe(job: CompileJob) -> Image:
    """Raises what bcc raises; the compiler's messages go to standard error."""
    os.environ["BCC_KERNEL_SOURCE"] = job.headers
    try:
        import bcc
    except ImportError as error:
        raise SystemExit(
            f"this Python can't import bcc ({error}): install python3-bpfcc and use the distribution's Python"
        ) from None
    program = bcc.BPF(text=job.source.encode(), cflags=list(job.flags))
    maps, places = _maps(bcc, program)
    return Image(maps, {name: _relocated(program.dump_func(name), places) for name in job.functions})


def _maps(bcc: Any, program: Any) -> tuple[tuple[MapImage, ...], dict[int, int]]:
    """The module's maps, and the place of each by the descriptor that it has in this process."""
    lib, module = bcc.lib, program.module
    size = ctypes.c_size_t
    for function, result, arguments in (
        ("bpf_num_tables", size, [ctypes.c_void_p]),
        ("bpf_table_name", ctypes.c_char_p, [ctypes.c_void_p, size]),
        ("bpf_table_type_id", ctypes.c_int, [ctypes.c_void_p, size]),
        ("bpf_table_max_entries_id", size, [ctypes.c_void_p, size]),
        ("bpf_table_flags_id", ctypes.c_int, [ctypes.c_void_p, size]),
        ("bpf_table_key_size_id", size, [ctypes.c_void_p, size]),
        ("bpf_table_leaf_size_id", size, [ctypes.c_void_p, size]),
    ):
        getattr(lib, function).restype = result
        getattr(lib, function).argtypes = arguments
    maps, places = [], {}
    for i in range(lib.bpf_num_tables(module)):
        name, kind = lib.bpf_table_name(module, i), lib.bpf_table_type_id(module, i)
        ring = kind == _RINGBUF
        maps.append(
            MapImage(
                name=name.decode(),
                type=kind,
                key_size=0 if ring else lib.bpf_table_key_size_id(module, i),
                value_size=0 if ring else lib.bpf_table_leaf_size_id(module, i),
                max_entries=lib.bpf_table_max_entries_id(module, i),
                flags=lib.bpf_table_flags_id(module, i),
            )
        )
        places[program[name].map_fd] = i
    return tuple(maps), places


def _relocated(code: bytes, places: dict[int, int]) -> bytes:
    """The instructions with each map's descriptor replaced by its place."""
    out = bytearray(code)
    for offset_in_code in range(0, len(code), INSN.size):
        opcode, registers, offset, value = INSN.unpack_from(code, offset_in_code)
        if (opcode, registers >> 4) == MAP_REFERENCE:
            INSN.pack_into(out, offset_in_code, opcode, registers, offset, places[value])
    return bytes(out)


def main() -> None:
    job = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=CompileJob)
    write_all(sys.stdout.fileno(), msgspec.msgpack.encode(compile_probe(job)))


if __name__ == "__main__":
    main()
