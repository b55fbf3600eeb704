"""The C that reads a view of a kernel struct: one read where its fields lie together, several where they lie apart."""

from __future__ import annotations

import re

from kubectl_genainet.agent.bpf.btf import StructMember
from kubectl_genainet.agent.bpf.headers import StructView, view_source

READ = re.compile(r"bpf_probe_read_kernel\(\(__u8 \*\)to \+ (\d+), (\d+), \(void \*\)base \+ (\d+)\)")
SIZES = {"__u8": 1, "__u16": 2, "__u32": 4, "__u64": 8}
VIEW = StructView("dev_place", "net_device", ("nd_net.net", "ifindex", "name"))


def reads(source: str) -> list[tuple[int, ...]]:
    """(place in the view, bytes, place in the kernel's struct) of each."""
    return [tuple(map(int, found)) for found in READ.findall(source)]


def members(source: str) -> dict[str, int]:
    """Where each member lies in the view: packed, as the C says."""
    found, position = {}, 0
    for kind, name, count in re.findall(r"\t(__u\d+) (\w+)(?:\[(\d+)\])?;\n", source.partition("}")[0]):
        found[name] = position
        position += SIZES[kind] * int(count or 1)
    return found


def assert_each_field_is_read_to_its_member(source: str, fields: dict[str, StructMember]) -> None:
    places = members(source)
    for path, field in fields.items():
        covering = [
            to + field.offset - start for to, size, start in reads(source) if start <= field.offset < start + size
        ]
        assert covering == [places[path.replace(".", "_")]], path
        assert covering[0] % min(field.size & -field.size, 8) == 0


def test_fields_close_together_are_one_read_at_their_true_distances() -> None:
    fields = {"name": StructMember(304, 16), "ifindex": StructMember(224, 4), "nd_net.net": StructMember(280, 8)}
    source = view_source(VIEW, fields, 7)
    assert reads(source) == [(0, 96, 224)]
    assert_each_field_is_read_to_its_member(source, fields)


def test_fields_far_apart_are_read_one_after_the_other_and_take_no_room_between() -> None:
    # net_device of Linux 6.1: nd_net and name lie 1288 bytes apart.
    fields = {"name": StructMember(0, 16), "ifindex": StructMember(212, 4), "nd_net.net": StructMember(1280, 8)}
    source = view_source(VIEW, fields, 7)
    assert reads(source) == [(0, 16, 0), (16, 8, 208), (24, 8, 1280)]
    assert_each_field_is_read_to_its_member(source, fields)


def test_typed_loads_are_the_same_wherever_the_fields_lie() -> None:
    fields = {"name": StructMember(0, 16), "ifindex": StructMember(212, 4), "nd_net.net": StructMember(1280, 8)}
    loads = re.findall(r"TYPED_LOAD\((.+), (\d+), from, (\d+)\);", view_source(VIEW, fields, 7))
    assert [(int(bits), int(at)) for _, bits, at in loads] == [(64, 0), (64, 8), (32, 212), (64, 1280)]
