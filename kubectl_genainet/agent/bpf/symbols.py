"""Names of kernel addresses, from /proc/kallsyms."""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from functools import cached_property, lru_cache
from pathlib import Path

_FUNCTION = re.compile(rb"^(\S{16}) [tTwW] (\S+)", re.MULTILINE)  # address and name
_FARTHEST = 1 << 20  # bytes from a symbol's start; beyond it the address is nobody's


class Symbols:
    """Functions of the kernel and its modules. Without the right to see addresses every answer is ""."""

    def __init__(self, kallsyms: Path = Path("/proc/kallsyms")) -> None:
        self._kallsyms = kallsyms

    @cached_property
    def _functions(self) -> tuple[array[int], list[bytes]]:
        try:
            functions = _FUNCTION.findall(self._kallsyms.read_bytes())
        except OSError:
            functions = []
        functions.sort()  # addresses of one width
        return array("Q", (int(address, 16) for address, _ in functions)), [name for _, name in functions]

    def read(self) -> None:
        """Reads them now, which takes a tenth of a second of CPU time, and not when the first name is asked for."""
        _ = self._functions

    def is_whole(self, function: str) -> bool:
        """Whether the kernel has the function once, and no copy of it that the compiler made for some of its callers
        (".isra.0", ".constprop.0", ".part.0"; what is ".cold" is jumped to from within)."""
        of_that_name = re.compile(rb"%b(\..*)?" % re.escape(function.encode()))
        named = [name for name in self._functions[1] if of_that_name.fullmatch(name) and b".cold" not in name]
        return named == [function.encode()]

    @lru_cache(maxsize=4096)  # noqa: B019 - one instance lives as long as the process
    def name(self, address: int) -> str:
        """The function that the address lies in; "" where none is known."""
        starts, names = self._functions
        index = bisect_right(starts, address) - 1
        if index < 0 or not starts[index] or address - starts[index] > _FARTHEST:
            return ""
        return names[index].decode(errors="replace")
