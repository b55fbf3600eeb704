"""How the probes' C structs lie in memory, read from the C itself: the only declaration that a struct has.

A struct is read by `layout(file, name)`. Its fields are integers, chars, structs of these and arrays of these; sizes of arrays
are numbers, `#define`s or members of enums. A nested struct's fields get its name in front (`t` with `saddr` is `t_saddr`);
an array is bytes, unless it is asked for by `numbers`. Padding is the compiler's: members are aligned to their size. Each
struct that leaves the kernel has its size in a `_Static_assert`, which is compared here.
"""

from __future__ import annotations

import re
import struct
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from operator import add, floordiv, mul
from typing import Any

from kubectl_genainet.assets import asset_dir

_HEADER = "include/genainet.h"
_CODES = {"__u8": "B", "__u16": "H", "__u32": "I", "__u64": "Q", "__s32": "i", "__s64": "q", "char": "s"}
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_DEFINE = re.compile(r"^#define[ \t]+(\w+)[ \t]+(.+)$", re.MULTILINE)
_ENUM = re.compile(r"enum\s*(\w*)\s*\{([^}]*)\}")
_STRUCT = re.compile(r"^struct (\w+) \{\n(.*?)^\};", re.MULTILINE | re.DOTALL)
_MEMBER = re.compile(r"\s*(?:struct (\w+)|(\w+)) (\w+)(?:\[([^\]]+)\])?;")
_ASSERT = re.compile(r"_Static_assert\(sizeof\(struct (\w+)\) == (\d+)")


@dataclass(frozen=True, slots=True)
class StructField:
    """A field: its name, its place, and what it is made of (`code` of struct, so many)."""

    name: str
    offset: int
    code: str
    count: int

    @property
    def format(self) -> str:
        size = struct.calcsize(f"={self.code}") * self.count
        return self.code if self.count == 1 and self.code != "s" else f"{size}s"


class StructLayout:
    """A C struct: `read` gives a record with its fields by name; `size` is sizeof."""

    def __init__(self, name: str, members: tuple[StructField, ...], size: int) -> None:
        self.name, self.size, self.members = name, size, members
        head = self.part(*(member.name for member in members))
        self._struct = struct.Struct(f"{head.format}{size - head.size}x")
        self._record: Any = namedtuple(name, [member.name for member in members])  # type: ignore[misc]

    def read(self, data: bytes, offset: int = 0) -> Any:
        """The struct that begins at `offset`, as a named tuple. What a shorter record leaves out of its end is 0."""
        if len(data) - offset < self.size:
            data, offset = data[offset:].ljust(self.size, b"\0"), 0
        return self._record._make(self._struct.unpack_from(data, offset))

    def read_all(self, data: bytes) -> Iterator[Any]:
        """Structs that lie one after the other."""
        return map(self._record._make, self._struct.iter_unpack(data))

    def pack(self, **values: Any) -> bytes:
        """The struct with these fields; others are 0."""
        empty = self.read(bytes(self.size))
        return self._struct.pack(*empty._replace(**values))

    def part(self, *fields: str) -> struct.Struct:
        """What unpacks some of the fields only, in their order."""
        parts, place = [], 0
        for member in (m for m in self.members if m.name in fields):
            parts.append(f"{member.offset - place}x{member.format}")
            place = member.offset + struct.calcsize(f"={member.format}")
        return struct.Struct(f"={''.join(parts)}")

    def offset(self, field: str) -> int:
        """offsetof"""
        return next(member.offset for member in self.members if member.name == field)

    def numbers(self, field: str) -> struct.Struct:
        """What unpacks the bytes of an array of numbers."""
        member = next(member for member in self.members if member.name == field)
        return struct.Struct(f"={member.count}{member.code}")


@cache
def _text(file: str) -> str:
    parts = (_HEADER,) if file == _HEADER else (_HEADER, file)
    return "\n".join(_COMMENT.sub("", (asset_dir("probes") / part).read_text()) for part in parts)


@cache
def constants(file: str) -> dict[str, int]:
    """Numbers that the file and its header name: `#define`s, and members of enums."""
    values: dict[str, int] = {}
    for name, text in _DEFINE.findall(_text(file)):
        if (value := _value(text.strip(), values)) is not None:
            values[name] = value
    for members in enums(file).values():
        values |= members
    return values


@cache
def enums(file: str) -> dict[str, dict[str, int]]:
    """The members of each enum with their numbers, by the enum's name; those without a name under their first member's."""
    by_name: dict[str, dict[str, int]] = {}
    for name, body in _ENUM.findall(_text(file)):
        members: dict[str, int] = {}
        number = 0
        for part in filter(None, (part.strip() for part in body.split(","))):
            member, _, value = (text.strip() for text in part.partition("="))
            number = int(value, 0) if value else number
            members[member] = number
            number += 1
        by_name[name or next(iter(members))] = members
    return by_name


def _value(text: str, known: dict[str, int]) -> int | None:
    """A number, the name of one, or a sum, product or quotient of two; None for anything else."""
    text = text.strip("()")
    for sign, calculate in (("+", add), ("*", mul), ("/", floordiv)):
        if sign in text:
            left, right = (_value(part.strip(), known) for part in text.split(sign, 1))
            return calculate(left, right) if left is not None and right else None
    if re.fullmatch(r"0x[0-9a-fA-F]+|\d+", text):
        return int(text, 0)
    return known.get(text)


@cache
def layout(file: str, name: str) -> StructLayout:
    """The struct `name` of a file below probes/, or of the header that all have. Raises LookupError for one that is not there,
    or whose size is another than the C asserts."""
    bodies = dict(_STRUCT.findall(_text(file)))
    members, size, _ = _members(file, name, bodies)
    asserted = dict(_ASSERT.findall(_text(file))).get(name)
    if asserted is not None and int(asserted) != size:
        raise LookupError(f"struct {name} of {file} has {size} bytes here, and {asserted} in C")
    return StructLayout(name, tuple(members), size)


def _members(file: str, name: str, bodies: dict[str, str]) -> tuple[list[StructField], int, int]:
    """(fields, size, alignment) of a struct."""
    if name not in bodies:
        raise LookupError(f"no struct {name} in {file}")
    members: list[StructField] = []
    place, widest = 0, 1
    for line in filter(None, (line.strip() for line in bodies[name].splitlines())):
        match = _MEMBER.fullmatch(line)
        count = _value(match[4], constants(file)) if match and match[4] else 1
        if match is None or count is None:
            raise LookupError(f"struct {name} of {file}: what {line!r} is can't be told")
        inner, kind, field = match[1], match[2], match[3]
        if inner:
            nested, size, alignment = _members(file, inner, bodies)
        else:
            nested, size = [], struct.calcsize(f"={_CODES[kind]}")
            alignment = size
        place = -(-place // alignment) * alignment
        if inner and not match[4]:
            members += [StructField(f"{field}_{m.name}", place + m.offset, m.code, m.count) for m in nested]
        elif inner:
            members.append(StructField(field, place, "s", size * count))
        else:
            members.append(StructField(field, place, _CODES[kind], count))
        place += size * count
        widest = max(widest, alignment)
    return members, -(-place // widest) * widest, widest
