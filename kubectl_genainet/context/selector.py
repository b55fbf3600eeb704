"""Label selectors as kubectl takes them: `app=rag,tier!=gpu`, `env in (prod, qa)`, `gpu`, `!gpu`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_genainet.errors import InputError
from kubectl_genainet.policy.matching.selectors import Operator, Requirement, Selector

_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_EQUAL = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s+\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")


def parse_selector(text: str) -> Selector:
    """Raises InputError for what is no selector."""
    return Selector(tuple(_requirement(part.strip(), text) for part in _parts(text)))


def _parts(text: str) -> Iterator[str]:
    """What commas outside of parentheses separate."""
    begin, in_values = 0, False
    for position, sign in enumerate(text):
        if sign in "()":
            in_values = sign == "("
        elif sign == "," and not in_values:
            yield text[begin:position]
            begin = position + 1
    yield text[begin:]


def _requirement(part: str, text: str) -> Requirement:
    if match := _EQUAL.fullmatch(part):
        key, operator, value = match.groups()
        return Requirement(key, Operator.NOT_IN if operator == "!=" else Operator.IN, (value,))
    if match := _SET.fullmatch(part):
        key, operator, values = match.groups()
        among = tuple(value.strip() for value in values.split(","))
        return Requirement(key, Operator.NOT_IN if operator == "notin" else Operator.IN, among)
    if match := _EXISTS.fullmatch(part):
        return Requirement(match[2], Operator.DOES_NOT_EXIST if match[1] else Operator.EXISTS)
    raise InputError(
        f"{text!r} is not a label selector", hint="Selectors are app=rag, tier!=gpu, 'env in (prod, qa)', gpu or !gpu."
    )
