"""NAT statements of nft's language: dnat, snat, redirect and masquerade with where they translate to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubectl_genainet.proxy.nftables.language.expressions import expression, right_side
from kubectl_genainet.proxy.nftables.language.grammar import Json, Tokens, literal

_NAT_FLAGS = {"random", "fully-random", "persistent"}


def nat_statement(kind: str) -> Callable[[Tokens], Json]:
    def build(reader: Tokens) -> Json:
        body: Json = {}
        while reader.peek() in ("ip", "ip6", "addr", ".", "port", "prefix", "interval"):
            word = reader.next()
            if word in ("ip", "ip6"):
                body["family"] = word
            elif word == "prefix":
                body["prefix"] = True
        if reader.take("to") or reader.peek()[:1].isdigit():  # nft before 0.9.1 has no "to"
            _nat_target(reader, body)
        flags = []
        while reader.peek() in _NAT_FLAGS or reader.peek() == ",":
            word = reader.next()
            flags += [word] if word != "," else []
        if flags:
            body["flags"] = flags
        return {kind: body or None}

    return build


def _nat_target(reader: Tokens, body: Json) -> None:
    start = reader.position
    key = None if reader.peek()[:1].isdigit() else expression(reader)
    if key is not None and reader.take("map"):
        body["addr"] = {"map": {"key": key, "data": right_side(reader)}}
        if reader.peek().startswith(":"):
            word = reader.next()
            body["port"] = literal(word[1:] or reader.next())
        return
    reader.position = start
    word = reader.next()
    if word.startswith("["):
        address, _, port = word[1:].partition("]")
        if address.count("-") == 0 and port.startswith("-"):  # [fd00::1]-[fd00::9]:80
            last, _, port = port[2:].partition("]")
            address = f"{address}-{last}"
        port = port.removeprefix(":")
        colon = ":" if word.endswith(":") or port else ""
    else:
        address, colon, port = word.partition(":") if word.count(":") == 1 else (word, "", "")
    if address:
        body["addr"] = literal(address)
    if not colon and reader.peek().startswith(":"):
        colon, port = ":", reader.next()[1:]
    if colon:
        body["port"] = _nat_port(reader, port)
    if reader.take("."):
        body["port"] = literal(reader.next())


def _nat_port(reader: Tokens, word: str) -> Any:
    """A port, a range of them, or what a map gives for an expression; `word` is what stood at the colon."""
    if (
        word
        and reader.peek() not in ("sport", "dport")
        and word not in ("meta", "ct", "ip", "numgen", "jhash", "symhash")
    ):
        return literal(word)
    if word:
        reader.position -= 1
        reader.tokens = [*reader.tokens[: reader.position], word, *reader.tokens[reader.position + 1 :]]
    start = reader.position
    key = None if reader.peek()[:1].isdigit() else expression(reader)
    if key is not None and reader.take("map"):
        return {"map": {"key": key, "data": right_side(reader)}}
    reader.position = start
    return literal(reader.next())
