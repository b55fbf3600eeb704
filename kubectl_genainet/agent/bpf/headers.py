"""Writes the headers that BCC compiles the probes against, from the node's own BTF.

No kernel headers are installed and none is needed. A probe names the fields it reads as `StructView`s; each becomes one C
struct, read with one helper call where its fields lie close together. See docs/adr/0001-views-instead-of-vmlinux.md.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from kubectl_genainet.agent.bpf.btf import Btf, StructMember
from kubectl_genainet.errors import DECODE_ERRORS, GenainetError

_TYPES = {1: "__u8", 2: "__u16", 4: "__u32", 8: "__u64"}
_MAX_SPAN = 128  # bytes of the BPF stack, which has 512, that one read may take


@dataclass(frozen=True, slots=True)
class StructView:
    """Fields of one kernel struct that are read together. Paths may go through embedded structs ("nd_net.net").

    An `optional` view is left out where the kernel lacks a field of it; where it is there, HAS_<name> is defined.
    """

    name: str
    struct: str
    fields: tuple[str, ...]
    optional: bool = False


def _loads(name: str, field: StructMember) -> list[str]:
    """The typed loads of a field: one, or those of its parts, each as wide as fits."""
    lines, done = [], 0
    while done < field.size:
        size = next(s for s in (8, 4, 2, 1) if s <= field.size - done)
        to = f"to->{name}" if field.size in _TYPES else f"*({_TYPES[size]} *)(to->{name} + {done})"
        lines.append(f"\tTYPED_LOAD({to}, {size * 8}, from, {field.offset + done});")
        done += size
    return lines


def _reads(placed: Sequence[tuple[str, StructMember]]) -> list[list[tuple[str, StructMember]]]:
    """The fields of a view, in order, in as few reads as the BPF stack allows."""
    reads: list[list[tuple[str, StructMember]]] = []
    for path, field in placed:
        if not reads or field.offset + field.size - (reads[-1][0][1].offset & ~7) > _MAX_SPAN:
            reads.append([])
        reads[-1].append((path, field))
    return reads


def view_source(view: StructView, fields: dict[str, StructMember], type_id: int) -> str:
    """The C struct of a view and the function that loads it. Fields become unsigned integers of their size, or byte
    arrays. `type_id` is the kernel struct's in BTF.

    Fields that are read together keep their true distances. Those that lie far apart are read one after the other, as
    net_device's are before Linux 6.8.
    """
    members, copies, loads, filled = [], [], [], 0
    for read in _reads(sorted(fields.items(), key=lambda item: item[1].offset)):
        start = position = read[0][1].offset & ~7
        first = filled
        for path, field in read:
            if field.offset > position:
                members.append(f"\t__u8 gap_{position}[{field.offset - position}];")
            name = path.replace(".", "_")
            members.append(
                f"\t{_TYPES[field.size]} {name};" if field.size in _TYPES else f"\t__u8 {name}[{field.size}];"
            )
            position = field.offset + field.size
            loads += _loads(name, field)
        size = position - start
        copies.append(f"\tbpf_probe_read_kernel((__u8 *)to + {first}, {size}, (void *)base + {start});")
        filled = -(-(first + size) // 8) * 8
        if filled > first + size:
            members.append(f"\t__u8 end_{position}[{filled - first - size}];")
    return "\n".join(
        [
            f"struct {view.name} {{",
            *members,
            "} __attribute__((packed, aligned(8)));",
            f"static __always_inline void load_{view.name}(struct {view.name} *to, __u64 base)",
            "{",
            "#ifdef TYPED_LOADS",
            f"\t__u64 from = TYPED(base, {type_id});",
            *loads,
            "#else",
            *copies,
            "#endif",
            "}",
            "",
        ]
    )


def resolve(views: Sequence[StructView], btf: Btf) -> dict[str, dict[str, StructMember]]:
    """Where each view's fields lie on this kernel; optional views that it can't give are missing. Raises GenainetError naming
    the field that it lacks."""
    fields: dict[str, dict[str, StructMember]] = {}
    for view in views:
        if view.optional and any(btf.field(view.struct, path) is None for path in view.fields):
            continue
        fields[view.name] = {}
        for path in view.fields:
            field = btf.field(view.struct, path)
            if field is None:
                raise GenainetError(
                    f"this kernel ({platform.release()}) has no {view.struct}.{path}, which the probes read",
                    hint="Please report the kernel's version: the probe needs another way there.",
                )
            fields[view.name][path] = field
    return fields


# What BCC's own prelude includes; its copy of uapi/linux/bpf.h needs no more than the integer types.
_FIXED = {
    "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "include/linux/types.h": """#pragma once
typedef unsigned char __u8; typedef signed char __s8; typedef unsigned short __u16; typedef short __s16;
typedef unsigned int __u32; typedef int __s32; typedef unsigned long long __u64; typedef long long __s64;
typedef __u8 u8; typedef __s8 s8; typedef __u16 u16; typedef __s16 s16; typedef __u32 u32; typedef __s32 s32;
typedef __u64 u64; typedef __s64 s64; typedef __u16 __be16; typedef __u32 __be32; typedef __u64 __be64;
typedef __u16 __le16; typedef __u32 __le32; typedef __u64 __le64; typedef __u16 __sum16; typedef __u32 __wsum;
typedef _Bool bool; typedef unsigned long size_t; typedef unsigned long uintptr_t; typedef int pid_t;
#define __aligned_u64 __u64 __attribute__((aligned(8)))
#define true 1
#define false 0
#define NULL ((void *)0)
""",
    "include/linux/log2.h": "#define roundup_pow_of_two(n) (n)\n",
    "include/asm/page.h": "#define PAGE_SHIFT 12\n#define PAGE_SIZE 4096\n",
    "include/linux/bpf_common.h": "#pragma once\n",
    **{
        f"include/{name}": ""
        for name in (
            "linux/bpf.h",
            "linux/compiler.h",
            "uapi/linux/bpf.h",
            "uapi/linux/types.h",
            "uapi/linux/if_packet.h",
            "uapi/linux/ptrace.h",
        )
    },
}


def _kernel_arch() -> str:
    machine = platform.machine()
    return {"x86_64": "x86", "aarch64": "arm64"}.get(machine, machine)


def _version_header() -> str:
    numbers = [
        int("".join(c for c in part if c.isdigit()) or 0) for part in platform.release().split("-")[0].split(".")
    ]
    major, minor, patch = (*numbers, 0, 0, 0)[:3]
    code = (major << 16) + (minor << 8) + min(patch, 255)
    return (
        f"#define LINUX_VERSION_CODE {code}\n"
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + ((c) > 255 ? 255 : (c)))\n"
    )


_FORMAT = 3  # of what kernel_facts stores
SUBSYSTEMS = 1 << 40  # added to the number of a subsystem in `KernelFacts.drop_reasons`


class KernelFacts(msgspec.Struct, frozen=True):
    """What is read from BTF once and kept: the source of "views.h", names of enums' values, arguments of tracepoints.

    `drop_reasons` has the core's reasons by number, and the names of subsystems with reasons of their own at
    SUBSYSTEMS + number. `typed_cast` is the BTF id of bpf_rdonly_cast (Linux 6.2), 0 where the kernel has none.
    `tracepoints` has the number of a tracepoint's arguments; those that BTF does not know (a
    module's) are missing.
    """

    views: str
    typed_cast: int
    drop_reasons: dict[int, str]
    enums: dict[str, dict[int, str]] = {}
    tracepoints: dict[str, int] = {}


def read_facts(
    btf: Btf, views: Sequence[StructView], enums: Sequence[str] = (), tracepoints: Sequence[str] = ()
) -> KernelFacts:
    """The facts of the kernel whose types these are. Raises GenainetError naming a field that it lacks."""
    places = resolve(views, btf)
    arguments = {name: btf.tracepoint_arguments(name) for name in tracepoints}
    return KernelFacts(
        views="\n".join(
            [
                f"#define BTF_in6_addr {btf.struct_id('in6_addr') or 0}",
                *(f"#define HAS_{v.name} 1" for v in views if v.optional and v.name in places),
                *(view_source(v, places[v.name], btf.struct_id(v.struct) or 0) for v in views if v.name in places),
            ]
        ),
        typed_cast=btf.function_id("bpf_rdonly_cast") or 0,
        drop_reasons={
            **btf.enum("skb_drop_reason"),
            **{SUBSYSTEMS + number: name for number, name in btf.enum("skb_drop_reason_subsys").items()},
        },
        enums={name: btf.enum(name) for name in enums},
        tracepoints={name: count for name, count in arguments.items() if count is not None},
    )


def kernel_facts(
    views: Sequence[StructView], cache: Path, enums: Sequence[str] = (), tracepoints: Sequence[str] = ()
) -> KernelFacts:
    """The facts of the running kernel, from `cache` where another process has read them already.

    Reading BTF takes tens of milliseconds. The cache's key holds everything that the result depends on.
    """
    key = hashlib.sha256(
        repr((_FORMAT, platform.release(), platform.version(), tuple(views), tuple(enums), tuple(tracepoints))).encode()
    ).hexdigest()[:16]
    stored = cache / f"kernel-{key}.json"
    try:
        return msgspec.json.decode(stored.read_bytes(), type=KernelFacts)
    except (OSError, *DECODE_ERRORS):
        pass
    facts = read_facts(Btf(), views, enums, tracepoints)
    write_file(stored, msgspec.json.encode(facts))
    return facts


def header_tree(facts: KernelFacts, cache: Path) -> Path:
    """Writes the header tree below `cache` and returns its root: the value for BCC_KERNEL_SOURCE."""
    if sys.byteorder != "little":
        raise GenainetError("the probes are written for little-endian machines (amd64, arm64)")
    files = {**_FIXED, "include/linux/version.h": _version_header(), "include/views.h": facts.views}
    root = cache / f"headers-{hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()[:16]}"
    for name, text in files.items():
        path = root / name
        if not path.exists():
            write_file(path, text.encode())
    arch = root / "arch" / _kernel_arch() / "include" / "asm" / "page.h"
    if not arch.exists():
        write_file(arch, _FIXED["include/asm/page.h"].encode())
    return root


def write_file(path: Path, data: bytes) -> None:
    """Writes a file whole or not at all: several agents may share the cache."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    part.write_bytes(data)
    part.replace(path)
