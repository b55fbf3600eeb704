"""Where objects begin in the text that they were read from."""

from __future__ import annotations

import re
from functools import cached_property

_MARKER = re.compile(r"^---(\s|$)")
_NOTHING = re.compile(r"\s*(#.*)?$|%|---\s*(#.*)?$")


class Places:
    """The lines of a text's documents and of the objects in them; lines count from 1."""

    def __init__(self, text: str) -> None:
        self._lines = text.splitlines()

    @cached_property
    def _documents(self) -> list[tuple[int, int]]:
        """(first line with content, line after the last) of each YAML document, empty ones included."""
        starts = [i for i, line in enumerate(self._lines) if _MARKER.match(line)]
        if not starts or any(not _NOTHING.match(line) for line in self._lines[: starts[0]]):
            starts = [-1, *starts]
        ends = [*starts[1:], len(self._lines)]
        return [(self._content(max(start, 0), end), end) for start, end in zip(starts, ends, strict=True)]

    def _content(self, start: int, end: int) -> int:
        return next((i for i in range(start, end) if not _NOTHING.match(self._lines[i])), start) + 1

    def line(self, document: int, name: str) -> int:
        """Where an object of a document (from 1) begins: the document's own line, or, for an item of a list, the line of
        its name. 0 for a document that is not there."""
        if not 0 < document <= len(self._documents):
            return 0
        first, end = self._documents[document - 1]
        lines = self._lines[first - 1 : end]
        if not any(re.match(r"\s*\"?kind\"?:\s*\"?\w*List\"?", line) for line in lines[:200]):
            return first
        named = re.compile(rf"\s*(?:- )?\"?name\"?:\s*[\"']?{re.escape(name)}[\"']?\s*,?\s*$")
        return next((first + i for i, line in enumerate(lines) if named.match(line)), first)
