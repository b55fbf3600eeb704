"""Small BPF programs that drop what goes to one port, as an eBPF data plane would, put on a device of a lab's node.

Written as instructions: no compiler is needed. Encoding: include/uapi/linux/bpf.h; the packet is IPv4 without options.
"""

from __future__ import annotations

import ctypes
import os
import platform
import socket
import struct

from pyroute2 import IPRoute

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _SCHED_CLS, _XDP = 5, 3, 6
_DPORT = 14 + 20 + 2  # Ethernet, IPv4
_XDP_FLAGS_SKB_MODE = 2
INGRESS, EGRESS = "ffff:fff2", "ffff:fff3"
_libc = ctypes.CDLL(None, use_errno=True)


def _insn(code: int, dst: int = 0, src: int = 0, off: int = 0, imm: int = 0) -> bytes:
    return struct.pack("=BBhi", code, dst | src << 4, off, imm)


def _load(kind: int, *instructions: bytes) -> int:
    code = ctypes.create_string_buffer(b"".join(instructions))
    licence = ctypes.create_string_buffer(b"GPL")
    attr = ctypes.create_string_buffer(
        struct.pack("=IIQQ", kind, len(instructions), ctypes.addressof(code), ctypes.addressof(licence)), 48
    )
    fd: int = _libc.syscall(_SYSCALL[platform.machine()], _PROG_LOAD, attr, 48)
    if fd < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "BPF_PROG_LOAD")
    return fd


def drop_at_tc(ipr: IPRoute, index: int, parent: str, port: int) -> None:
    """A classifier with direct action in clsact, on the device's way in or out. The qdisc holds the program."""
    fd = _load(
        _SCHED_CLS,
        _insn(0xBF, 6, 1),  # r6 = ctx
        _insn(0x28, imm=_DPORT),  # r0 = half word of the packet, host byte order
        _insn(0x55, 0, off=2, imm=port),  # if r0 != port goto pass
        _insn(0xB7, 0, imm=2),
        _insn(0x95),  # return TC_ACT_SHOT
        _insn(0xB7, 0, imm=-1),
        _insn(0x95),  # pass: return TC_ACT_UNSPEC
    )
    try:
        ipr.tc("add", "clsact", index=index)
        ipr.tc("add-filter", "bpf", index=index, fd=fd, name="drop", parent=parent, classid=1, direct_action=True)
    finally:
        os.close(fd)


def drop_at_xdp(ipr: IPRoute, index: int, port: int) -> None:
    """A generic XDP program. The device holds it."""
    fd = _load(
        _XDP,
        _insn(0x61, 2, 1, 0),
        _insn(0x61, 3, 1, 4),  # r2, r3 = data, data_end
        _insn(0xBF, 4, 2),
        _insn(0x07, 4, imm=_DPORT + 2),
        _insn(0x2D, 4, 3, off=4),  # if r2 + 38 > r3 goto pass
        _insn(0x69, 5, 2, _DPORT),
        _insn(0x55, 5, off=2, imm=socket.htons(port)),
        _insn(0xB7, 0, imm=1),
        _insn(0x95),  # return XDP_DROP
        _insn(0xB7, 0, imm=2),
        _insn(0x95),  # pass: return XDP_PASS
    )
    try:
        attributes = [("IFLA_XDP_FD", fd), ("IFLA_XDP_FLAGS", _XDP_FLAGS_SKB_MODE)]
        ipr.link("set", index=index, IFLA_XDP={"attrs": attributes})
    finally:
        os.close(fd)
