"""The functions of a Go template, over JSON data; integers are integers, as after a decoder that keeps them."""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote_plus

MISSING = object()  # a key that a map does not have
_VERB = re.compile(r"%([-+# 0]*+)(\d*+)(?:\.(\d*))?([A-Za-z%]|$)")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&#34;", "'": "&#39;"}


class TemplateError(Exception):
    """The template asks something that the value does not have, or that a function can't do."""


def has_value(value: Any) -> bool:
    """Whether `if` takes it for true: not false, 0, null, empty or absent."""
    return value is not MISSING and bool(value)


def sprint(value: Any) -> str:
    """As %v."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case float():
            return _float(value)
        case list():
            return f"[{' '.join(map(sprint, value))}]"
        case dict():
            return f"map[{' '.join(f'{key}:{sprint(each)}' for key, each in sorted(value.items()))}]"
    return "<nil>" if value is MISSING else str(value)


def _float(value: float) -> str:
    """The shortest text that stands for it, as %g: with an exponent below 1e-4 and from 1e6 on."""
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'+' if value > 0 else '-'}Inf"
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    assert isinstance(exponent, int)
    magnitude = len(digits) + exponent - 1
    if value and (magnitude < -4 or magnitude >= 6):
        fraction = "".join(map(str, digits[1:]))
        return f"{'-' * sign}{digits[0]}{'.' if fraction else ''}{fraction}e{'-' if magnitude < 0 else '+'}{abs(magnitude):02}"
    return f"{Decimal(repr(value)).normalize():f}"


def _print(*values: Any) -> str:
    """As Go's Sprint: a blank between two that are both no strings."""
    text = ""
    for number, value in enumerate(values):
        if number and not isinstance(value, str) and not isinstance(values[number - 1], str):
            text += " "
        text += sprint(value)
    return text


def _println(*values: Any) -> str:
    return " ".join(map(sprint, values)) + "\n"


_MOST_WIDTH = 1_000_000  # as Go's fmt has it


def _printf(template: Any, *values: Any) -> str:
    if not isinstance(template, str):
        raise TemplateError("printf takes a text first")
    unprinted = list(values)

    def put(verb: re.Match[str]) -> str:
        flags, width, precision, letter = verb.groups()
        if letter == "%":
            return "%"
        if not letter:
            return "%!(NOVERB)"
        if int(width or 0) > _MOST_WIDTH or int(precision or 0) > _MOST_WIDTH:
            return "%!(BADWIDTH)" if int(width or 0) > _MOST_WIDTH else "%!(BADPREC)"
        if not unprinted:
            return f"%!{letter}(MISSING)"
        text = _formatted(unprinted.pop(0), letter, flags, None if precision is None else int(precision or 0))
        return _padded(text, flags, int(width or 0))

    text = _VERB.sub(put, template)
    if unprinted:
        text += f"%!(EXTRA {', '.join(f'{_type(each)}={sprint(each)}' for each in unprinted)})"
    return text


def _formatted(value: Any, letter: str, flags: str, precision: int | None) -> str:
    whole = isinstance(value, int) and not isinstance(value, bool)
    plus = "+" if "+" in flags else ""
    if letter == "T":
        return _type(value)
    if letter == "v" or (letter == "t" and isinstance(value, bool)):
        return sprint(value)
    if letter in "sq" and isinstance(value, str):
        text = value[:precision]
        return json.dumps(text, ensure_ascii=False) if letter == "q" else text
    if letter in "sdqxX" and isinstance(value, (list, dict)):
        return _each_formatted(value, letter, flags, precision)
    if letter in "dxXob" and whole:
        return format(value, f"{plus}{letter}")
    if letter in "xX" and isinstance(value, str):
        text = value.encode().hex()
        return text.upper() if letter == "X" else text
    if letter == "c" and whole:
        return chr(value) if 0 <= value < 0xD800 or 0xE000 <= value <= 0x10FFFF else "\ufffd"
    if letter in "feEgG" and isinstance(value, float):
        return _float_formatted(value, letter, plus, precision)
    return f"%!{letter}({_type(value)}={sprint(value)})" if value is not None else f"%!{letter}(<nil>)"


def _each_formatted(value: list[Any] | dict[str, Any], letter: str, flags: str, precision: int | None) -> str:
    def one(each: Any) -> str:
        return _formatted(each, letter, flags, precision)

    if isinstance(value, list):
        return f"[{' '.join(map(one, value))}]"
    return f"map[{' '.join(f'{one(key)}:{one(each)}' for key, each in sorted(value.items()))}]"


def _float_formatted(value: float, letter: str, plus: str, precision: int | None) -> str:
    if letter in "gG" and precision is None:
        text = f"{plus if value >= 0 else ''}{_float(value)}"
        return text.upper() if letter == "G" else text
    return format(value, f"{plus}.{6 if precision is None else precision}{letter}")


def _padded(text: str, flags: str, width: int) -> str:
    if "-" in flags:
        return text.ljust(width)
    if "0" in flags:
        return text.zfill(width)
    return text.rjust(width)


def _type(value: Any) -> str:
    kinds = {bool: "bool", int: "int64", float: "float64", str: "string", type(None): "<nil>"}
    return kinds.get(type(value), "map[string]interface {}" if isinstance(value, dict) else "[]interface {}")


def _len(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, (list, dict)):
        return len(value)
    raise TemplateError(f"len of {sprint(value)}, which has none")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict) and isinstance(key, str):
            value = value.get(key, MISSING)
        elif isinstance(value, list) and isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < len(value):
                raise TemplateError(f"index {key} is beyond a list of {len(value)}")
            value = value[key]
        else:
            raise TemplateError(f"index {sprint(key)} of {sprint(value)}")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, (str, list)) or len(bounds) > 2 or not all(type(b) is int for b in bounds):
        raise TemplateError(f"slice of {sprint(value)}")
    content: Any = value.encode() if isinstance(value, str) else value
    start, end = (*bounds, len(content))[:2] if bounds else (0, len(content))
    if not 0 <= start <= end <= len(content):
        raise TemplateError(f"slice from {start} to {end} of {len(content)}")
    part = content[start:end]
    return part.decode(errors="replace") if isinstance(value, str) else part


def _exists(value: Any, *keys: Any) -> bool:
    """kubectl's own: whether `index` finds something."""
    try:
        return _index(value, *keys) is not MISSING
    except TemplateError:
        return False


def _base64decode(text: Any) -> str:
    """kubectl's own."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, TypeError) as error:
        raise TemplateError(f"base64decode: {error}") from None


def _comparable(first: Any, second: Any) -> None:
    if type(first) is not type(second) or isinstance(first, (list, dict)):
        raise TemplateError(
            f"{sprint(first)} and {sprint(second)} can't be compared: their types differ or have no order"
        )


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise TemplateError("eq takes two values or more")
    for other in others:
        if MISSING in (first, other) or first is None or other is None:
            if (first is MISSING or first is None) and (other is MISSING or other is None):
                return True
            continue
        _comparable(first, other)
        if first == other:
            return True
    return False


def _ordered(decide: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def compare(first: Any, second: Any) -> bool:
        _comparable(first, second)
        if not isinstance(first, (int, float, str)) or isinstance(first, bool):
            raise TemplateError(f"{sprint(first)} has no order")
        return decide(first, second)

    return compare


def _escaped(values: Sequence[Any]) -> str:
    return "".join(_ENTITIES.get(each, each) for each in _print(*values))


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "base64decode": _base64decode,
    "eq": _equal,
    "exists": _exists,
    "ge": _ordered(lambda first, second: first >= second),
    "gt": _ordered(lambda first, second: first > second),
    "html": lambda *values: _escaped(values),
    "index": _index,
    "le": _ordered(lambda first, second: first <= second),
    "len": _len,
    "lt": _ordered(lambda first, second: first < second),
    "ne": lambda first, second: not _equal(first, second),
    "not": lambda value: not has_value(value),
    "print": _print,
    "printf": _printf,
    "println": _println,
    "slice": _slice,
    "urlquery": lambda *values: quote_plus(_print(*values)),
}
