"""Expressions of nft's language and relations between them, read into the JSON that libnftables has for them."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.proxy.nftables.language.elements import elements_of
from kubectl_genainet.proxy.nftables.language.grammar import META, PAYLOAD, WITH_BITS, Json, Tokens, literal

_CT_DIRECTED = {"original", "reply"}
_BITS = {"&": "&", "and": "&", "|": "|", "or": "|", "^": "^", "xor": "^", "<<": "<<", "lshift": "<<", ">>": ">>"}
_COMPARE = {"==", "!=", "<", ">", "<=", ">=", "eq", "ne", "lt", "gt", "le", "ge", "!"}
_WORD_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">="}


def set_statement(reader: Tokens) -> Json:
    key = _primary(reader)
    reader.take("set")
    return {"mangle": {"key": key, "value": _value(reader)}}


def _value(reader: Tokens) -> Any:
    """What is written: an expression, a name, or what a map gives for one."""
    start = reader.position
    value = expression(reader)
    if reader.position == start:
        return literal(reader.next())
    if reader.take("map"):
        return {"map": {"key": value, "data": right_side(reader)}}
    return value


def relation(reader: Tokens, left: Any) -> Json:
    if reader.take("vmap"):
        return {"vmap": {"key": left, "data": right_side(reader)}}
    if reader.take("set"):
        return {"mangle": {"key": left, "value": _value(reader)}}
    op = reader.next() if reader.peek() in _COMPARE else ""
    op = _WORD_COMPARE.get(op, op)
    right = right_side(reader)
    if reader.take("/"):  # tcp flags syn / fin,syn,rst,ack: these bits of those
        mask = right_side(reader)
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


def right_side(reader: Tokens) -> Any:
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
    operand = _primary(reader)
    return literal(reader.next()) if operand is None else operand


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
    if word == "rt":
        reader.next()
        family = {"family": reader.next()} if reader.peek() in ("ip", "ip6") else {}
        return {"rt": {"key": reader.next(), **family}}
    if word == "socket":
        reader.next()
        key = reader.next()
        if key == "cgroupv2" and reader.take("level"):
            reader.next()
        return {"socket": {"key": key}}
    if word in _HEADERS:
        return _raw_payload(reader)
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


_HEADERS = {"@ll", "@nh", "@th", "@ih"}


def _raw_payload(reader: Tokens) -> Json:
    """@BASE,OFFSET,LENGTH in bits."""
    base = reader.next()[1:]
    numbers = []
    while reader.take(","):
        numbers.append(int(reader.next(), 0))
    offset, length = numbers
    return {"payload": {"base": base, "offset": offset, "len": length}}


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
