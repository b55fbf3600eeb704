"""Type information of a kernel that does not run: its section .BTF, out of a vmlinuz.

An x86-64 kernel is an ELF file, compressed. An arm64 kernel is an image of memory, where only the section's own header marks it.

python -m tests.vmlinux VMLINUZ TARGET
"""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
import sys
import zlib
from pathlib import Path

_ELF = b"\x7fELF"
_ARM64_MAGIC = slice(56, 60), b"ARM\x64"  # Documentation/arm64/booting.rst
_BTF_HEADER = struct.Struct("<HBBIIIII")  # btf_header
_BTF_BEGINS = bytes.fromhex("9feb 01 00 18000000")  # its magic, version, flags and length


def _unxz(data: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(data)


def _gunzip(data: bytes) -> bytes:
    return zlib.decompressobj(31).decompress(data)


def _unzstd(data: bytes) -> bytes:
    """What follows the frame is no error of ours; the tool says so after it has written everything."""
    zstd = shutil.which("zstd")
    if zstd is None:
        raise RuntimeError("this kernel is compressed with zstd, which is not installed")
    return subprocess.run([zstd, "-dc"], input=data, capture_output=True, check=False).stdout


_PAYLOADS = {b"\xfd7zXZ\0": _unxz, b"\x1f\x8b\x08": _gunzip, b"\x28\xb5\x2f\xfd": _unzstd}


def vmlinux(image: bytes) -> bytes:
    """The ELF file in a vmlinuz. Raises ValueError where it has none that this reads."""
    for magic, decompress in _PAYLOADS.items():
        at = image.find(magic)
        while at >= 0:
            try:
                data = decompress(image[at:])
            except (lzma.LZMAError, zlib.error):
                data = b""
            if data.startswith(_ELF):
                return data
            at = image.find(magic, at + 1)
    raise ValueError("no kernel compressed with xz, gzip or zstd in it")


def section(elf: bytes, name: str) -> bytes:
    """A section of a 64-bit little-endian ELF file, as elf(5) describes it."""
    table, size, count, strings = (
        struct.unpack_from("<Q", elf, 40)[0],
        *struct.unpack_from("<HHH", elf, 58),
    )
    headers = [struct.unpack_from("<IIQQQQ", elf, table + size * i) for i in range(count)]
    names = headers[strings][4]
    for name_at, _, _, _, offset, length in headers:
        start = names + name_at
        if elf[start : elf.index(b"\0", start)].decode() == name:
            return elf[offset : offset + length]
    raise ValueError(f"no section {name}")


def btf_in_memory(image: bytes) -> bytes:
    """The type information in an image of memory, found by its header."""
    at = image.find(_BTF_BEGINS)
    if at < 0 or image.find(_BTF_BEGINS, at + 1) >= 0:
        raise ValueError("no type information in it, or more than one")
    *_, length, _, _, strings, strings_length = _BTF_HEADER.unpack_from(image, at)
    return image[at : at + length + strings + strings_length]


def type_information(image: bytes) -> bytes:
    place, magic = _ARM64_MAGIC
    return btf_in_memory(image) if image[place] == magic else section(vmlinux(image), ".BTF")


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(type_information(Path(sys.argv[1]).read_bytes()))
