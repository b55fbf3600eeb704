"""Compiled probes: what is put into their instructions when they are loaded."""

from __future__ import annotations

from kubectl_genainet.agent.bpf.image import INSN, loadable

_LD_IMM64, _CALL, _EXIT = 0x18, 0x85, 0x95
_TYPED = 0x74797065  # probes/include/genainet.h
_HELPER = 5


def test_maps_and_the_typed_cast_get_the_numbers_that_they_have_now() -> None:
    before = [
        (_LD_IMM64, 0x11, 0, 1),  # the second map
        (0, 0, 0, 0),
        (_LD_IMM64, 0x01, 0, 1),  # a number
        (0, 0, 0, 0),
        (_CALL, 0, 0, _TYPED),
        (_CALL, 0, 0, _HELPER),
        (_EXIT, 0, 0, 0),
    ]
    after = list(before)
    after[0] = (_LD_IMM64, 0x11, 0, 42)
    after[4] = (_CALL, 0x20, 0, 777)  # BPF_PSEUDO_KFUNC_CALL
    code = loadable(b"".join(INSN.pack(*line) for line in before), [41, 42], 777)
    assert list(INSN.iter_unpack(code)) == after
