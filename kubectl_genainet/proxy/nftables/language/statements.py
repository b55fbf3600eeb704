"""Statements of nft's language, read into the JSON that libnftables has for them."""

from __future__ import annotations

from collections.abc import Callable

from kubectl_genainet.proxy.nftables.language.expressions import expression
from kubectl_genainet.proxy.nftables.language.grammar import STARTS, Json, Tokens, unquoted
from kubectl_genainet.proxy.nftables.language.nat_words import nat_statement


def _counter(reader: Tokens) -> Json:
    if reader.take("name"):
        return {"counter": unquoted(reader.next())}
    counter = {}
    while reader.peek() in ("packets", "bytes"):
        key = reader.next()
        counter[key] = int(reader.next())
    return {"counter": counter or None}


def _reject(reader: Tokens) -> Json:
    if not reader.take("with"):
        return {"reject": None}
    kind = reader.next()
    if kind == "tcp":
        reader.take("reset")
        return {"reject": {"type": "tcp reset"}}
    reader.take("type")
    return {"reject": {"type": kind, "expr": reader.next()}}


def _log(reader: Tokens) -> Json:
    body: Json = {}
    while reader.peek() in ("prefix", "level", "group", "snaplen", "queue-threshold", "flags"):
        key = reader.next()
        body[key] = unquoted(reader.next())
        if key == "flags" and body[key] in ("ip", "tcp"):
            reader.next()
            while reader.take(","):
                reader.next()
    return {"log": body or None}


def _amount(reader: Tokens, kind: str) -> Json:
    """limit and quota: whether what is over the amount is meant, and the words of it."""
    if reader.take("name"):
        return {kind: unquoted(reader.next())}
    start = reader.position
    reader.take("rate")
    inverted = reader.take("over")
    reader.take("until")
    while reader and (reader.peek()[0].isdigit() or reader.peek() in _AMOUNT_WORDS or "/" in reader.peek()):
        reader.next()
    return {kind: {"inv": inverted, "text": " ".join(reader.tokens[start : reader.position])}}


_AMOUNT_WORDS = {
    "bytes",
    "kbytes",
    "mbytes",
    "packets",
    "burst",
    "used",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "/",
}


def _set_update(op: str) -> Callable[[Tokens], Json]:
    def build(reader: Tokens) -> Json:
        if reader.peek() == "@" or not reader.peek():
            reader.next()
        name = reader.next()
        inner = Tokens(reader.block())
        element = expression(inner)
        return {"set": {"op": op, "set": name, "elem": element, "stmt": _inner(inner)}}

    return build


def _inner(reader: Tokens) -> list[Json]:
    """The statements of a dynamic set's element: a limit, a number of connections, a counter."""
    statements: list[Json] = []
    while reader:
        word = reader.next()
        if word in ("limit", "quota"):
            statements.append(_amount(reader, word))
        elif word == "ct" and reader.take("count"):
            inverted = reader.take("over")
            statements.append({"ct count": {"val": int(reader.next()), "inv": inverted}})
    return statements


def _meter(reader: Tokens) -> Json:
    name = reader.next()
    if reader.take("size"):
        reader.next()
    inner = Tokens(reader.block())
    key = expression(inner)
    return {"meter": {"name": name, "key": key, "stmt": _inner(inner)}}


def _swallow(kind: str) -> Callable[[Tokens], Json]:
    """A statement whose options decide nothing here: skipped up to the next statement."""

    def build(reader: Tokens) -> Json:
        skipped = []
        while reader and reader.peek() not in STARTS:
            skipped.append(reader.next())
        return {kind: " ".join(skipped)}

    return build


def _flow(reader: Tokens) -> Json:
    reader.position += 2 if reader.peek() in ("add", "offload") else 1
    return {"flow": None}


def _tproxy(reader: Tokens) -> Json:
    if reader.peek() in ("ip", "ip6"):
        reader.next()
    reader.take("to")
    return {"tproxy": reader.next()}


def _queue(reader: Tokens) -> Json:
    number = "0"
    while reader.peek() in ("flags", "bypass", "fanout", "num", "to", ",") or reader.peek()[:1].isdigit():
        word = reader.next()
        number = word if word[:1].isdigit() else number
    return {"queue": {"num": number}}


def _xt(reader: Tokens) -> Json:
    """An extension of iptables: `xt match "statistic"`, or (`xt lost`) a place where a listing leaves one out."""
    kind = reader.next()
    return {"xt": {"type": kind, "name": unquoted(reader.next()) if reader.peek() not in STARTS else ""}}


STATEMENTS: dict[str, Callable[[Tokens], Json]] = {
    "counter": _counter,
    "reject": _reject,
    "masquerade": nat_statement("masquerade"),
    "dnat": nat_statement("dnat"),
    "snat": nat_statement("snat"),
    "redirect": nat_statement("redirect"),
    "update": _set_update("update"),
    "add": _set_update("add"),
    "delete": _set_update("delete"),
    "set": lambda reader: _set_update(reader.next())(reader),
    "meter": _meter,
    "log": _log,
    "limit": lambda reader: _amount(reader, "limit"),
    "quota": lambda reader: _amount(reader, "quota"),
    "notrack": lambda reader: {"notrack": None},
    "queue": _queue,
    "xt": _xt,
    "dup": _swallow("dup"),
    "fwd": _swallow("fwd"),
    "last": _swallow("last"),
    "synproxy": _swallow("synproxy"),
    "flow": _flow,
    "tproxy": _tproxy,
}
