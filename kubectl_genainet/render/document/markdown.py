"""A document as Markdown, for a ticket or a chat."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.render.document.model import Card, Document
from kubectl_genainet.render.text import printable

_LINK = re.compile(
    r"(?i)(?<![a-z0-9])(www|https?|ftp|mailto|xmpp)([.:])"
)  # what GitHub makes links of without being asked
# What forges and chats make a mention or a reference of; they look for it in the text that Markdown has become, so that a
# backslash does not help.
_MENTION = re.compile(r"@(?=[A-Za-z0-9])|#(?=[0-9])")
_WORD_JOINER = "\u2060"  # has no width, and breaks no line


def markdown(document: Document) -> Iterator[str]:
    """Its lines."""
    yield f"# {markdown_text(document.headline)}"
    for number, card in enumerate(document.cards, 1):
        yield from _card(number, card)
    if not document.cards:
        yield from ("", markdown_text(document.nothing))
    for table in document.tables:
        if table.rows:
            yield from ("", f"## {markdown_text(table.title)}", "")
            yield f"| {' | '.join(map(markdown_text, table.columns))} |"
            yield f"{'|---' * len(table.columns)}|"
            yield from (f"| {' | '.join(map(markdown_text, row))} |" for row in table.rows)
    if document.notes or document.commands:
        yield ""
    yield from (f"- {markdown_text(note)}" for note in document.notes)
    yield from (f"- next: {_code(command)}" for command in document.commands)


def _card(number: int, card: Card) -> Iterator[str]:
    yield from ("", f"## {number}. {markdown_text(card.title)}", "")
    if card.who:
        yield from (markdown_text(card.who), "")
    yield from (f"- {markdown_text(e.statement)} *[{e.certainty.value}]*" for e in card.evidence)
    yield from (f"- {markdown_text(text)}" for text in card.also)
    if card.way:
        steps = " → ".join(f"{step.name} ({step.detail})" if step.detail else step.name for step in card.way)
        yield f"- for example: {markdown_text(steps)}"
    if card.remedy is not None:
        yield from ("", f"**Do:** {markdown_text(card.remedy.text)}")
        for language, text in (("sh", card.remedy.command), ("yaml", card.remedy.yaml)):
            if text:
                yield from ("", f"```{language}", printable_block(text), "```")


def _code(text: str) -> str:
    """A span of code, whatever backticks a name brought along."""
    shown = printable(text)
    fence = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    return f"{fence}{shown}{fence}" if len(fence) == 1 else f"{fence} {shown} {fence}"


def printable_block(text: str) -> str:
    return "\n".join(printable(line).replace("```", "'''") for line in text.splitlines())


def markdown_text(text: str) -> str:
    """A sentence as Markdown text: what would be markup, a link or somebody's name is escaped."""
    plain = _MENTION.sub(lambda sign: sign[0] + _WORD_JOINER, printable(text))
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#&~$" else c for c in plain)
    return _LINK.sub(lambda link: f"{link[1]}\\{link[2]}", escaped)
