"""Values as JSON and YAML: what a name brought along is escaped within its string, which stays the same value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

import msgspec
import yaml

_SafeDumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\n]")  # at most; str.isprintable decides


class _Dumper(_SafeDumper):  # type: ignore[misc]
    """With double quotes around what only they can escape."""


def _represented(dumper: Any, text: str) -> Any:
    style = None if _is_shown(text) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represented)


def json_text(value: object, *, indent: int = 0) -> str:
    """One line of JSON, or indented. Nothing in it does anything to a terminal, or ends a line for any reader."""
    try:
        text = msgspec.json.encode(value).decode()
    except UnicodeEncodeError:
        text = msgspec.json.encode(_in_utf8(msgspec.to_builtins(value))).decode()
    return _escaped(msgspec.json.format(text, indent=indent) if indent else text, lambda c: json.dumps(c)[1:-1])


def yaml_text(values: Iterable[object], **options: Any) -> str:
    """A YAML document each. Where a string holds what does something to a terminal, it is escaped in double quotes."""
    built = [_in_utf8(msgspec.to_builtins(value)) for value in values]
    text = str(yaml.dump_all(built, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options))
    return _escaped(text, lambda c: f"\\u{ord(c):04x}" if ord(c) < 1 << 16 else f"\\U{ord(c):08x}")


def _in_utf8(value: Any) -> Any:
    """With the bytes of a file's name that are none of UTF-8 as text (\\udcff): neither JSON nor YAML can hold them."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_in_utf8(key): _in_utf8(below) for key, below in value.items()}
    return list(map(_in_utf8, value)) if isinstance(value, list | tuple) else value


def _is_shown(text: str) -> bool:
    return text.replace("\n", "").isprintable()


def _escaped(text: str, escape: Any) -> str:
    """What is not printable stands in strings only: msgspec and PyYAML write all else of a document in ASCII."""
    if _is_shown(text):
        return text
    return _UNPRINTABLE.sub(lambda found: found[0] if found[0].isprintable() else escape(found[0]), text)
