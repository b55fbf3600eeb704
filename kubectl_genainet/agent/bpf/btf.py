"""Reads the kernel's own type information (BTF): where fields lie, how large they are, what enums mean.

libbpf, the library that BCC is linked with, reads the file and finds types by name; only the members behind a type are
decoded here, as include/uapi/linux/btf.h lays them out. All integers are in host byte order.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from kubectl_genainet.errors import GenainetError

VMLINUX = Path("/sys/kernel/btf/vmlinux")
LIBBPF = "libbpf.so.1"

_PTR, _STRUCT, _UNION, _ENUM = 2, 4, 5, 6
_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _FUNC, _FUNC_PROTO = range(8, 14)
_TYPE_TAG, _ENUM64 = 18, 19
_MODIFIERS = {_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG}
_TYPE = struct.Struct(
    "=III"
)  # struct btf_type: name_off, info, size or type; struct btf_member: name_off, type, offset


@cache
def _libbpf() -> ctypes.CDLL:
    """The functions that are called here, with their types (bpf/btf.h)."""
    try:
        lib = ctypes.CDLL(LIBBPF, use_errno=True)
    except OSError as error:
        raise GenainetError(
            f"libbpf can't be loaded: {error}", hint="It comes with BCC: install the package python3-bpfcc."
        ) from None
    btf, name = ctypes.c_void_p, ctypes.c_char_p
    for function, result, arguments in (
        ("btf__parse_raw", btf, [name]),
        ("btf__free", None, [btf]),
        ("btf__find_by_name_kind", ctypes.c_int32, [btf, name, ctypes.c_uint32]),
        ("btf__type_by_id", ctypes.c_void_p, [btf, ctypes.c_uint32]),
        ("btf__name_by_offset", name, [btf, ctypes.c_uint32]),
        ("btf__resolve_size", ctypes.c_int64, [btf, ctypes.c_uint32]),
    ):
        getattr(lib, function).restype = result
        getattr(lib, function).argtypes = arguments
    lib.libbpf_set_print.restype, lib.libbpf_set_print.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    lib.libbpf_set_print(None)  # what is wrong with a file is said here
    return lib


@dataclass(frozen=True, slots=True)
class StructMember:
    """A member of a struct: its offset and size in bytes."""

    offset: int
    size: int


class Btf:
    """The types of one kernel. `Btf()` reads the running kernel's; raises GenainetError where there is none."""

    def __init__(self, path: Path = VMLINUX) -> None:
        self._lib = _libbpf()
        self._free: Callable[[int], None] = self._lib.btf__free
        self._btf: int | None = self._lib.btf__parse_raw(os.fsencode(path))
        if not self._btf:
            error = ctypes.get_errno()
            if path.exists() and error not in (errno.EACCES, errno.EPERM):
                raise GenainetError(f"{path} is not this machine's BTF: {os.strerror(error)}")
            raise GenainetError(
                f"this kernel has no type information ({path}: {os.strerror(error)})",
                hint="The probes need a kernel built with CONFIG_DEBUG_INFO_BTF=y: any distribution's since about 2020.",
            )

    def __del__(self) -> None:
        if getattr(self, "_btf", None):
            self._free(self._btf or 0)

    def _type(self, type_id: int) -> tuple[int, int, int, int, bool]:
        """(kind, number of entries, size or type, address of the first entry, kind flag) of a type id."""
        place: int = self._lib.btf__type_by_id(self._btf, type_id)
        _, info, size = _TYPE.unpack(ctypes.string_at(place, _TYPE.size))
        return (info >> 24) & 0x1F, info & 0xFFFF, size, place + _TYPE.size, bool(info >> 31)

    def _string(self, offset: int) -> str:
        return bytes(self._lib.btf__name_by_offset(self._btf, offset)).decode()

    def _find(self, name: str, *kinds: int) -> int | None:
        """The id of the named type of one of the kinds."""
        ids = (self._lib.btf__find_by_name_kind(self._btf, name.encode(), kind) for kind in kinds)
        return next((type_id for type_id in ids if type_id > 0), None)

    def struct_id(self, name: str) -> int | None:
        """The type id of a struct."""
        return self._find(name, _STRUCT)

    def function_id(self, name: str) -> int | None:
        """The type id of a function of the kernel, as BPF programs call it (a kfunc)."""
        return self._find(name, _FUNC)

    def field(self, struct_name: str, path: str) -> StructMember | None:
        """Where `path` ("nd_net.net") lies in the struct; None where this kernel has no such field or a bit field."""
        type_id = self.struct_id(struct_name)
        if type_id is None:
            return None
        offset = 0
        for name in path.split("."):
            member = self._member(type_id, name)
            if member is None:
                return None
            bits, type_id = member
            if bits % 8:
                return None
            offset += bits // 8
        return StructMember(offset, max(0, self._lib.btf__resolve_size(self._btf, type_id)))

    def _member(self, type_id: int, name: str) -> tuple[int, int] | None:
        """(offset in bits, type id) of a member, looked up through anonymous structs and unions."""
        kind, count, size, entries, flag = self._type(type_id)
        if kind in _MODIFIERS:
            return self._member(size, name)
        if kind not in (_STRUCT, _UNION):
            return None
        for name_off, member_type, offset in _TYPE.iter_unpack(ctypes.string_at(entries, _TYPE.size * count)):
            bits = offset & 0xFFFFFF if flag else offset
            member = self._string(name_off)
            if member == name:
                return bits, member_type
            if not member:
                inner = self._member(member_type, name)
                if inner is not None:
                    return bits + inner[0], inner[1]
        return None

    def enum(self, name: str) -> dict[int, str]:
        """Value → name of an enum; empty where this kernel has none of that name."""
        type_id = self._find(name, _ENUM, _ENUM64)
        if type_id is None:
            return {}
        kind, count, _, entries, signed = self._type(type_id)
        letters = "iq" if signed else "IQ"
        # struct btf_enum64 has the low word first: little endian, as all that the probes run on
        shape = struct.Struct(f"=I{letters[kind == _ENUM64]}")
        values = shape.iter_unpack(ctypes.string_at(entries, shape.size * count))
        return {int(value): self._string(name_off) for name_off, value in values}

    def tracepoint_arguments(self, name: str) -> int | None:
        """How many arguments a raw tracepoint's program gets; None where the kernel itself has no such tracepoint.

        Each has a typedef btf_trace_NAME of a pointer to a function, whose first parameter is not passed on
        (include/trace/bpf_probe.h).
        """
        type_id = self._find(f"btf_trace_{name}", _TYPEDEF)
        for wanted in (_TYPEDEF, _PTR):
            if type_id is None or self._type(type_id)[0] != wanted:
                return None
            type_id = self._type(type_id)[2]
        if type_id is None:
            return None
        kind, count, *_ = self._type(type_id)
        return count - 1 if kind == _FUNC_PROTO else None
