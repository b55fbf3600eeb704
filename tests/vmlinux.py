"""Type information of a kernel that does not run: its section .BTF, out of the compressed kernel in a vmlinuz.

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


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(section(vmlinux(Path(sys.argv[1]).read_bytes()), ".BTF"))
