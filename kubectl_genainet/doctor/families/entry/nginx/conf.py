"""nginx's configuration language, as far as it tells where requests are passed on and by which settings.

Source: https://nginx.org/en/docs/beginners_guide.html#conf_structure, https://nginx.org/en/docs/http/ngx_http_proxy_module.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_LONGEST = 256 * 1024  # characters of a file
_TOKEN = re.compile(
    r"\s+|#[^\n]*|\"((?:[^\"\\]|\\.)*)\"|'((?:[^'\\]|\\.)*)'|([{};])|(?![\"'])((?:\$\{[^}\s]*\}|\\.|[^\s{};])+)",
    re.DOTALL,
)
_PARTS = re.compile(r"([0-9]+)(ms|[smhdwMy]?)")
_UNIT_S = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "M": 2592000, "y": 31536000}
_BYTES = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}


@dataclass(frozen=True, slots=True)
class Directive:
    """A directive with its arguments and, of a block, what stands in it."""

    name: str
    args: tuple[str, ...]
    block: tuple[Directive, ...] = ()

    @property
    def value(self) -> str:
        return self.args[0] if self.args else ""

    def all(self, name: str) -> Iterator[Directive]:
        return (d for d in self.block if d.name == name)


@dataclass(frozen=True, slots=True)
class Proxy:
    """A `proxy_pass`, and the blocks around it, the outermost first."""

    target: str
    around: tuple[Directive, ...]

    @property
    def location(self) -> str:
        """The paths that it is for, as the innermost location names them; "/" in none."""
        return next((" ".join(b.args) for b in reversed(self.around) if b.name == "location"), "/")

    def setting(self, name: str) -> str | None:
        """The value in force of a directive that blocks inherit; None where none of them sets it."""
        for block in reversed(self.around):
            for directive in block.all(name):
                return directive.value
        return None

    def header(self, name: str) -> str | None:
        """What a request header is set to: a block that sets any inherits none."""
        for block in reversed(self.around):
            headers = {d.value.lower(): d.args[-1] for d in block.all("proxy_set_header") if len(d.args) > 1}
            if headers:
                return headers.get(name.lower())
        return None

    @property
    def includes(self) -> Iterator[str]:
        return (d.value for block in self.around for d in block.all("include"))

    @property
    def address(self) -> str:
        """The target, with the variables that one `set` around it gives a value."""
        values: dict[str, set[str]] = {}
        for block in self.around:
            for directive in block.all("set"):
                if len(directive.args) == 2:
                    values.setdefault(directive.args[0].lstrip("$"), set()).add(directive.args[1])

        def value(match: re.Match[str]) -> str:
            known = values.get(match[1] or match[2], set())
            return next(iter(known)) if len(known) == 1 else match[0]

        return re.sub(r"\$(?:\{(\w+)\}|(\w+))", value, self.target)


def parse(text: str) -> Directive | None:
    """The directives of a file, as a block without a name; None for what is no configuration, or has a block of Lua."""
    if len(text) > _LONGEST:
        return None
    stack: list[tuple[list[str], list[Directive]]] = [([], [])]
    words: list[str] = []
    position = 0
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            return None
        position = match.end()
        quoted, single, sign, word = match.groups()
        if sign is None:
            words += [w for w in (quoted, single, word) if w is not None]
        elif sign == ";" and words:
            stack[-1][1].append(Directive(words[0], tuple(words[1:])))
            words = []
        elif sign == "{" and words and not words[0].endswith("_by_lua_block"):
            stack.append((words, []))
            words = []
        elif sign == "}" and not words and len(stack) > 1:
            head, inner = stack.pop()
            stack[-1][1].append(Directive(head[0], tuple(head[1:]), tuple(inner)))
        else:
            return None
    return Directive("", (), tuple(stack[0][1])) if len(stack) == 1 and not words else None


def proxies(block: Directive, around: tuple[Directive, ...] = ()) -> Iterator[Proxy]:
    """Every `proxy_pass` of a server's locations, not those under a condition."""
    chain = (*around, block)
    for directive in block.block:
        if directive.name == "proxy_pass" and directive.args:
            yield Proxy(directive.value, chain)
        elif directive.name in ("http", "server", "location"):
            yield from proxies(directive, chain)


def upstreams(block: Directive) -> dict[str, tuple[str, ...]]:
    """The addresses of each `upstream`."""
    return {u.value: tuple(s.value for s in u.all("server")) for u in block.all("upstream")}


def duration(value: str) -> float | None:
    """A time in seconds ("300s", "5m", "1h 30m", "60"); None for what is none."""
    parts = _PARTS.findall(value)
    whole = "".join(number + unit for number, unit in parts) == value.replace(" ", "")
    return sum(int(number) * _UNIT_S[unit] for number, unit in parts) if parts and whole and len(value) < 64 else None


def size(value: str) -> int | None:
    """A size in bytes ("10m", "1024"); None for what is none."""
    match = re.fullmatch(r"([0-9]{1,15})([kmg]?)", value.lower())
    return int(match[1]) * _BYTES[match[2]] if match else None
