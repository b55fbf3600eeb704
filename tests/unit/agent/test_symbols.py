"""What /proc/kallsyms says of a kernel's functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.agent.bpf.symbols import Symbols

SENDS = "ffffffff81a00000 t tcp_v4_send_reset\n"
OTHERS = "ffffffff81900000 T tcp_v4_send_check\nffffffff819ffff0 t __pfx_tcp_v4_send_reset\n"


@pytest.mark.parametrize(
    ("lines", "whole"),
    [
        (OTHERS + SENDS, True),
        (SENDS + "ffffffff81f00000 t tcp_v4_send_reset.cold\n", True),
        ("ffffffffc0a00000 t tcp_v4_send_reset\t[ipv4]\n", True),
        (SENDS.replace("ffffffff81a00000", "0" * 16), True),  # kernel.kptr_restrict: the names are there
        (OTHERS, False),
        (SENDS.replace("\n", ".isra.0\n"), False),
        (SENDS + "ffffffff81b00000 t tcp_v4_send_reset.constprop.0\n", False),
        (SENDS + "ffffffff81b00000 t tcp_v4_send_reset.part.3\n", False),
        (SENDS + SENDS.replace("a00000", "b00000"), False),
    ],
    ids=["alone", "cold", "module", "no addresses", "not there", "renamed", "a copy", "a part", "twice"],
)
def test_function_is_whole_where_every_caller_calls_it_by_its_name(tmp_path: Path, lines: str, whole: bool) -> None:
    (tmp_path / "kallsyms").write_text(lines)
    assert Symbols(tmp_path / "kallsyms").is_whole("tcp_v4_send_reset") is whole


def test_address_is_the_function_that_it_lies_in(tmp_path: Path) -> None:
    (tmp_path / "kallsyms").write_text(OTHERS + SENDS)
    symbols = Symbols(tmp_path / "kallsyms")
    assert symbols.name(0xFFFFFFFF81A00010) == "tcp_v4_send_reset"
    assert symbols.name(0xFFFFFFFF90000000) == symbols.name(0x1000) == ""


def test_kernel_that_shows_no_symbols_has_no_names(tmp_path: Path) -> None:
    symbols = Symbols(tmp_path / "none")
    assert (symbols.name(0xFFFFFFFF81A00010), symbols.is_whole("tcp_v4_send_reset")) == ("", False)
