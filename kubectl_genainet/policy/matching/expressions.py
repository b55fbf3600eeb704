"""Calico's selector expressions: `app == 'rag' && has(tier) && env in {'a', 'b'}`.

Source: Calico documentation, "Selector"; libcalico-go/lib/selector. A comparison with a label that is absent is false,
but `!=` and `not in` are true.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from kubectl_genainet.policy.matching.selectors import Operator, Selector
from kubectl_genainet.policy.where import Where

_SHOWN = 200  # characters of a selector in an error
MAX_DEPTH = 100  # of parentheses and negations; no selector that a person wrote has ten
_TOKEN = re.compile(
    r"""\s*(?:(?P<op>&&|\|\||==|!=|!|\(|\)|\{|\}|,)|(?P<text>"[^"]*"|'[^']*')|(?P<word>[A-Za-z0-9_./:-]+))"""
)


class Everything(msgspec.Struct, frozen=True):
    """all(), and the empty selector."""

    def matches(self, labels: Mapping[str, str]) -> bool:
        return True


class Compare(msgspec.Struct, frozen=True):
    """One label against values: `operator` is ==, !=, in, not in, contains, starts with, ends with or has."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "has":
                return value is not None
            case "!=" | "not in":
                return value not in self.values
            case "==" | "in":
                return value in self.values
            case "contains":
                return value is not None and self.values[0] in value
            case "starts with":
                return value is not None and value.startswith(self.values[0])
            case _:
                return value is not None and value.endswith(self.values[0])


class Not(msgspec.Struct, frozen=True):
    part: Expression

    def matches(self, labels: Mapping[str, str]) -> bool:
        return not self.part.matches(labels)


class And(msgspec.Struct, frozen=True):
    parts: tuple[Expression, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(p.matches(labels) for p in self.parts)


class Or(msgspec.Struct, frozen=True):
    parts: tuple[Expression, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return any(p.matches(labels) for p in self.parts)


Expression = Everything | Compare | Not | And | Or
EVERY_LABEL = Everything()
NAMESPACE_NAME = "projectcalico.org/name"  # the label by which a namespace is known to Calico


def expression_of(selector: Selector) -> Expression:
    """A label selector of Kubernetes as an expression."""
    parts: list[Expression] = []
    for requirement in selector.requirements:
        match requirement.operator:
            case Operator.IN:
                parts.append(Compare(requirement.key, "in", requirement.values))
            case Operator.NOT_IN:
                parts.append(Compare(requirement.key, "not in", requirement.values))
            case Operator.EXISTS:
                parts.append(Compare(requirement.key, "has"))
            case Operator.DOES_NOT_EXIST:
                parts.append(Not(Compare(requirement.key, "has")))
    return And(tuple(parts))


def parse_selector(text: str, where: Where) -> Expression:
    """Parses a selector; raises InputError that says where it goes wrong. `global()` is left to the caller."""
    parser = _Parser(text, where)
    return parser.whole()


def in_namespaces(expression: Expression) -> Expression:
    """A selector of namespaces as Calico takes it: all() is what has a namespace, and a negation also what has none (a
    GlobalNetworkSet)."""
    match expression:
        case Everything():
            return Compare(NAMESPACE_NAME, "has")
        case Not(part=part):
            return Not(in_namespaces(part))
        case And(parts=()):
            return Compare(NAMESPACE_NAME, "has")
        case And(parts=parts):
            return And(tuple(map(in_namespaces, parts)))
        case Or(parts=parts):
            return Or(tuple(map(in_namespaces, parts)))
        case _:
            return expression


def keys_of(expression: Expression) -> frozenset[str]:
    """The labels that an expression looks at."""
    match expression:
        case Compare(key=key):
            return frozenset({key})
        case Not(part=part):
            return keys_of(part)
        case And(parts=parts) | Or(parts=parts):
            return frozenset().union(*map(keys_of, parts))
        case _:
            return frozenset()


class _Parser:
    """Recursive descent: or, and, not, atom."""

    def __init__(self, text: str, where: Where) -> None:
        self._text, self._where = text, where
        self._tokens = self._split()
        self._at = self._depth = 0

    def _split(self) -> list[str]:
        tokens, position, text = [], 0, self._text.strip()
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise self._error(f"unexpected {text[position:].strip()[:20]!r}")
            tokens.append(match.group().strip())
            position = match.end()
        return tokens

    def _error(self, problem: str) -> Exception:
        text = self._text if len(self._text) <= _SHOWN else f"{self._text[:_SHOWN]}…"
        return self._where.error(f"{text!r} is not a selector: {problem}")

    def _peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def _take(self, wanted: str = "") -> str:
        token = self._peek()
        if not token or (wanted and token != wanted):
            raise self._error(
                f"{wanted or 'something'} is missing after {' '.join(self._tokens[: self._at])[-_SHOWN:]!r}"
            )
        self._at += 1
        return token

    def whole(self) -> Expression:
        if not self._tokens:
            return Everything()
        parsed = self._or()
        if self._peek():
            raise self._error(f"unexpected {self._peek()!r}")
        return parsed

    def _or(self) -> Expression:
        parts = [self._and()]
        while self._peek() == "||":
            self._take()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else Or(tuple(parts))

    def _and(self) -> Expression:
        parts = [self._not()]
        while self._peek() == "&&":
            self._take()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _not(self) -> Expression:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(f"it is nested deeper than {MAX_DEPTH}")
        try:
            if self._peek() == "!":
                self._take()
                return Not(self._not())
            return self._atom()
        finally:
            self._depth -= 1

    def _atom(self) -> Expression:
        if self._peek() == "(":
            self._take()
            inner = self._or()
            self._take(")")
            return inner
        word = self._take()
        if word in ("all", "has", "global") and self._peek() == "(":
            self._take("(")
            key = self._take() if word == "has" else ""
            self._take(")")
            if word == "global":
                raise self._error("global() is only for a namespaceSelector of its own")
            return Compare(key, "has") if key else Everything()
        if not re.fullmatch(r"[A-Za-z0-9_./-]+", word):
            raise self._error(f"unexpected {word!r}")
        return self._comparison(word)

    def _comparison(self, key: str) -> Expression:
        operator = self._take()
        if operator in ("not", "starts", "ends"):
            operator = f"{operator} {self._take('in' if operator == 'not' else 'with')}"
        if operator in ("in", "not in"):
            self._take("{")
            values = []
            while self._peek() != "}":
                values.append(self._string())
                if self._peek() != "}":
                    self._take(",")
            self._take("}")
            return Compare(key, operator, tuple(values))
        if operator not in ("==", "!=", "contains", "starts with", "ends with"):
            raise self._error(f"unknown operator {operator!r}")
        return Compare(key, operator, (self._string(),))

    def _string(self) -> str:
        token = self._take()
        if token[0] not in "'\"":
            raise self._error(f"{token!r} needs quotes")
        return token[1:-1]
