"""Type information out of a kernel's image, as scripts/kernels.sh takes it."""

from __future__ import annotations

import lzma
import struct

import pytest

from tests.vmlinux import type_information

BTF = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 4, 4, 3) + b"TYPE" + b"\0a\0"


def arm64(*parts: bytes) -> bytes:
    """An image of memory (Documentation/arm64/booting.rst) with these parts in it."""
    return b"MZ".ljust(56, b"\0") + b"ARM\x64" + bytes(4) + b"code".join(parts) + b"more code"


def elf(content: bytes) -> bytes:
    """The smallest file that has a section .BTF, and the section of names."""
    names = b"\0.BTF\0.names\0"
    at = 64 + len(names)
    headers = [(0, 0, 0, 0, 0, 0), (1, 1, 0, 0, at, len(content)), (6, 3, 0, 0, 64, len(names))]
    header = b"\x7fELF".ljust(40, b"\0") + struct.pack("<Q", at + len(content))
    header = header.ljust(58, b"\0") + struct.pack("<HHH", 64, len(headers), 2)
    return header + names + content + b"".join(struct.pack("<IIQQQQ", *h).ljust(64, b"\0") for h in headers)


def test_an_image_of_memory_has_its_type_information_behind_its_header() -> None:
    assert type_information(arm64(b"code", BTF)) == BTF


def test_a_compressed_elf_file_has_it_in_its_section() -> None:
    assert type_information(b"boot code" + lzma.compress(elf(BTF)) + b"end") == BTF


@pytest.mark.parametrize("parts", [(b"code",), (BTF, BTF)], ids=["none", "two"])
def test_an_image_without_one_of_it_is_refused(parts: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="no type information in it, or more than one"):
        type_information(arm64(*parts))
