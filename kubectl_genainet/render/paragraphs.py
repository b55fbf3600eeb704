"""Paragraphs that keep their indentation where they wrap, and commands that can be pasted where they do."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.text import Text

from kubectl_genainet.render.text import HAS_COMMAND, printable

LEAST = 20  # columns of text, however narrow the terminal


@dataclass(frozen=True, slots=True)
class Fitted:
    """Lines that are made for the width that there is."""

    lines: Callable[[int], Iterable[RenderableType]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from self.lines(options.max_width)


def hanging(text: Text, width: int, *, indent: int = 0, hang: int = 0) -> Iterator[Text]:
    """`text` wrapped at words to `width`, `indent` blanks before each line and `hang` more before each but the first.

    Its first `hang` characters stand in that margin: a mark, a label, or the begin of the first word.
    """
    room = max(LEAST, width - indent)
    if cell_len(text.plain) <= room and "\n" not in text.plain:
        yield Text(" " * indent, no_wrap=True).append_text(text)
        return
    margin, body = text.divide([hang])
    for number, line in enumerate(body.wrap(Console(width=width), max(LEAST, room - hang))):
        line.rstrip()
        before = Text(" " * (indent + (hang if number else 0)), no_wrap=True)
        yield (before if number else before.append_text(margin)).append_text(line)


def print_prose(console: Console, text: Text, *, indent: int = 0) -> None:
    """Prints `text` wrapped at words, as wide as the console is; one with a command in it stays a line."""
    whole = HAS_COMMAND.search(text.plain) is not None
    lines = [Text(" " * indent).append_text(text)] if whole else hanging(text, console.width, indent=indent, hang=2)
    for line in lines:
        console.print(line, soft_wrap=True)


def command_lines(command: str, width: int, *, indent: int = 0, style: str = "cyan") -> Iterator[Text]:
    """A command of the shell: where it does not fit, its lines end with a backslash, so that it runs as it is printed."""
    try:
        tokens = [shlex.quote(token) for token in shlex.split(command)]
        commented = len(shlex.split(command, comments=True)) != len(tokens)
    except ValueError:  # a quotation that does not end
        tokens, commented = [], False
    plain = printable(command)
    if "\n" in command or any(c in command for c in "|<>;&$`") or commented or not tokens:
        yield _whole_line(" " * indent + plain, style)
        return
    line, lead = "", " " * indent
    for token in map(printable, tokens):
        if line and cell_len(f"{lead}{line} {token} \\") > width:
            yield _whole_line(f"{lead}{line} \\", style)
            line, lead = token, " " * (indent + 2)
        else:
            line = f"{line} {token}" if line else token
    yield _whole_line(f"{lead}{line}", style)


def _whole_line(text: str, style: str) -> Text:
    """A line that the terminal breaks where it must: what is copied from there is still one line."""
    return Text(text, style=style, no_wrap=True, overflow="ignore")
