"""`nft list ruleset` text and `nft -f` transactions, turned into the objects that `nft -j` prints.

A statement that is not understood becomes an expression that names its words, which the compiler then can't answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.proxy.dumps.posted import is_elided
from kubectl_genainet.proxy.nftables.language.elements import elements_of
from kubectl_genainet.proxy.nftables.language.grammar import Json, tokens_of, unquoted
from kubectl_genainet.proxy.nftables.language.words import parse_rule, statements
from kubectl_genainet.proxy.nftables.read import NftTable, build_tables

# Names that nft prints for standard priorities (nft(8), "Standard priority names"); the family is not bridge.
PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_PRIORITY = re.compile(r"([a-z]*)\s*([+-]?)\s*(\d*)")
_DATA_TYPES = re.compile(r"\s*\.\s*")
_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_COMMANDS = ("add", "create", "insert", "delete", "destroy", "flush", "replace", "reset")
_BLOCKS = ("flowtable", "counter", "quota", "limit", "ct", "secmark", "synproxy")
# Tables of iptables-nft: what nft can't print of their rules it leaves out, and two spaces stay behind.
_OF_IPTABLES = re.compile(r"^table (?:ip|ip6) (?:filter|nat|mangle|raw|security) \{")
_LEFT_OUT = re.compile(r"^(\t+) +(?=\S)|(?<=\S)  +(?=\S)")
MAX_DEPTH = 40


def parse_nft_text(text: str) -> tuple[list[NftTable], list[str]]:
    """The tables of a listing or of a transaction ("add table …", "add rule …"), and what could not be read."""
    unread: list[str] = []
    tables, more = build_tables(list(_objects(text, unread)))
    return tables, unread + more


def priority_number(text: str) -> int:
    """ "dstnat - 10", "srcnat + 1", "-110" or "filter" as a number. Raises ValueError."""
    match = _PRIORITY.fullmatch(text.strip())
    if match is None or not text.strip():
        raise ValueError(f"priority {text}")
    name, sign, digits = match.groups()
    if name and name not in PRIORITIES:
        raise ValueError(f"priority {text}")
    return PRIORITIES.get(name, 0) + (int(digits) if digits else 0) * (-1 if sign == "-" else 1)


def _objects(text: str, unread: list[str]) -> Iterator[Json]:
    tokens = _with_values(tokens_of(_marked(text, unread) + "\n"), unread)
    depth = deepest = 0
    for token in tokens:
        depth += (token == "{") - (token == "}")
        deepest = max(deepest, depth)
    if depth > 0:
        unread.append("it is cut short: a brace is not closed")
    if deepest > MAX_DEPTH:
        unread.append(f"braces stand {deepest} deep")
        return
    at = 0
    while at < len(tokens):
        word = tokens[at]
        if word == "table" and at + 2 < len(tokens):
            end = _closing(tokens, at)
            yield from _whole_table(tokens[at:end], unread)
            at = end
        elif word in _COMMANDS:
            end = _line_end(tokens, at)
            yield from _command(word, tokens[at + 1 : end], unread)
            at = end
        elif word in ("\n", ";", "}"):
            at += 1
        else:
            end = _line_end(tokens, at)
            if word not in ("list", "nft", "sudo", "meta"):
                unread.append(f"a line that is not read: {' '.join(tokens[at:end])[:80]}")
            at = max(end, at + 1)


def _marked(text: str, unread: list[str]) -> str:
    """The text without comments, and with a word where a listing of iptables-nft's rules leaves something out."""
    lines = []
    own = False
    for line in text.splitlines():
        if line.startswith("table "):
            own = _OF_IPTABLES.match(line) is not None
        if is_elided(line):
            unread.append(f"a part is left out: {line.strip()[:80]}")
        line = _without_comment(line)
        if own and line.startswith("\t"):
            line = _mark_gaps(line)
        lines.append(line)
    return "\n".join(lines)


def _mark_gaps(line: str) -> str:
    parts = line.split('"')
    parts[::2] = [_LEFT_OUT.sub(lambda m: f"{m.group(1) or ''} xt lost ", part) for part in parts[::2]]
    return '"'.join(parts)


def _without_comment(line: str) -> str:
    """Drops "# handle 5" and whole-line comments, but not a # inside quotes."""
    if "#" not in line:
        return line
    head, hash_sign, tail = line.partition("#")
    while hash_sign and head.count('"') % 2:
        more, hash_sign, tail = tail.partition("#")
        head = f"{head}#{more}"
    return head


def _with_values(tokens: list[str], unread: list[str]) -> list[str]:
    """`define NAME = VALUE` put in where `$NAME` stands."""
    if not any(token.startswith("$") or token == "define" for token in tokens):
        return tokens
    known: dict[str, list[str]] = {}
    found: list[str] = []
    at = 0
    while at < len(tokens):
        if tokens[at] in ("define", "redefine") and at + 2 < len(tokens) and tokens[at + 2] == "=":
            end = _line_end(tokens, at)
            known["$" + tokens[at + 1]] = _with_known(tokens[at + 3 : end], known)
            at = end
        else:
            found += _with_known([tokens[at]], known)
            at += 1
    for name in {token for token in found if token.startswith("$")}:
        unread.append(f"{name} is not defined in the text")
    return found


def _with_known(tokens: list[str], known: dict[str, list[str]]) -> list[str]:
    return [part for token in tokens for part in known.get(token, (token,))][:100_000]


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
        if depth == 0 and tokens[i] in ("\n", ";"):
            return i
    return len(tokens)


def _whole_table(tokens: list[str], unread: list[str]) -> Iterator[Json]:
    words = [t for t in tokens[1 : tokens.index("{") if "{" in tokens else len(tokens)] if t != "\n"]
    if not words:
        unread.append("a table without a name")
        return
    family, name = (words[0], words[1]) if len(words) > 1 else ("ip", words[0])
    yield {"table": {"family": family, "name": name}}
    at = tokens.index("{") + 1 if "{" in tokens else len(tokens)
    while at < len(tokens):
        if tokens[at] in ("set", "map", "chain", "meter"):
            end = _closing(tokens, at)
            body = tokens[at + 3 : end - 1] if tokens[end - 1] == "}" else tokens[at + 3 : end]
            yield from _member(family, name, tokens[at], tokens[at + 1], body, unread)
            at = end
        elif tokens[at] in _BLOCKS and "{" in tokens[at : at + 4]:
            at = _closing(tokens, at)
        elif tokens[at] == "flags":
            end = _line_end(tokens, at)
            yield {"table": {"family": family, "name": name, "flags": [t for t in tokens[at + 1 : end] if t != ","]}}
            at = end
        else:
            at += 1


def _member(family: str, table: str, kind: str, name: str, body: list[str], unread: list[str]) -> Iterator[Json]:
    base: Json = {"family": family, "table": table, "name": unquoted(name)}
    try:
        if kind == "chain":
            yield from _chain(base, body)
        else:
            yield {kind: {**base, **_set_body(body)}}
    except (ValueError, IndexError, RecursionError) as error:
        unread.append(f"{kind} {name} of table {family} {table}: {error}")


def _chain(base: Json, body: list[str]) -> Iterator[Json]:
    chain, rules = dict(base), []
    for words in statements(body):
        if words[0] == "type" and "hook" in words:
            chain |= _hook(words)
        elif words[0] == "policy" and len(words) > 1:
            chain["policy"] = words[1]
        elif words[0] not in ("comment", "flags"):
            rules.append(words)
    yield {"chain": chain}
    for words in rules:
        yield {"rule": _rule(base["family"], base["table"], base["name"], words)}


def _hook(words: list[str]) -> Json:
    priority = words.index("priority")
    found: Json = {"type": words[1], "hook": words[words.index("hook") + 1]}
    found["prio"] = priority_number(" ".join(words[priority + 1 :]))
    for option in ("device", "devices"):
        if option in words[:priority]:
            given = words[words.index(option) + 1 : priority]
            found["dev"] = [unquoted(word) for word in given if word not in ("=", "{", "}", ",")]
    return found


def _rule(family: str, table: str, chain: str, words: list[str]) -> Json:
    expressions, comment = parse_rule(words)
    text = " ".join(w for w in words if w != "\n").replace(" ,", ",").replace("xt lost ", "")
    rule: Json = {"family": family, "table": table, "chain": unquoted(chain), "expr": expressions, "text": text}
    return {**rule, "comment": comment} if comment else rule


def _set_body(body: list[str]) -> Json:
    found: Json = {}
    for words in statements(body):
        if words[0] != "elements" and "{" in words:
            raise ValueError("its lines are not apart")
        match words[0]:
            case "type" | "typeof":
                keys = _DATA_TYPES.split(" ".join(words[1:]).partition(":")[0].strip())
                found["type"] = keys
            case "elements" if "{" in words:
                inner = words[words.index("{") + 1 :]
                found["elem"] = elements_of(inner[:-1] if inner[-1:] == ["}"] else inner)
    return found


def _command(command: str, words: list[str], unread: list[str]) -> Iterator[Json]:
    """One command of a transaction."""
    if not words or command == "reset":
        return
    kind, rest = words[0], words[1:]
    if kind not in ("table", "set", "map", "chain", "rule", "element", "ruleset", "meter"):
        if kind in (*_BLOCKS, "flowtable"):
            return
        kind, rest = "rule", words  # `insert inet t c …`: the word may be left out
    family = rest.pop(0) if rest and rest[0] in _FAMILIES else "ip"
    verb = "add" if command == "create" else command
    try:
        for obj in _objects_of(verb, kind, family, rest, unread):
            (name, body), *_ = obj.items()
            yield {verb: {name: body}}
    except (ValueError, IndexError, RecursionError):
        unread.append(f"a command that is not read: {command} {' '.join(words)[:80]}")


def _objects_of(verb: str, kind: str, family: str, rest: list[str], unread: list[str]) -> Iterator[Json]:
    if kind == "ruleset":
        yield {"ruleset": {}}
    elif kind == "table":
        if verb == "add" and "{" in rest:
            yield from _whole_table(["table", family, *rest], unread)
        else:
            yield {"table": {"family": family, "name": rest[0]}}
    elif kind in ("set", "map", "chain", "meter"):
        body = rest[3:-1] if rest[2:3] == ["{"] else []
        yield from _member(family, rest[0], kind, rest[1], body, unread)
    elif kind == "rule":
        words = rest[2:]
        rule: Json = {}
        while words and words[0] in ("handle", "index", "position"):
            rule["index"] = words[1]
            words = words[2:]
        yield {"rule": {**_rule(family, rest[0], rest[1], words), **rule}}
    elif kind == "element":
        elements = elements_of(rest[rest.index("{") + 1 : -1])
        yield {"element": {"family": family, "table": rest[0], "name": rest[1], "elem": elements}}
