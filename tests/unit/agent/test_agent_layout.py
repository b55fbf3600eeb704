"""The C structs of the probes, read from the C: places and sizes as the compiler has them, enums as Python mirrors them."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from kubectl_genainet.agent.probes import drops
from kubectl_genainet.agent.probes.layout import constants, enums, layout
from kubectl_genainet.assets import asset_dir
from kubectl_genainet.wire import sightings

STRUCTS = [
    ("drops.bpf.c", "drop_key"),
    ("drops.bpf.c", "tally"),
    ("drops.bpf.c", "sample"),
    ("dns.bpf.c", "tuple"),
    ("dns.bpf.c", "sighted"),
    ("dns.bpf.c", "client"),
    ("dns.bpf.c", "dns_record"),
    ("dns.bpf.c", "dns_drop"),
    ("packet.bpf.c", "packet_event"),
    ("packet.bpf.c", "drop_event"),
    ("packet.bpf.c", "flow_key"),
    ("packet.bpf.c", "flow"),
    ("packet.bpf.c", "stream"),
    ("packet.bpf.c", "config"),
    ("connections.bpf.c", "row_key"),
    ("connections.bpf.c", "row"),
]
TYPES = "".join(
    f"typedef {kind} {name};\n"
    for name, kind in {
        "__u8": "unsigned char",
        "__u16": "unsigned short",
        "__u32": "unsigned int",
        "__u64": "unsigned long long",
        "__s32": "int",
        "__s64": "long long",
    }.items()
)


def declarations(file: str) -> str:
    """The `#define`s of numbers, the enums and the structs of a source and its header, and nothing else of them."""
    kept: list[str] = []
    for name in ("include/genainet.h", file):
        inside = False
        for line in (asset_dir("probes") / name).read_text().splitlines():
            starts = line.startswith("struct ") and line.endswith("{")
            inside = inside or starts
            words = line.split()
            number = len(words) > 2 and words[0] == "#define" and "(" not in words[1] and words[2].isdigit()
            if inside or number or (line.startswith("enum ") and "}" in line):
                kept.append(line)
            inside = inside and not line.startswith("};")
    return "\n".join(kept)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler to compare with")
@pytest.mark.parametrize(("file", "name"), STRUCTS)
def test_every_field_lies_where_the_compiler_puts_it(file: str, name: str, tmp_path: Path) -> None:
    ours = layout(file, name)
    fields = {member.name: member.offset for member in ours.members if "_" not in member.name}
    asserts = [f'_Static_assert(__builtin_offsetof(struct {name}, {f}) == {at}, "{f}");' for f, at in fields.items()]
    asserts.append(f'_Static_assert(sizeof(struct {name}) == {ours.size}, "size");')
    source = tmp_path / "layout.c"
    source.write_text("\n".join((TYPES, declarations(file), *asserts)))
    done = subprocess.run(["cc", "-fsyntax-only", str(source)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_a_struct_that_was_packed_is_read_back_by_name() -> None:
    sample = layout("drops.bpf.c", "sample")
    data = sample.pack(t_ns=7, key_t_dport=8080, device=b"eth0", depth=1)
    read = sample.read(data)
    assert (len(data), read.t_ns, read.key_t_dport, read.device.rstrip(b"\0"), read.depth) == (328, 7, 8080, b"eth0", 1)
    assert [r.t_ns for r in sample.read_all(data + data)] == [7, 7]
    assert sample.read(data[:100])._replace(key_reason=9).key_reason == 9 and sample.read(data[:100]).depth == 0
    assert sample.numbers("stack").unpack(read.stack) == (0,) * 20


def test_the_record_that_travels_to_clients_is_the_one_that_the_kernel_writes() -> None:
    """Its form is a part of the protocol, so it is declared there; it must be what this kernel's program writes."""
    event = layout("packet.bpf.c", "packet_event")
    kinds = enums("packet.bpf.c")["event_kind"]
    assert (event.size, event.offset("kind")) == (sightings.PACKET.size, sightings.KIND_AT)
    assert kinds["EVENT_PACKET"] == sightings.SIGHTING
    data = event.pack(**{name: bytes([number]) * 16 for number, name in enumerate(("t_saddr", "t_daddr", "device"), 1)})
    wide = {
        member.name: 2 ** (4 * struct.calcsize(f"={member.code}")) for member in event.members if member.code in "HIQ"
    }
    fields = [value for value in sightings.PACKET.unpack(event.pack(**wide)) if isinstance(value, int) and value]
    assert fields == list(wide.values())
    assert sightings.PACKET.unpack(data)[2:4] == (b"\1" * 16, b"\2" * 16)


def test_numbers_of_the_c_are_known_by_name() -> None:
    numbers = constants("dns.bpf.c")
    assert numbers["QUERY_BYTES"] + numbers["RESPONSE_BYTES"] == 800
    assert enums("drops.bpf.c")["kind"] == {f"KIND_{kind.name}": kind.value for kind in drops.Kind}


def test_what_is_not_there_or_can_not_be_told_is_an_error() -> None:
    with pytest.raises(LookupError, match="no struct nothing"):
        layout("dns.bpf.c", "nothing")
    with pytest.raises(LookupError):
        layout("packet.bpf.c", "sk_buff")
