"""The words of one nft rule, or of a set's elements, as JSON expressions (a hand-written descent, nft(8))."""

from __future__ import annotations

import re

from kubectl_genainet.proxy.nftables.language.elements import VERDICTS, verdict
from kubectl_genainet.proxy.nftables.language.expressions import expression, relation, set_statement
from kubectl_genainet.proxy.nftables.language.grammar import STARTS, Json, Tokens, tokens_of, unquoted
from kubectl_genainet.proxy.nftables.language.statements import STATEMENTS

_INLINE = re.compile(r"^\s*(jump|goto)\s*\{")


def parse_rule(tokens: list[str]) -> tuple[list[Json], str]:
    """The expressions of a rule and its comment. What is not understood becomes `{"unread": words}`."""
    reader, comment = Tokens(tokens), ""
    statements: list[Json] = []
    while reader:
        if reader.take("comment"):
            comment = unquoted(reader.next())
            continue
        start = reader.position
        if statements and _ends_rule(
            statements[-1]
        ):  # nft takes no such rule: lines of a listing stand on one line here
            return [*statements, {"unread": " ".join(tokens[start:])}], comment
        try:
            parsed = _statement(reader)
        except (ValueError, IndexError, TypeError, RecursionError):
            parsed, reader.position = None, start
        if reader.position == start:  # nothing was understood: name it, and go on where a statement begins
            reader.position += 1
            while reader and reader.peek() not in STARTS:
                reader.position += 1
            statements.append({"unread": " ".join(tokens[start : reader.position])})
        elif parsed is not None:
            statements.append(parsed)
    return statements, comment


def _ends_rule(statement: Json) -> bool:
    return any(verdict in statement for verdict in (*VERDICTS - {"continue"}, "jump", "goto"))


def _statement(reader: Tokens) -> Json | None:
    word = reader.peek()
    if word in ("jump", "goto") and reader.peek(1) == "{":
        reader.next()
        return {word: {"target": "", "rules": rules_of(reader.block())}}
    if word in VERDICTS or word in ("jump", "goto"):
        return verdict(reader)
    build = STATEMENTS.get(word)
    if build is not None:
        reader.next()
        built: Json = build(reader)
        return built
    if word == "tcp" and reader.peek(1) == "option":
        return _tcp_option(reader)
    if word == "ct" and reader.peek(1) == "count":
        reader.position += 2
        inverted = reader.take("over")
        return {"ct count": {"val": int(reader.next()), "inv": inverted}}
    if word in ("meta", "ct") and "set" in (reader.peek(2), reader.peek(3)):
        return set_statement(reader)
    left = expression(reader)
    return None if left is None else relation(reader, left)


def _tcp_option(reader: Tokens) -> Json:
    start = reader.position
    reader.position += 2
    while reader and reader.peek() not in STARTS:
        reader.position += 1
    changes = reader.take("set")
    while changes and reader and reader.peek() not in STARTS:
        reader.position += 1
    text = " ".join(reader.tokens[start : reader.position])
    return {"tcp option": text} if changes else {"unread": text}


def rules_of(body: list[str]) -> list[Json]:
    """The rules of a chain without a name."""
    rules = []
    for statement in statements(body):
        expressions, comment = parse_rule(statement)
        rules.append({"expr": expressions, "text": " ".join(statement), "comment": comment})
    return rules


def statements(body: list[str]) -> list[list[str]]:
    """The statements of a block: ended by a newline or a semicolon outside of braces."""
    depth = 0
    complete: list[list[str]] = []
    current: list[str] = []
    for token in body:
        depth += (token == "{") - (token == "}")
        if depth == 0 and token in ("\n", ";"):
            complete.append(current)
            current = []
        elif token != "\n" or depth:
            current.append(token)
    return [statement for statement in (*complete, current) if statement]


def inline_chain(text: str) -> Json | None:
    """`jump { … }` as text, which libnftables puts among JSON expressions, as an expression."""
    match = _INLINE.match(text)
    if match is None:
        return None
    body = tokens_of(text[match.end() :])
    while body and body[-1] in ("\n", "}"):
        body.pop()
    return {match.group(1): {"target": "", "rules": rules_of(body)}}
