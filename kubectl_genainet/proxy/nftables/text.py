"""`nft list ruleset` text and `nft -f` transactions, turned into the objects that `nft -j` prints.

Reads the part of the grammar that kube-proxy and policy enforcers use (nft(8)); a statement that it does not know
becomes an object under the statement's text, which the compiler then names as not known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.proxy.nftables.literals import Json, number_of
from kubectl_genainet.proxy.nftables.read import NftTable, build_tables, priority_number
from kubectl_genainet.proxy.nftables.words import parse_elements, parse_rule

_TOKEN = re.compile(r'"[^"]*"|[{}]|[;,\n]|[^\s{},;"]+')
_DATA_TYPES = re.compile(r"\s*\.\s*")


def parse_nft_text(text: str) -> list[NftTable]:
    """The tables of a listing or of a transaction ("add table …", "add rule …")."""
    return build_tables(list(_objects(text)))


def _objects(text: str) -> Iterator[Json]:
    tokens = _TOKEN.findall("\n".join(_without_comment(line) for line in text.splitlines()) + "\n")
    at = 0
    while at < len(tokens):
        word = tokens[at]
        if word == "table" and at + 2 < len(tokens):
            end = _closing(tokens, at)
            yield from _table(tokens[at:end])
            at = end
        elif word in ("add", "create", "insert"):
            end = _line_end(tokens, at)
            yield from _command(tokens[at + 1 : end])
            at = end
        else:
            at = at + 1 if word in ("\n", ";") else _line_end(tokens, at)


def _without_comment(line: str) -> str:
    """Drops "# handle 5" and whole-line comments, but not a # inside quotes."""
    if "#" not in line:
        return line
    head, hash_sign, tail = line.partition("#")
    while hash_sign and head.count('"') % 2:
        more, hash_sign, tail = tail.partition("#")
        head = f"{head}#{more}"
    return head


def _closing(tokens: list[str], at: int) -> int:
    """The index after the block that opens at or after `at`."""
    depth = 0
    for i in range(at, len(tokens)):
        depth += (tokens[i] == "{") - (tokens[i] == "}")
        if tokens[i] == "}" and depth == 0:
            return i + 1
        if tokens[i] == "\n" and depth == 0 and i > at + 3:
            return i + 1
    return len(tokens)


def _line_end(tokens: list[str], at: int) -> int:
    depth = 0
    for i in range(at, len(tokens)):
        depth += (tokens[i] == "{") - (tokens[i] == "}")
        if depth == 0 and tokens[i] == "\n":
            return i
    return len(tokens)


def _table(tokens: list[str]) -> Iterator[Json]:
    words = [t for t in tokens[1 : tokens.index("{") if "{" in tokens else len(tokens)] if t != "\n"]
    family, name = (words[0], words[1]) if len(words) > 1 else ("ip", words[0])
    yield {"table": {"family": family, "name": name}}
    at = tokens.index("{") + 1 if "{" in tokens else len(tokens)
    while at < len(tokens):
        if tokens[at] in ("set", "map", "chain"):
            end = _closing(tokens, at)
            yield from _member(family, name, tokens[at], tokens[at + 1], tokens[at + 3 : end - 1])
            at = end
        elif tokens[at] in ("flowtable", "counter", "quota", "limit", "ct") and "{" in tokens[at : at + 4]:
            at = _closing(tokens, at)
        else:
            at += 1


def _member(family: str, table: str, kind: str, name: str, body: list[str]) -> Iterator[Json]:
    base: Json = {"family": family, "table": table, "name": name}
    if kind == "chain":
        yield from _chain(base, body)
    else:
        yield {kind: {**base, **_set_body(body)}}


def _statements(body: list[str]) -> Iterator[list[str]]:
    """The statements of a block: ended by a newline or a semicolon outside of braces."""
    depth = 0
    current: list[str] = []
    for token in body:
        depth += (token == "{") - (token == "}")
        if depth == 0 and token in ("\n", ";"):
            if current:
                yield current
            current = []
        elif token != "\n":
            current.append(token)
    if current:
        yield current


def _chain(base: Json, body: list[str]) -> Iterator[Json]:
    chain, rules = dict(base), []
    for words in _statements(body):
        if words[0] == "type" and "hook" in words:
            chain |= _hook(words)
        elif words[0] == "policy":
            chain["policy"] = words[1]
        elif words[0] != "comment":
            rules.append(words)
    yield {"chain": chain}
    for words in rules:
        yield _rule(base["family"], base["table"], base["name"], words)


def _hook(words: list[str]) -> Json:
    priority = " ".join(words[words.index("priority") + 1 :])
    return {"type": words[1], "hook": words[words.index("hook") + 1], "prio": priority_number(priority)}


def _rule(family: str, table: str, chain: str, words: list[str]) -> Json:
    expressions, comment = parse_rule(words)
    rule: Json = {"family": family, "table": table, "chain": chain, "expr": expressions, "text": _spaced(words)}
    return {"rule": {**rule, "comment": comment} if comment else rule}


def _spaced(words: list[str]) -> str:
    return " ".join(words).replace(" ,", ",")


def _set_body(body: list[str]) -> Json:
    found: Json = {}
    for words in _statements(body):
        match words[0]:
            case "type" | "typeof":
                keys = _DATA_TYPES.split(" ".join(words[1:]).partition(":")[0].strip())
                found["type"] = keys
            case "elements":
                found["elem"] = parse_elements(words[words.index("{") + 1 : -1])
            case "timeout" | "size":
                found[words[0]] = number_of(words[1])
    return found


def _command(words: list[str]) -> Iterator[Json]:
    """One command of a transaction, after its "add"."""
    kind, rest = words[0], words[1:]
    family = rest.pop(0) if rest and rest[0] in ("ip", "ip6", "inet", "arp", "bridge", "netdev") else "ip"
    if kind == "table":
        yield {"table": {"family": family, "name": rest[0]}}
    elif kind in ("set", "map", "chain"):
        body = rest[3:-1] if rest[2:3] == ["{"] else []
        yield from _member(family, rest[0], kind, rest[1], body)
    elif kind == "rule":
        yield _rule(family, rest[0], rest[1], rest[2:])
    elif kind == "element":
        elements = parse_elements(rest[rest.index("{") + 1 : -1])
        yield {"element": {"family": family, "table": rest[0], "name": rest[1], "elem": elements}}
