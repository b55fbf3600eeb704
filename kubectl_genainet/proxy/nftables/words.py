"""The words of one nft rule, or of a set's elements, as JSON expressions (a hand-written descent, nft(8))."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

_PAYLOAD = {
    "ip",
    "ip6",
    "tcp",
    "udp",
    "sctp",
    "th",
    "icmp",
    "icmpv6",
    "ether",
    "arp",
    "udplite",
    "dccp",
    "esp",
    "ah",
    "vlan",
}
_META = {
    "mark",
    "iifname",
    "oifname",
    "iif",
    "oif",
    "skuid",
    "skgid",
    "nftrace",
    "l4proto",
    "nfproto",
    "pkttype",
    "cpu",
    "iifgroup",
    "oifgroup",
    "cgroup",
    "priority",
    "length",
    "protocol",
    "random",
    "rtclassid",
}
_CT_DIRECTED = {"original", "reply"}
_BITS = {"&": "&", "and": "&", "|": "|", "or": "|", "^": "^", "xor": "^", "<<": "<<", ">>": ">>"}
_COMPARE = {"==", "!=", "<", ">", "<=", ">=", "eq", "ne", "lt", "gt", "le", "ge"}
_WORD_COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "gt": ">", "le": "<=", "ge": ">="}
_VERDICTS = {"accept", "drop", "return", "continue"}
_FLAG_OPTIONS = {"random", "fully-random", "persistent"}
_ENDS = _VERDICTS | {
    "jump",
    "goto",
    "reject",
    "counter",
    "log",
    "limit",
    "masquerade",
    "dnat",
    "snat",
    "redirect",
    "queue",
    "comment",
    "update",
    "add",
    "delete",
    "notrack",
    "meta",
    "ct",
    "ip",
    "ip6",
    "tcp",
    "udp",
    "sctp",
    "th",
    "fib",
    "iifname",
    "oifname",
    "vmap",
    "numgen",
    "mark",
    "xt",
    "quota",
    "flow",
    "dup",
    "tproxy",
    "iif",
    "oif",
    "set",
    "socket",
    "icmp",
    "icmpv6",
}


class _Words:
    def __init__(self, words: list[str]) -> None:
        self.words, self.at = words, 0

    def __bool__(self) -> bool:
        return self.at < len(self.words)

    def peek(self, ahead: int = 0) -> str:
        position = self.at + ahead
        return self.words[position] if position < len(self.words) else ""

    def next(self) -> str:
        word = self.peek()
        self.at += 1
        return word

    def take(self, word: str) -> bool:
        if self.peek() == word:
            self.at += 1
            return True
        return False


def parse_rule(words: list[str]) -> tuple[list[Json], str]:
    """The expressions of a rule and its comment."""
    reader, found, comment = _Words(words), [], ""
    while reader:
        if reader.take("comment"):
            comment = unquoted(reader.next())
            continue
        start = reader.at
        expression = _statement(reader)
        if reader.at == start:  # nothing was understood: name the rest, and stop
            found.append({" ".join(words[start:]): None})
            break
        if expression is not None:
            found.append(expression)
    return found, comment


def parse_elements(words: list[str]) -> list[Any]:
    """Elements between braces: keys, or [key, verdict or value] pairs, with their comments kept."""
    return [_element(part) for part in _split(words, ",") if part]


def unquoted(word: str) -> str:
    return word[1:-1] if word.startswith('"') and word.endswith('"') and len(word) > 1 else word


def literal(word: str) -> Any:
    """A number, prefix, range or word as JSON has it."""
    word = unquoted(word)
    if word.isdigit():
        return int(word)
    if word.startswith("0x"):
        return int(word, 16)
    address, slash, length = word.partition("/")
    if slash and length.isdigit():
        return {"prefix": {"addr": address, "len": int(length)}}
    low, dash, high = word.partition("-")
    if dash and ((low.isdigit() and high.isdigit()) or (_is_address(low) and _is_address(high))):
        return {"range": [literal(low), literal(high)]}
    return word


def _is_address(word: str) -> bool:
    return word.count(".") == 3 or word.count(":") > 1


def _split(words: list[str], separator: str) -> list[list[str]]:
    parts: list[list[str]] = [[]]
    depth = 0
    for word in words:
        depth += (word == "{") - (word == "}")
        if word == separator and depth == 0:
            parts.append([])
        elif word != "\n":
            parts[-1].append(word)
    return parts


def _element(words: list[str]) -> Any:
    key_words, *values = _split(words, ":")
    comment, kept = "", []
    reader = _Words(key_words)
    while reader:
        if reader.peek() == "comment":
            reader.next()
            comment = unquoted(reader.next())
        elif reader.peek() in ("timeout", "expires", "counter", "packets", "bytes"):
            reader.at += 1 if reader.peek() == "counter" else 2
        else:
            kept.append(reader.next())
    parts = [literal("".join(part)) for part in _split(kept, ".")]
    key: Any = parts[0] if len(parts) == 1 else {"concat": parts}
    if comment:
        key = {"elem": {"val": key, "comment": comment}}
    if not values:
        return key
    value_words = values[0]
    if value_words[0] in _VERDICTS | {"jump", "goto"}:
        return [key, _verdict(_Words(value_words))]
    parts = [literal("".join(part)) for part in _split(value_words, ".")]
    return [key, parts[0] if len(parts) == 1 else {"concat": parts}]


def _verdict(reader: _Words) -> Json:
    kind = reader.next()
    return {kind: {"target": reader.next()}} if kind in ("jump", "goto") else {kind: None}


def _statement(reader: _Words) -> Json | None:
    word = reader.peek()
    if word in _VERDICTS or word in ("jump", "goto"):
        return _verdict(reader)
    build = _STATEMENTS.get(word)
    if build is not None:
        reader.next()
        built: Json = build(reader)
        return built
    if word in ("meta", "ct") and "set" in (reader.peek(2), reader.peek(3)):
        return _set_statement(reader)
    left = _expression(reader)
    return None if left is None else _relation(reader, left)


def _set_statement(reader: _Words) -> Json:
    key = _primary(reader)
    reader.take("set")
    return {"mangle": {"key": key, "value": _expression(reader)}}


def _relation(reader: _Words, left: Any) -> Json:
    if reader.take("vmap"):
        return {"vmap": {"key": left, "data": _right(reader)}}
    if reader.take("set"):
        return {"mangle": {"key": left, "value": _expression(reader)}}
    op = reader.next() if reader.peek() in _COMPARE else ""
    op = _WORD_COMPARE.get(op, op)
    state = isinstance(left, dict) and "ct" in left
    return {"match": {"op": op or ("in" if state else "=="), "left": left, "right": _right(reader)}}


def _right(reader: _Words) -> Any:
    """The right side of a relation: a set, a named set, or a list of literals."""
    if reader.take("{"):
        depth, start = 1, reader.at
        while reader and depth:
            word = reader.next()
            depth += (word == "{") - (word == "}")
        return {"set": parse_elements(reader.words[start : reader.at - 1])}
    values = [_right_value(reader)]
    while reader.take(","):
        values.append(_right_value(reader))
    return values[0] if len(values) == 1 else values


def _right_value(reader: _Words) -> Any:
    word = reader.next()
    return word if word.startswith("@") else literal(word)


def _expression(reader: _Words) -> Any:
    """A field, a concatenation, or arithmetic over one; None where no expression starts here."""
    left = _primary(reader)
    if left is None:
        return None
    while reader.peek() in _BITS:
        op = _BITS[reader.next()]
        left = {op: [left, _primary(reader)]}
    parts = [left]
    while reader.take("."):
        parts.append(_primary(reader))
    return parts[0] if len(parts) == 1 else {"concat": parts}


def _primary(reader: _Words) -> Any:
    word = reader.peek()
    if word == "meta":
        reader.next()
        return {"meta": {"key": reader.next()}}
    if word in _META:
        return {"meta": {"key": reader.next()}}
    if word == "ct":
        return _ct(reader)
    if word == "fib":
        return _fib(reader)
    if word in ("numgen", "jhash", "symhash"):
        return _generator(reader)
    if word in _PAYLOAD:
        reader.next()
        return {"payload": {"protocol": word, "field": reader.next()}}
    if word and (word[0].isdigit() or word.startswith("@")):
        return literal(reader.next())
    return None


def _ct(reader: _Words) -> Json:
    reader.next()
    direction = reader.next() if reader.peek() in _CT_DIRECTED else ""
    key = reader.next()
    if key in ("ip", "ip6"):
        key = f"{key} {reader.next()}"
    return {"ct": {"key": key, "dir": direction} if direction else {"key": key}}


def _fib(reader: _Words) -> Json:
    reader.next()
    flags = [reader.next()]
    while reader.take("."):
        flags.append(reader.next())
    return {"fib": {"result": reader.next(), "flags": flags}}


def _generator(reader: _Words) -> Json:
    kind = reader.next()
    if kind != "numgen":
        return {kind: {}}
    body: Json = {"mode": reader.next(), "mod": 1, "offset": 0}
    while reader.peek() in ("mod", "offset"):
        key = reader.next()
        body[key] = int(reader.next())
    return {"numgen": body}


def _counter(reader: _Words) -> Json:
    found = {}
    while reader.peek() in ("packets", "bytes"):
        key = reader.next()
        found[key] = int(reader.next())
    return {"counter": found or None}


def _reject(reader: _Words) -> Json:
    if not reader.take("with"):
        return {"reject": None}
    words = [reader.next()]
    while reader and reader.peek() != "comment":
        words.append(reader.next())
    return {"reject": {"type": words[0], "expr": words[-1]}}


def _nat(kind: str) -> Any:
    def build(reader: _Words) -> Json:
        body: Json = {}
        while reader.peek() in ("ip", "ip6"):
            reader.next()
        if reader.take("to"):
            _nat_target(reader, body)
        while reader.peek() in _FLAG_OPTIONS or reader.peek() == ",":
            reader.next()
        return {kind: body or None}

    return build


def _nat_target(reader: _Words, body: Json) -> None:
    if reader.peek() in ("numgen", "jhash", "ip", "ip6", "meta", "tcp", "udp", "th"):
        key = _expression(reader)
        reader.take("map")
        body["addr"] = {"map": {"key": key, "data": _right(reader)}}
        return
    word = reader.next()
    if reader.take("."):
        body["addr"], body["port"] = word, literal(reader.next())
    elif word.startswith("["):
        address, _, port = word[1:].partition("]")
        body["addr"] = address
        if port:
            body["port"] = literal(port[1:])
    elif word.startswith(":"):
        body["port"] = literal(word[1:])
    elif word.count(":") == 1:
        body["addr"], port = word.split(":")
        body["port"] = literal(port)
    else:
        body["addr"] = word


def _set_update(op: str) -> Any:
    def build(reader: _Words) -> Json:
        name = reader.next()
        reader.take("{")
        element = _expression(reader)
        while reader and not reader.take("}"):
            reader.next()
        return {"set": {"op": op, "set": name, "elem": element}}

    return build


def _swallow(kind: str) -> Any:
    """A statement whose options decide nothing here: skipped up to the next statement."""

    def build(reader: _Words) -> Json:
        words = []
        while reader and reader.peek() not in _ENDS:
            words.append(reader.next())
        return {kind: " ".join(words)}

    return build


def _queue(reader: _Words) -> Json:
    number = "0"
    while reader.peek() in ("flags", "bypass", "fanout", "num", "to", ",") or reader.peek()[:1].isdigit():
        word = reader.next()
        number = word if word[:1].isdigit() else number
    return {"queue": {"num": number}}


_STATEMENTS: dict[str, Any] = {
    "counter": _counter,
    "reject": _reject,
    "masquerade": _nat("masquerade"),
    "dnat": _nat("dnat"),
    "snat": _nat("snat"),
    "redirect": _nat("redirect"),
    "update": _set_update("update"),
    "add": _set_update("add"),
    "delete": _set_update("delete"),
    "log": _swallow("log"),
    "limit": _swallow("limit"),
    "quota": _swallow("quota"),
    "notrack": lambda reader: {"notrack": None},
    "queue": _queue,
    "xt": _swallow("xt"),
    "dup": _swallow("dup"),
    "flow": _swallow("flow"),
    "tproxy": _swallow("tproxy"),
}
