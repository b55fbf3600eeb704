"""Reads the kernel's own type information (BTF): where fields lie, how large they are, what enums mean.

Format: Linux Documentation/bpf/btf.rst. Only what the probes need is decoded; all integers are in host byte order.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kubectl_genainet.errors import GenainetError

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_INT, _PTR, _ARRAY, _STRUCT, _UNION, _ENUM, _FWD, _TYPEDEF, _VOLATILE, _CONST, _RESTRICT = range(1, 12)
_FUNC, _FUNC_PROTO, _VAR, _DATASEC, _FLOAT, _DECL_TAG, _TYPE_TAG, _ENUM64 = range(12, 20)
_MODIFIERS = {_TYPEDEF, _VOLATILE, _CONST, _RESTRICT, _TYPE_TAG}
_HEADER = struct.Struct("=HBBIIIII")  # magic, version, flags, hdr_len, type_off, type_len, str_off, str_len
_TYPE = struct.Struct("=III")  # name_off, info, size or type


@dataclass(frozen=True, slots=True)
class Field:
    """A member of a struct: its offset and size in bytes."""

    offset: int
    size: int


class Btf:
    """The types of one kernel. `Btf()` reads the running kernel's; raises GenainetError where there is none."""

    def __init__(self, path: Path = VMLINUX) -> None:
        try:
            self._data = path.read_bytes()
        except OSError as error:
            raise GenainetError(
                f"this kernel has no type information ({path}: {error.strerror})",
                hint="The probes need a kernel built with CONFIG_DEBUG_INFO_BTF=y: any distribution's since about 2020.",
            ) from None
        magic, _, _, header, type_off, self._type_len, str_off, str_len = _HEADER.unpack_from(self._data)
        if magic != 0xEB9F:
            raise GenainetError(f"{path} is not BTF in this machine's byte order")
        self._types = header + type_off
        self._strings = header + str_off
        self._string_len = str_len

    @cached_property
    def _offsets(self) -> list[int]:
        """Position of each type, by type id; 0 (void) has none."""
        trailer = {_INT: 4, _ARRAY: 12, _VAR: 4, _DECL_TAG: 4}
        per_entry = {_STRUCT: 12, _UNION: 12, _ENUM: 8, _FUNC_PROTO: 8, _DATASEC: 12, _ENUM64: 12}
        size = [trailer.get(kind, 0) for kind in range(32)]
        entry = [per_entry.get(kind, 0) for kind in range(32)]
        data, position, end = self._data, self._types, self._types + self._type_len
        offsets = [-1]
        append, info_at = offsets.append, struct.Struct("=I").unpack_from
        while position < end:
            append(position)
            info: int = info_at(data, position + 4)[0]
            kind = (info >> 24) & 0x1F
            position += 12 + size[kind] + entry[kind] * (info & 0xFFFF)
        return offsets

    def _type(self, type_id: int) -> tuple[str, int, int, int, int, bool]:
        """(name, kind, vlen, size-or-type, position of the first entry, kind flag) of a type id."""
        position = self._offsets[type_id]
        name, info, size = _TYPE.unpack_from(self._data, position)
        return self._string(name), (info >> 24) & 0x1F, info & 0xFFFF, size, position + 12, bool(info >> 31)

    def _string(self, offset: int) -> str:
        start = self._strings + offset
        return self._data[start : self._data.index(b"\0", start)].decode()

    def _find(self, name: str, *kinds: int) -> int | None:
        """The id of the named type of one of the kinds."""
        needle = b"\0" + name.encode() + b"\0"
        at = self._data.find(needle, self._strings, self._strings + self._string_len)
        if at < 0:
            return None
        wanted = struct.pack("=I", at + 1 - self._strings)
        position = self._data.find(wanted, self._types)
        by_position = {p: i for i, p in enumerate(self._offsets)}
        while 0 <= position < self._types + self._type_len:
            type_id = by_position.get(position)
            if type_id is not None and self._type(type_id)[1] in kinds:
                return type_id
            position = self._data.find(wanted, position + 1)
        return None

    def _size(self, type_id: int) -> int:
        if type_id == 0:
            return 0
        _, kind, _, size, entries, _ = self._type(type_id)
        if kind in _MODIFIERS:
            return self._size(size)
        if kind == _PTR:
            return struct.calcsize("P")
        if kind == _ARRAY:
            element, _, count = struct.unpack_from("=III", self._data, entries)
            return self._size(element) * int(count)
        return size

    def struct_id(self, name: str) -> int | None:
        """The type id of a struct."""
        return self._find(name, _STRUCT)

    def function_id(self, name: str) -> int | None:
        """The type id of a function of the kernel, as BPF programs call it (a kfunc)."""
        return self._find(name, _FUNC)

    def field(self, struct_name: str, path: str) -> Field | None:
        """Where `path` ("nd_net.net") lies in the struct; None where this kernel has no such field or a bit field."""
        type_id = self.struct_id(struct_name)
        if type_id is None:
            return None
        offset = 0
        for name in path.split("."):
            found = self._member(type_id, name)
            if found is None:
                return None
            bits, type_id = found
            if bits % 8:
                return None
            offset += bits // 8
        return Field(offset, self._size(type_id))

    def _member(self, type_id: int, name: str) -> tuple[int, int] | None:
        """(offset in bits, type id) of a member, looked up through anonymous structs and unions."""
        _, kind, count, size, entries, flag = self._type(type_id)
        if kind in _MODIFIERS:
            return self._member(size, name)
        if kind not in (_STRUCT, _UNION):
            return None
        for i in range(count):
            name_off, member_type, offset = _TYPE.unpack_from(self._data, entries + 12 * i)
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
        _, kind, count, _, entries, signed = self._type(type_id)
        letters = "iq" if signed else "IQ"
        shape = struct.Struct(
            f"=I{letters[kind == _ENUM64]}"
        )  # low word first: little endian, as all that the probes run on
        values = (shape.unpack_from(self._data, entries + shape.size * i) for i in range(count))
        return {int(value): self._string(name) for name, value in values}

    def tracepoint_arguments(self, name: str) -> int | None:
        """How many arguments a raw tracepoint's program gets; None where the kernel itself has no such tracepoint.

        Each has a typedef btf_trace_NAME of a pointer to a function, whose first parameter is not passed on
        (include/trace/bpf_probe.h).
        """
        type_id = self._find(f"btf_trace_{name}", _TYPEDEF)
        for wanted in (_TYPEDEF, _PTR):
            if type_id is None or self._type(type_id)[1] != wanted:
                return None
            type_id = self._type(type_id)[3]
        _, kind, count, *_ = self._type(type_id) if type_id is not None else ("", 0, 0)
        return count - 1 if kind == _FUNC_PROTO else None
