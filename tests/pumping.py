"""Strings that make a regular expression slow where one can, made of the expression itself.

A search that goes back does so within what a repetition takes: the strings repeat a character of each kind that the
expression tells apart, and each of its beginnings, behind each of its beginnings, and end in what it does not take.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from re import _compiler, _constants, _parser  # type: ignore[attr-defined]
from typing import Any

_ALPHABET = [*map(chr, range(32, 127)), "\t", "\n", "\0", "\x1b", "é"]
_REPETITIONS = {_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT}
_MOST_UNITS = 16
_MOST_BEGINNINGS = 5


@dataclass(frozen=True)
class Pumped:
    beginning: str
    unit: str
    end: str

    def text(self, length: int) -> str:
        return self.beginning + self.unit * (length // len(self.unit)) + self.end


def pumped(pattern: re.Pattern[Any]) -> Iterator[Pumped]:
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode("latin-1")
    tree = _parser.parse(text, pattern.flags & ~re.UNICODE)
    beginnings = list(dict.fromkeys(["", *_beginnings(tree)]))
    units = [
        *_kinds(tree),
        *(unit for beginning in beginnings[1:] for unit in (beginning, f"{beginning} ", f"{beginning}\n")),
    ]
    for unit in list(dict.fromkeys(units))[:_MOST_UNITS]:
        for beginning in beginnings[:_MOST_BEGINNINGS]:
            for end in ("\0", "\n"):
                yield Pumped(beginning, unit, end)


def _kinds(tree: Any) -> list[str]:
    """One character of each kind that the expression's sets and literals tell apart."""
    sets = {_members(node) for node in _leaves(tree)}
    kinds: dict[tuple[bool, ...], str] = {}
    for character in _ALPHABET:
        kinds.setdefault(tuple(character in members for members in sets), character)
    return list(kinds.values())


def _leaves(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Nodes of the expression that take one character."""
    for operator, argument in tree:
        if operator in (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY):
            yield operator, argument
        for part in _parts(operator, argument):
            yield from _leaves(part)


def _parts(operator: Any, argument: Any) -> list[Any]:
    if operator in _REPETITIONS:
        return [argument[2]]
    if operator is _constants.SUBPATTERN:
        return [argument[3]]
    if operator is _constants.BRANCH:
        return list(argument[1])
    if operator in (_constants.ASSERT, _constants.ASSERT_NOT):
        return [argument[1]]
    return [argument] if operator is _constants.ATOMIC_GROUP else []


_members_of: dict[str, frozenset[str]] = {}


def _members(leaf: tuple[Any, Any]) -> frozenset[str]:
    """The characters that a node takes."""
    key = repr(leaf)
    if key not in _members_of:
        compiled = _compiler.compile(_parser.SubPattern(_parser.State(), [leaf]))
        _members_of[key] = frozenset(c for c in _ALPHABET if compiled.match(c))
    return _members_of[key]


def _beginnings(tree: Any) -> list[str]:
    """What the expression's sequences take up to each of their nodes, each repetition once."""
    texts: list[str] = []
    text = ""
    for operator, argument in tree:
        for part in _parts(operator, argument):
            if operator not in (_constants.ASSERT, _constants.ASSERT_NOT):
                texts += [text + inner for inner in _beginnings(part)]
        text += _sample(operator, argument)
        texts.append(text)
    return texts


def _sample(operator: Any, argument: Any) -> str:
    if operator in (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY):
        members = _members((operator, argument))
        return str(next((c for c in _ALPHABET if c in members and c.isalnum()), min(members, default="")))
    if operator in _REPETITIONS:
        least, most, inner = argument
        return "".join(_sample(*node) for node in inner) * int(max(least, min(most, 1)))
    if operator is _constants.BRANCH:
        return "".join(_sample(*node) for node in argument[1][0])
    if operator in (_constants.SUBPATTERN, _constants.ATOMIC_GROUP):
        return "".join(_sample(*node) for part in _parts(operator, argument) for node in part)
    return ""
