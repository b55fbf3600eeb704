"""`nft list ruleset` text and `nft -f` transactions, turned into the objects that `nft -j` prints.

A statement that is not understood becomes an expression that names its words, which the compiler then can't answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.model.units import whole_number
from kubectl_genainet.proxy.dumps.posted import is_elided
from kubectl_genainet.proxy.nftables.language.elements import elements_of
from kubectl_genainet.proxy.nftables.language.grammar import Json, tokens_of, unquoted
from kubectl_genainet.proxy.nftables.language.words import parse_rule, statements
from kubectl_genainet.proxy.nftables.read import NftTable, build_tables

# Names that nft prints for standard priorities (nft(8), "Standard priority names"); the family is not bridge.
PRIORITIES = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
_PRIORITY = re.compile(r"([a-z]*)\s*+([+-]?)\s*(\d*)")
_FAMILIES = ("ip", "ip6", "inet", "arp", "bridge", "netdev")
_COMMANDS = ("add", "create", "insert", "delete", "destroy", "flush", "replace", "reset")
_BLOCKS = ("flowtable", "counter", "quota", "limit", "ct", "secmark", "synproxy")
# Tables of iptables-nft: what nft can't print of their rules it leaves out, and two spaces stay behind.
_OF_IPTABLES = re.compile(r"^table (?:ip|ip6) (?:filter|nat|mangle|raw|security) \{")
_LEFT_OUT = re.compile(r"^(\t+) +(?=\S)|(?<=\S)  +(?=\S)")
_BLANK_FIRST = re.compile(r"^\t+ type \w+ hook ", re.M)  # nft before 0.6 puts a space before every line of a chain
_LEADING_BLANK = re.compile(r"^(\t+) (?=\S)", re.M)
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
    tables, excerpts = "", []
    position = 0
    while position < len(tokens):
        word = tokens[position]
        if word == "table" and position + 2 < len(tokens):
            end = _closing(tokens, position)
            tables += " ".join(tokens[position:end])
            yield from _whole_table(tokens[position:end], unread)
            position = end
        elif word == "chain" and "{" in tokens[position + 1 : position + 3]:
            end = _closing(tokens, position)
            excerpts.append(" ".join(tokens[position:end]))
            position = end
        elif word in _COMMANDS:
            end = _line_end(tokens, position)
            yield from _command(word, tokens[position + 1 : end], unread)
            position = end
        elif word in ("\n", ";", "}"):
            position += 1
        else:
            end = _line_end(tokens, position)
            if word not in ("list", "nft", "sudo", "meta"):
                unread.append(f"a line that is not read: {' '.join(tokens[position:end])[:80]}")
            position = max(end, position + 1)
    # A chain by itself is a part of a table that is shown again, or of one that is not in the text.
    unread += [f"a chain without its table: {excerpt[:80]}" for excerpt in excerpts if excerpt not in tables]


def _marked(text: str, unread: list[str]) -> str:
    """The text without comments, and with a word where a listing of iptables-nft's rules leaves something out."""
    lines = []
    own = False
    if _BLANK_FIRST.search(text):
        text = _LEADING_BLANK.sub(r"\1", text)
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
    expanded: list[str] = []
    position = 0
    while position < len(tokens):
        if tokens[position] in ("define", "redefine") and position + 2 < len(tokens) and tokens[position + 2] == "=":
            end = _line_end(tokens, position)
            known["$" + tokens[position + 1]] = _with_known(tokens[position + 3 : end], known)
            position = end
        else:
            expanded += _with_known([tokens[position]], known)
            position += 1
    for name in {token for token in expanded if token.startswith("$")}:
        unread.append(f"{name} is not defined in the text")
    return expanded


def _with_known(tokens: list[str], known: dict[str, list[str]]) -> list[str]:
    return [part for token in tokens for part in known.get(token, (token,))][:100_000]


def _closing(tokens: list[str], position: int) -> int:
    """The index after the block that opens at or after `at`."""
    depth = 0
    for i in range(position, len(tokens)):
        depth += (tokens[i] == "{") - (tokens[i] == "}")
        if tokens[i] == "}" and depth == 0:
            return i + 1
        if tokens[i] == "\n" and depth == 0 and i > position + 3:
            return i + 1
    return len(tokens)


def _line_end(tokens: list[str], position: int) -> int:
    depth = 0
    for i in range(position, len(tokens)):
        depth += (tokens[i] == "{") - (tokens[i] == "}")
        if depth == 0 and tokens[i] in ("\n", ";"):
            return i
    return len(tokens)


def _whole_table(tokens: list[str], unread: list[str]) -> Iterator[Json]:
    header = [t for t in tokens[1 : tokens.index("{") if "{" in tokens else len(tokens)] if t != "\n"]
    if not header:
        unread.append("a table without a name")
        return
    family, name = (header[0], header[1]) if len(header) > 1 else ("ip", header[0])
    yield {"table": {"family": family, "name": name}}
    position = tokens.index("{") + 1 if "{" in tokens else len(tokens)
    while position < len(tokens):
        if tokens[position] in ("set", "map", "chain", "meter"):
            end = _closing(tokens, position)
            body = tokens[position + 3 : end - 1] if tokens[end - 1] == "}" else tokens[position + 3 : end]
            yield from _member(family, name, tokens[position], tokens[position + 1], body, unread)
            position = end
        elif tokens[position] in _BLOCKS and "{" in tokens[position : position + 4]:
            position = _closing(tokens, position)
        elif tokens[position] == "flags":
            end = _line_end(tokens, position)
            yield {
                "table": {"family": family, "name": name, "flags": [t for t in tokens[position + 1 : end] if t != ","]}
            }
            position = end
        else:
            position += 1


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
    for statement in statements(body):
        if statement[0] == "type" and "hook" in statement:
            chain |= _hook(statement)
        elif statement[0] == "policy" and len(statement) > 1:
            chain["policy"] = statement[1]
        elif statement[0] not in ("comment", "flags"):
            rules.append(statement)
    yield {"chain": chain}
    for statement in rules:
        yield {"rule": _rule(base["family"], base["table"], base["name"], statement)}


def _hook(tokens: list[str]) -> Json:
    priority = tokens.index("priority")
    hook: Json = {"type": tokens[1], "hook": tokens[tokens.index("hook") + 1]}
    hook["prio"] = priority_number(" ".join(tokens[priority + 1 :]))
    for option in ("device", "devices"):
        if option in tokens[:priority]:
            device = tokens[tokens.index(option) + 1 : priority]
            hook["dev"] = [unquoted(word) for word in device if word not in ("=", "{", "}", ",")]
    return hook


def _rule(family: str, table: str, chain: str, statement: list[str]) -> Json:
    expressions, comment = parse_rule(statement)
    text = " ".join(w for w in statement if w != "\n").replace(" ,", ",").replace("xt lost ", "")
    rule: Json = {"family": family, "table": table, "chain": unquoted(chain), "expr": expressions, "text": text}
    return {**rule, "comment": comment} if comment else rule


def _set_body(body: list[str]) -> Json:
    body_fields: Json = {}
    for statement in statements(body):
        if statement[0] != "elements" and "{" in statement:
            raise ValueError("its lines are not apart")
        match statement[0]:
            case "type" | "typeof":
                keys = [key.strip() for key in " ".join(statement[1:]).partition(":")[0].split(".")]
                body_fields["type"] = keys
            case "elements" if "{" in statement:
                inner = statement[statement.index("{") + 1 :]
                body_fields["elem"] = elements_of(inner[:-1] if inner[-1:] == ["}"] else inner)
    return body_fields


def _command(command: str, tokens: list[str], unread: list[str]) -> Iterator[Json]:
    """One command of a transaction."""
    if not tokens or command == "reset":
        return
    kind, arguments = tokens[0], tokens[1:]
    if kind not in ("table", "set", "map", "chain", "rule", "element", "ruleset", "meter"):
        if kind in (*_BLOCKS, "flowtable"):
            return
        kind, arguments = "rule", tokens  # `insert inet t c …`: the word may be left out
    family = arguments.pop(0) if arguments and arguments[0] in _FAMILIES else "ip"
    verb = "add" if command == "create" else command
    try:
        for obj in _objects_of(verb, kind, family, arguments, unread):
            (name, body), *_ = obj.items()
            yield {verb: {name: body}}
    except (ValueError, IndexError, RecursionError):
        unread.append(f"a command that is not read: {command} {' '.join(tokens)[:80]}")


def _objects_of(verb: str, kind: str, family: str, arguments: list[str], unread: list[str]) -> Iterator[Json]:
    if kind == "ruleset":
        yield {"ruleset": {}}
    elif kind == "table":
        if verb == "add" and "{" in arguments:
            yield from _whole_table(["table", family, *arguments], unread)
        else:
            yield {"table": {"family": family, "name": arguments[0]}}
    elif kind in ("set", "map", "chain", "meter"):
        body = arguments[3:-1] if arguments[2:3] == ["{"] else []
        yield from _member(family, arguments[0], kind, arguments[1], body, unread)
    elif kind == "rule":
        statement = arguments[2:]
        rule: Json = {}
        while statement and statement[0] in ("handle", "index", "position"):
            number = whole_number(statement[1]) if len(statement) > 1 else None
            key = "position" if statement[0] == "handle" and verb != "replace" else statement[0]
            rule[key] = -1 if number is None else number
            statement = statement[2:]
        yield {"rule": {**_rule(family, arguments[0], arguments[1], statement), **rule}}
    elif kind == "element":
        elements = elements_of(arguments[arguments.index("{") + 1 : -1])
        yield {"element": {"family": family, "table": arguments[0], "name": arguments[1], "elem": elements}}
