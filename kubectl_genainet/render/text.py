"""Text that is safe and fits: escaping of hostile strings, the console, units."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
import textwrap
import unicodedata
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console
from rich.markup import escape

from kubectl_genainet.model.finding import Certainty, Severity

CERTAINTY_STYLE = {
    Certainty.OBSERVED: "green",
    Certainty.DERIVED: "cyan",
    Certainty.ASSUMED: "yellow",
    Certainty.UNKNOWN: "dim",
}
PIPE_WIDTH = 10_000  # of a pipe: nothing is folded
# Text with a command in it is not wrapped: the terminal breaks it where it must, and what is copied from there runs.
HAS_COMMAND = re.compile(r"`|\b(?:kubectl|helm) ")
SEVERITY_STYLE = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.INFO: "blue"}


def printable(text: str) -> str:
    """`text` with control, format and bidi characters made visible (\\x1b): it may come from a pod or from DNS."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        c if unicodedata.category(c)[0] not in "CZ" or c == " " else c.encode("unicode_escape").decode() for c in text
    )


def tell(*lines: str) -> None:
    """Lines for a person, on stderr: what a name brought along does nothing to the terminal, and begins no line. Where stderr
    can't be written the exit status still says how the command ended."""
    with contextlib.suppress(OSError):
        print("\n".join(_lines_told(map(printable, lines))), file=sys.stderr)


def _lines_told(lines: Iterable[str]) -> Iterable[str]:
    """In a terminal, lines are wrapped at words; the further ones of each are indented by two more."""
    try:
        width = os.get_terminal_size(sys.stderr.fileno()).columns if sys.stderr.isatty() else 0
    except (OSError, ValueError):
        width = 0
    for line in lines:
        if not width or HAS_COMMAND.search(line):
            yield line
            continue
        margin = " " * (len(line) - len(line.lstrip()) + 2)
        wrapped = textwrap.wrap(line, width, subsequent_indent=margin, break_long_words=False, break_on_hyphens=False)
        yield from wrapped or [""]


def markup_safe(text: str) -> str:
    """`printable`, and with rich's own markup escaped: for strings put between [style] tags."""
    return escape(printable(text))


class _Console(Console):
    """Prints lines that are wider than the terminal whole: half a command can't be run, and half a name is none."""

    def print(self, *objects: Any, crop: bool = False, **options: Any) -> None:
        super().print(*objects, crop=crop, **options)

    def on_broken_pipe(self) -> None:
        """rich would end the program with 1: what a reader that has gone means is the command line's to say."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def make_console(file: IO[str] | None = None, *, stderr: bool = False) -> Console:
    """A console that respects NO_COLOR, the terminal's width and pipes; in a pipe lines stay whole, unless COLUMNS says how
    wide they may be."""
    console = _Console(file=file, stderr=stderr, highlight=False, soft_wrap=False, emoji=False)
    if not console.is_terminal:
        width = console.width if os.environ.get("COLUMNS") else PIPE_WIDTH
        console = _Console(
            file=file,
            stderr=stderr,
            highlight=False,
            emoji=False,
            width=width,
            no_color=True,
            force_terminal=False,
        )
    return console


def moment(time: str, *, whole: bool = True) -> str:
    """The time of day of an RFC 3339 time, in UTC: 21:40:05Z, or to the millisecond; "" for ""."""
    if not time:
        return ""
    clock = time.partition("T")[2].rstrip("Z")
    return f"{clock[:8]}Z" if whole else f"{clock[:12]}Z"


def duration(ns: float | None) -> str:
    """Nanoseconds as a person reads them: 830 ns, 12.4 µs, 3.1 ms, 5.00 s; "?" for None."""
    if ns is None:
        return "?"
    for unit, size in (("s", 1e9), ("ms", 1e6), ("µs", 1e3)):
        if abs(ns) >= size:
            return f"{ns / size:.2f} {unit}" if unit == "s" else f"{ns / size:.1f} {unit}"
    return f"{ns:.0f} ns"
