"""The kernel's type information as this project reads it, against what bpftool makes of it."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kubectl_genainet.agent.bpf.btf import VMLINUX, Btf, StructMember
from kubectl_genainet.agent.probes import PROBES
from kubectl_genainet.errors import GenainetError
from tests.kernel.kerneltest import RELEASES, other_kernel

HEAD = re.compile(r"\[(\d+)\] (\w+) '([^']*)' (?:size=(\d+) )?(.*)")
MEMBER = re.compile(r"\t'([^']*)' type_id=(\d+) bits_offset=(\d+)(?: bitfield_size=(\d+))?")
VALUE = re.compile(r"\t'([^']*)' val=(-?\d+)")
POINTER = 8


@dataclass
class Type:
    kind: str
    name: str
    size: int
    rest: str
    members: list[tuple[str, int, int]] = field(default_factory=list)  # name, type id, offset in bits
    values: dict[int, str] = field(default_factory=dict)


@pytest.fixture(scope="module", params=["running", *RELEASES])
def kernel(request: pytest.FixtureRequest) -> Path:
    """The type information of the running kernel, and of each that the project supports."""
    return VMLINUX if request.param == "running" else other_kernel(request.param)


@pytest.fixture(scope="module")
def types(kernel: Path) -> dict[int, Type]:
    """Every type of the kernel, by id, from bpftool's listing."""
    if shutil.which("bpftool") is None:
        pytest.skip("bpftool is not installed")
    listing = subprocess.run(
        ["bpftool", "btf", "dump", "file", str(kernel)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    found: dict[int, Type] = {}
    current = Type("", "", 0, "")
    for line in listing.splitlines():
        if head := HEAD.match(line):
            current = found[int(head[1])] = Type(head[2], head[3], int(head[4] or 0), head[5])
        elif member := MEMBER.match(line):
            current.members.append((member[1], int(member[2]), int(member[3])))
        elif value := VALUE.match(line):
            current.values[int(value[2])] = value[1]
    return found


def size_of(types: dict[int, Type], number: int) -> int:
    kind = types[number]
    if kind.kind == "PTR":
        return POINTER
    if kind.kind == "ARRAY":
        element, count = (int(n) for n in re.findall(r"(?:^|\s)type_id=(\d+).*nr_elems=(\d+)", kind.rest)[0])
        return size_of(types, element) * count
    if kind.size:
        return kind.size
    return size_of(types, int(re.search(r"type_id=(\d+)", kind.rest)[1]))  # type: ignore[index]


def offset_of(types: dict[int, Type], number: int, name: str) -> tuple[int, int] | None:
    """(bits, type id) of a member, through anonymous ones."""
    kind = types[number]
    if kind.kind in ("TYPEDEF", "CONST", "VOLATILE", "TYPE_TAG"):
        return offset_of(types, int(re.search(r"type_id=(\d+)", kind.rest)[1]), name)  # type: ignore[index]
    for member, member_type, bits in kind.members:
        if member == name:
            return bits, member_type
        if member == "(anon)" and types[member_type].kind in ("STRUCT", "UNION"):
            inside = offset_of(types, member_type, name)
            if inside is not None:
                return bits + inside[0], inside[1]
    return None


def fields_that_probes_read() -> list[tuple[str, str]]:
    return sorted({(view.struct, path) for probe in PROBES.values() for view in probe.views for path in view.fields})


@pytest.mark.parametrize(("struct", "path"), fields_that_probes_read())
def test_field_lies_where_bpftool_says(kernel: Path, types: dict[int, Type], struct: str, path: str) -> None:
    (number,) = [n for n, t in types.items() if t.kind == "STRUCT" and t.name == struct][:1]
    bits = 0
    for name in path.split("."):
        found = offset_of(types, number, name)
        if found is None:
            assert Btf(kernel).field(struct, path) is None
            return
        bits, number = bits + found[0], found[1]
    assert Btf(kernel).field(struct, path) == StructMember(bits // 8, size_of(types, number))


@pytest.mark.parametrize("name", ["skb_drop_reason", "bpf_prog_type", "nf_inet_hooks"])
def test_enum_has_the_names_that_bpftool_prints(kernel: Path, types: dict[int, Type], name: str) -> None:
    listed = [t.values for t in types.values() if t.kind in ("ENUM", "ENUM64") and t.name == name]
    if not listed:
        assert Btf(kernel).enum(name) == {}
        return
    found = Btf(kernel).enum(name)
    assert found == listed[0] and (name != "skb_drop_reason" or len(found) > 50)


def test_what_is_not_there_is_none() -> None:
    btf = Btf()
    assert btf.field("sk_buff", "no_such_field") is None
    assert btf.field("no_such_struct", "x") is None
    assert btf.enum("no_such_enum") == {}


def test_kernel_without_type_information_is_a_kind_error(tmp_path: Path) -> None:
    with pytest.raises(GenainetError, match="no type information") as error:
        Btf(tmp_path / "vmlinux")
    assert "CONFIG_DEBUG_INFO_BTF" in error.value.hint
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"\x9f\xeb"[::-1] + bytes(30))
    with pytest.raises(GenainetError, match="is not this machine's BTF"):
        Btf(foreign)
