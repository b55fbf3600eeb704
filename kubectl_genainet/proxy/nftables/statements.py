"""Statements and expressions of nft's language, read into the JSON that libnftables has for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubectl_genainet.proxy.nftables.elements import elements_of
from kubectl_genainet.proxy.nftables.grammar import META, PAYLOAD, STARTS, WITH_BITS, Json, Tokens, literal, unquoted

_CT_DIRECTED = {"original", "reply"}
_BITS = {"&": "&", "and": "&", "|": "|", "or": "|", "^": "^", "xor": "^", "<<": "<<", "lshift": "<<", ">>": ">>"}
_COMPARE = {"==", "!=", "<", ">", "<=", ">=", "eq", "ne", "lt", "gt", "le", "ge", "!"}
_WORD_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">="}
_NAT_FLAGS = {"random", "fully-random", "persistent"}


def set_statement(reader: Tokens) -> Json:
    key = _primary(reader)
    reader.take("set")
    return {"mangle": {"key": key, "value": _value(reader)}}


def _value(reader: Tokens) -> Any:
    """What is written: an expression, a name, or what a map gives for one."""
    start = reader.at
    found = expression(reader)
    if reader.at == start:
        return literal(reader.next())
    if reader.take("map"):
        return {"map": {"key": found, "data": _right(reader)}}
    return found


def relation(reader: Tokens, left: Any) -> Json:
    if reader.take("vmap"):
        return {"vmap": {"key": left, "data": _right(reader)}}
    if reader.take("set"):
        return {"mangle": {"key": left, "value": _value(reader)}}
    op = reader.next() if reader.peek() in _COMPARE else ""
    op = _WORD_COMPARE.get(op, op)
    right = _right(reader)
    if reader.take("/"):  # tcp flags syn / fin,syn,rst,ack: these bits of those
        mask = _right(reader)
        return {"match": {"op": op or "==", "left": {"&": [left, _as_bits(mask)]}, "right": _as_bits(right)}}
    return {"match": {"op": op or ("in" if _has_bits(left) else "=="), "left": left, "right": right}}


def _as_bits(value: Any) -> Any:
    return {"|": value} if isinstance(value, list) else value


def _has_bits(left: Any) -> bool:
    if not isinstance(left, dict):
        return False
    (kind, body), *_ = left.items()
    if not isinstance(body, dict):
        return False
    return (kind, body.get("key")) in WITH_BITS or (body.get("protocol"), body.get("field")) in WITH_BITS


def _right(reader: Tokens) -> Any:
    """The right side of a relation: a set, a named set, or a list of literals."""
    if reader.peek() == "{":
        return {"set": elements_of(reader.block())}
    values = [_right_value(reader)]
    while reader.take(","):
        values.append(_right_value(reader))
    return values[0] if len(values) == 1 else values


def _right_value(reader: Tokens) -> Any:
    if reader.take("("):
        inner = _sum(reader, _right_value(reader))
        reader.take(")")
        return inner
    word = reader.next()
    if not word or word in ("}", ")"):
        raise ValueError("a value is missing")
    value = word if word.startswith("@") else literal(word)
    if reader.peek() == ".":  # one value of several components
        parts = [value]
        while reader.take("."):
            parts.append(literal(reader.next()))
        return {"concat": parts}
    return _sum(reader, value)


def _sum(reader: Tokens, value: Any) -> Any:
    while reader.peek() in ("|", "or"):
        reader.next()
        value = {"|": [value, literal(reader.next())]}
    return value


def expression(reader: Tokens) -> Any:
    """A field, a concatenation, or arithmetic over one; None where no expression starts here."""
    left = _arithmetic(reader)
    if left is None:
        return None
    parts = [left]
    while reader.take("."):
        parts.append(_arithmetic(reader))
    return parts[0] if len(parts) == 1 else {"concat": parts}


def _arithmetic(reader: Tokens) -> Any:
    left = _primary(reader)
    while left is not None and reader.peek() in _BITS:
        op = _BITS[reader.next()]
        left = {op: [left, _operand(reader)]}
    return left


def _operand(reader: Tokens) -> Any:
    if reader.take("("):
        inner = _sum(reader, literal(reader.next()))
        reader.take(")")
        return inner
    found = _primary(reader)
    return literal(reader.next()) if found is None else found


def _primary(reader: Tokens) -> Any:
    word = reader.peek()
    if word == "(":
        reader.next()
        inner = expression(reader)
        reader.take(")")
        return inner
    if word == "meta":
        reader.next()
        return {"meta": {"key": reader.next()}}
    if word in META:
        return {"meta": {"key": reader.next()}}
    if word == "ct":
        return _ct(reader)
    if word == "fib":
        return _fib(reader)
    if word in ("numgen", "jhash", "symhash"):
        return _generator(reader)
    if word in PAYLOAD:
        reader.next()
        return {"payload": {"protocol": word, "field": reader.next()}}
    if word and (word[0].isdigit() or word.startswith("@")):
        return literal(reader.next())
    return None


def _ct(reader: Tokens) -> Json:
    reader.next()
    direction = reader.next() if reader.peek() in _CT_DIRECTED else ""
    key = reader.next()
    if key in ("ip", "ip6"):
        key = f"{key} {reader.next()}"
    return {"ct": {"key": key, "dir": direction} if direction else {"key": key}}


def _fib(reader: Tokens) -> Json:
    reader.next()
    flags = [reader.next()]
    while reader.take("."):
        flags.append(reader.next())
    return {"fib": {"result": reader.next(), "flags": flags}}


def _generator(reader: Tokens) -> Json:
    kind = reader.next()
    body: Json = {"mod": 1, "offset": 0}
    if kind == "numgen":
        body["mode"] = reader.next()
    elif kind == "jhash":
        body["expr"] = expression(reader)
    while reader.peek() in ("mod", "offset", "seed"):
        key = reader.next()
        body[key] = int(reader.next(), 0)
    return {kind: body}


def _counter(reader: Tokens) -> Json:
    if reader.take("name"):
        return {"counter": unquoted(reader.next())}
    found = {}
    while reader.peek() in ("packets", "bytes"):
        key = reader.next()
        found[key] = int(reader.next())
    return {"counter": found or None}


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
    start = reader.at
    reader.take("rate")
    inverted = reader.take("over")
    reader.take("until")
    while reader and (reader.peek()[0].isdigit() or reader.peek() in _AMOUNT_WORDS or "/" in reader.peek()):
        reader.next()
    return {kind: {"inv": inverted, "text": " ".join(reader.words[start : reader.at])}}


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


def _nat(kind: str) -> Callable[[Tokens], Json]:
    def build(reader: Tokens) -> Json:
        body: Json = {}
        while reader.peek() in ("ip", "ip6", "addr", ".", "port", "prefix", "interval") and reader.peek() != "to":
            word = reader.next()
            if word in ("ip", "ip6"):
                body["family"] = word
            elif word == "prefix":
                body["prefix"] = True
        if reader.take("to"):
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
    start = reader.at
    key = None if reader.peek()[:1].isdigit() else expression(reader)
    if key is not None and reader.take("map"):
        body["addr"] = {"map": {"key": key, "data": _right(reader)}}
        if reader.peek() == ":" or reader.peek().startswith(":"):
            word = reader.next()
            body["port"] = literal(word[1:] or reader.next())
        return
    reader.at = start
    word = reader.next()
    if word.startswith("["):
        address, _, port = word[1:].partition("]")
        if address.count("-") == 0 and port.startswith("-"):  # [fd00::1]-[fd00::9]:80
            last, _, port = port[2:].partition("]")
            address = f"{address}-{last}"
        port = port.removeprefix(":") if port else ""
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
        reader.at -= 1
        reader.words = [*reader.words[: reader.at], word, *reader.words[reader.at + 1 :]]
    start = reader.at
    key = None if reader.peek()[:1].isdigit() else expression(reader)
    if key is not None and reader.take("map"):
        return {"map": {"key": key, "data": _right(reader)}}
    reader.at = start
    return literal(reader.next())


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
    found: list[Json] = []
    while reader:
        word = reader.next()
        if word in ("limit", "quota"):
            found.append(_amount(reader, word))
        elif word == "ct" and reader.take("count"):
            inverted = reader.take("over")
            found.append({"ct count": {"val": int(reader.next()), "inv": inverted}})
    return found


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
        words = []
        while reader and reader.peek() not in STARTS:
            words.append(reader.next())
        return {kind: " ".join(words)}

    return build


def _flow(reader: Tokens) -> Json:
    reader.at += 2 if reader.peek() in ("add", "offload") else 1
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
    "masquerade": _nat("masquerade"),
    "dnat": _nat("dnat"),
    "snat": _nat("snat"),
    "redirect": _nat("redirect"),
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
