"""The elements of sets and maps of nft, from their words."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.proxy.nftables.language.grammar import Json, Tokens, literal, split, unquoted

VERDICTS = {"accept", "drop", "return", "continue"}


def verdict(reader: Tokens) -> Json:
    kind = reader.next()
    return {kind: {"target": unquoted(reader.next())}} if kind in ("jump", "goto") else {kind: None}


def elements_of(tokens: list[str]) -> list[Any]:
    """Elements between braces: keys, or [key, verdict or value] pairs, with their comments kept."""
    return [_element(part) for part in split(tokens, ",") if part]


def _element(tokens: list[str]) -> Any:
    key_words, *data = split(tokens, ":")
    comment = ""
    kept: list[str] = []
    reader = Tokens(key_words)
    while reader:
        if reader.peek() == "comment":
            reader.next()
            comment = unquoted(reader.next())
        elif reader.peek() == "counter":
            reader.position += 1
        elif reader.peek() in ("timeout", "expires", "packets", "bytes", "last", "limit", "quota", "used") and kept:
            reader.position += 2
        else:
            kept.append(reader.next())
    parts = [literal("".join(part)) for part in split(kept, ".")]
    key: Any = parts[0] if len(parts) == 1 else {"concat": parts}
    if comment:
        key = {"elem": {"val": key, "comment": comment}}
    if not data:
        return key
    value_words = data[0]
    if value_words and (value_words[0] in VERDICTS or value_words[0] in ("jump", "goto")):
        return [key, verdict(Tokens(value_words))]
    parts = [literal("".join(part)) for part in split(value_words, ".")]
    return [key, parts[0] if len(parts) == 1 else {"concat": parts}]
