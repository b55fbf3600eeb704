"""Names of kernel addresses, from /proc/kallsyms, read when the first is asked for."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from functools import cached_property, lru_cache
from pathlib import Path

_TEXT = frozenset(b"tTwW")
_FARTHEST = 1 << 20  # bytes from a symbol's start; beyond it the address is nobody's


class Symbols:
    """Functions of the kernel and its modules. Without the right to see addresses every answer is ""."""

    @cached_property
    def _table(self) -> tuple[array[int], list[bytes]]:
        symbols = []
        try:
            lines = Path("/proc/kallsyms").read_bytes().splitlines()
        except OSError:
            lines = []
        for line in lines:
            address, kind, name = line.split(None, 3)[:3]
            if kind[0] in _TEXT:
                symbols.append((int(address, 16), name))
        symbols.sort()
        return array("Q", (address for address, _ in symbols)), [name for _, name in symbols]

    @lru_cache(maxsize=4096)  # noqa: B019 - one instance lives as long as the process
    def name(self, address: int) -> str:
        """The function that the address lies in; "" where none is known."""
        starts, names = self._table
        index = bisect_right(starts, address) - 1
        if index < 0 or not starts[index] or address - starts[index] > _FARTHEST:
            return ""
        return names[index].decode(errors="replace")
