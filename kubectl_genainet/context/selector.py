"""Label selectors as kubectl takes them: `app=rag,tier!=gpu`, `env in (prod, qa)`, `gpu`, `!gpu`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kubectl_genainet.errors import InputError

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUAL = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s+\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One requirement: the label's value is among `values` (None: it exists), or with `negated` it is not."""

    key: str
    values: frozenset[str] | None
    negated: bool

    def matches(self, labels: Mapping[str, str]) -> bool:
        held = self.key in labels and (self.values is None or labels[self.key] in self.values)
        return held != self.negated


@dataclass(frozen=True, slots=True)
class Selector:
    """All of its requirements must hold."""

    requirements: tuple[Requirement, ...]

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)


def parse_selector(text: str) -> Selector:
    """Raises InputError for what is no selector."""
    parts = [part.strip() for part in re.split(r",(?![^(]*\))", text)]
    return Selector(tuple(_requirement(part, text) for part in parts))


def _requirement(part: str, text: str) -> Requirement:
    if match := _EQUAL.fullmatch(part):
        key, operator, value = match.groups()
        return Requirement(key, frozenset({value}), operator == "!=")
    if match := _SET.fullmatch(part):
        key, operator, values = match.groups()
        return Requirement(key, frozenset(v.strip() for v in values.split(",")), operator == "notin")
    if match := _EXISTS.fullmatch(part):
        return Requirement(match[2], None, bool(match[1]))
    raise InputError(
        f"{text!r} is not a label selector", hint="Selectors are app=rag, tier!=gpu, 'env in (prod, qa)', gpu or !gpu."
    )
