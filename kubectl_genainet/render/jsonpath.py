"""`-o jsonpath=TEMPLATE`, as kubectl has it: text with {expressions}, {range …}{end} and {"literals"}, once a record."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec
from jsonpath_ng.ext.parser import parse

from kubectl_genainet.errors import InputError
from kubectl_genainet.render.text import printable

PREFIX = "jsonpath="
MAX_TEMPLATE = 8192  # characters
_PART = re.compile(r"\{((?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^{}\"'])*)\}")
_ESCAPED = re.compile(
    r"\.((?:[^.\[\]()\\\s]*\\\.[^.\[\]()\\\s]*)+)"
)  # a name with dots: .labels.app\.kubernetes\.io/name

_ESCAPE = re.compile(r"""\\(?:[abfnrtv\\'"]|[0-3]?[0-7]{1,2}|x[0-9a-fA-F]{2}|u(?![dD][89a-fA-F])[0-9a-fA-F]{4})""")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_NOT_KUBECTLS = re.compile(r"=~|`(?!this`)")  # what the library adds: a regular expression may take for ever


@dataclass(slots=True)
class _Range:
    """Parts that are repeated for each value of an expression; `values` is None for the template itself."""

    values: Any = None
    parts: list[Any] = field(default_factory=list)  # str, an expression, or _Range


class JsonPathTemplate:
    """Raises InputError for a template that can't be read."""

    def __init__(self, text: str) -> None:
        if len(text) > MAX_TEMPLATE:
            raise InputError(f"a JSONPath template has at most {MAX_TEMPLATE} characters")
        open_ranges = [_Range()]
        start = 0
        text = text if "{" in text else f"{{{text}}}"
        for part in _PART.finditer(text):
            open_ranges[-1].parts += [text[start : part.start()]] if part.start() > start else []
            start = part.end()
            _take(part.group(1).strip(), open_ranges)
        if len(open_ranges) > 1 or "{" in text[start:]:
            raise InputError(f"the JSONPath template {text!r} does not end", hint="{range …} ends with {end}.")
        self._root = open_ranges[0]
        self._root.parts += [text[start:]] if text[start:] else []

    def text_of(self, record: object) -> str:
        try:
            return "".join(_texts(self._root, msgspec.to_builtins(record)))
        except Exception as error:  # the library's operators raise what they like for values that they don't fit
            raise InputError(f"the JSONPath template does not fit the record: {error}") from None


def _take(inner: str, open_ranges: list[_Range]) -> None:
    if inner == "end":
        if len(open_ranges) == 1:
            raise InputError("{end} without {range …} in the JSONPath template")
        open_ranges.pop()
    elif inner.startswith("range "):
        repeated = _Range(_expression(inner.removeprefix("range ").strip()))
        open_ranges[-1].parts.append(repeated)
        open_ranges.append(repeated)
    elif inner[:1] in ("'", '"'):
        open_ranges[-1].parts.append(_literal(inner[1:-1]))
    else:
        open_ranges[-1].parts.append(_expression(inner))


def _literal(text: str) -> str:
    """What is written between quotes. An escape that is none stays as it is."""
    return _ESCAPE.sub(lambda escape: escape.group().encode().decode("unicode_escape"), text)


@lru_cache(maxsize=256)
def _expression(text: str) -> Any:
    path = _ESCAPED.sub(lambda name: f"['{name.group(1).replace(chr(92), '')}']", text)
    path = path.removeprefix("@").removeprefix("$") or "$"
    if _NOT_KUBECTLS.search(_QUOTED.sub("", path)):
        raise InputError(f"{{{text}}} has a regular expression or a function: kubectl's JSONPath has neither")
    try:
        return parse(f"${path}" if path[0] in ".[" else path)
    except Exception as error:  # the library's lexer and parser raise what they like
        raise InputError(f"{{{text}}} is no JSONPath: {error}", hint="For example {.flow.client.pod}.") from None


def _texts(of: _Range, value: Any) -> Iterator[str]:
    for part in of.parts:
        if isinstance(part, str):
            yield part
        elif isinstance(part, _Range):
            for match in part.values.find(value):
                yield from _texts(part, match.value)
        else:
            yield " ".join(_text(match.value) for match in part.find(value))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return printable(value)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text if text.isprintable() else printable(json.dumps(value, separators=(",", ":")))


def jsonpath_writer(output: str) -> Callable[[object], None]:
    """Writes what the template makes of a record; a line of its own where the template does not end one."""
    template = JsonPathTemplate(output.removeprefix(PREFIX))

    def write(record: object) -> None:
        text = template.text_of(record)
        sys.stdout.write(text if text.endswith("\n") or not text.strip() else f"{text}\n")
        sys.stdout.flush()

    return write
