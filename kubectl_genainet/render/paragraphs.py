"""Paragraphs that keep their indentation where they wrap, and commands that can be pasted where they do."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from kubectl_genainet.render.text import printable

LEAST = 20  # columns of text, however narrow the terminal


def hanging(text: Text, width: int, *, indent: int = 0, hang: int = 0) -> Iterator[Text]:
    """`text` wrapped at words to `width`, `indent` blanks before each line and `hang` more before each but the first."""
    room = max(LEAST, width - indent)
    if cell_len(text.plain) <= room and "\n" not in text.plain:
        yield Text(" " * indent, no_wrap=True).append_text(text)
        return
    for number, line in enumerate(text.wrap(Console(width=width), max(LEAST, room - hang))):
        line.rstrip()
        yield Text(" " * (indent + (hang if number else 0)), no_wrap=True).append_text(line)


def command_lines(command: str, width: int, *, indent: int = 0, style: str = "cyan") -> Iterator[Text]:
    """A command of the shell: where it does not fit, its lines end with a backslash, so that it runs as it is printed."""
    try:
        tokens = [shlex.quote(token) for token in shlex.split(command)]
    except ValueError:  # a quotation that does not end
        tokens = []
    plain = printable(command)
    if "\n" in command or any(c in command for c in "|<>;&$`") or not tokens:
        yield Text(" " * indent + plain, style=style, overflow="fold")
        return
    line, lead = "", " " * indent
    for token in map(printable, tokens):
        if line and cell_len(f"{lead}{line} {token} \\") > width:
            yield Text(f"{lead}{line} \\", style=style, overflow="fold")
            line, lead = token, " " * (indent + 2)
        else:
            line = f"{line} {token}" if line else token
    yield Text(f"{lead}{line}", style=style, overflow="fold")
