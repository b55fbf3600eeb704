"""Programs of several probes on one tracepoint, joined to one.

A program that has nothing to do with a packet decides so in some 15 ns; that it is run at all takes more, however short it is.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import defaultdict
from collections.abc import Sequence

from kubectl_genainet.agent.bpf import syscalls as bpfsys
from kubectl_genainet.agent.bpf.loader import LoadedProbe

# struct bpf_insn: opcode; destination and, in the upper half, source register; offset; immediate
_INSN = struct.Struct("<BBhi")
_MOVE, _MOVE_IMMEDIATE, _CALL, _EXIT = 0xBF, 0xB7, 0x85, 0x95
_CONTEXT, _KEPT = 1, 6  # the register of the first argument, and one that a called function leaves as it is
_OTHER_FUNCTION = 1 << 4  # BPF_PSEUDO_CALL: the immediate is a distance in instructions, not a helper's number


def joined(programs: Sequence[bytes]) -> bytes:
    """A program that calls each of these with its own context, one after the other."""
    calls = 2 * len(programs) + 3  # instructions before the first of them
    code = [_INSN.pack(_MOVE, _KEPT | _CONTEXT << 4, 0, 0)]
    begin = calls
    for program in programs:
        code.append(_INSN.pack(_MOVE, _CONTEXT | _KEPT << 4, 0, 0))
        code.append(_INSN.pack(_CALL, _OTHER_FUNCTION, 0, begin - len(code) - 1))
        begin += len(program) // _INSN.size
    code += [_INSN.pack(_MOVE_IMMEDIATE, 0, 0, 0), _INSN.pack(_EXIT, 0, 0, 0)]
    return b"".join((*code, *programs))


def attach_all(probes: Sequence[LoadedProbe]) -> None:
    """Attaches the probes; where several have a program on one tracepoint, one runs them all. Raises GenainetError."""
    programs = defaultdict[str, list[tuple[LoadedProbe, bytes]]](list)
    for probe in probes:
        for tracepoint, code in probe.joinable.items():
            programs[tracepoint].append((probe, code))
    for tracepoint, parts in programs.items():
        if len(parts) > 1:
            # Where the kernel refuses, each is attached by itself, or says what is missing.
            with contextlib.suppress(OSError):
                _attach_together(tracepoint, parts)
    for probe in probes:
        probe.attach()


def _attach_together(tracepoint: str, parts: Sequence[tuple[LoadedProbe, bytes]]) -> None:
    code = joined([code for _, code in parts])
    program = bpfsys.load_program(code, tracepoint, bpfsys.RAW_TRACEPOINT)
    try:
        link = bpfsys.attach_raw_tracepoint(program, tracepoint)
        for probe, _ in parts:
            probe.join(tracepoint, os.dup(program), os.dup(link))
        os.close(link)
    finally:
        os.close(program)
