"""The values in a text of YAML or JSON, read as kubectl and Helm read them."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import yaml

from kubectl_genainet.errors import InputError

_TOO_DEEP = "nested too deep"
Warn = Callable[[str], None]
MAX_DEPTH = 200  # of lists and mappings in each other
MAX_ALIASED = 100_000  # values that a text's aliases may stand for in all: a few lines of them can stand for billions


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML with timestamps left as text. `warn` hears of keys given twice: the last one counts, as Helm installs it."""

    yaml_implicit_resolvers = {
        first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, text: str, source: str, warn: Warn) -> None:
        super().__init__(text)
        self._source, self._warn = source, warn

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            text = key_node.tag == "tag:yaml.org,2002:str"
            key = key_node.value if text else self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool):
                if key in keys:
                    line = key_node.start_mark.line + 1
                    self._warn(
                        f"{self._source}, line {line}: the key {key!r} is given twice: the last one counts; "
                        "kubectl apply refuses it"
                    )
                keys.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def _construct_int(loader: Any, node: Any) -> int:
    return _fitting(_Loader.construct_yaml_int(loader, node))


def _fitting(value: int | str) -> int:
    """A number that other programs read too. Raises ValueError."""
    number = int(value)
    if not -(1 << 63) <= number < 1 << 64:
        raise ValueError("a whole number of more than 64 bits")
    return number


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)


def parse_text(source: str, text: str, warn: Warn) -> list[Any]:
    """Every document (or JSON value) of a text; None for an empty one. Raises InputError that names `source`.

    However the text is made, what comes out is not much larger than it, and not nested deeper than MAX_DEPTH.
    """
    try:
        values = _values(source, text, warn)
    except RecursionError:
        raise InputError(_TOO_DEEP, source=source) from None
    if problem := next(filter(None, map(problem_of, values)), ""):
        raise InputError(problem, source=source)
    return values


# `kubectl cluster-info dump` without a folder writes containers' logs between the objects.
_LOG_BEGINS, _LOG_ENDS = "==== START logs for container ", "==== END logs for container "


def _values(source: str, text: str, warn: Warn) -> list[Any]:
    if _LOG_BEGINS in text:
        text = _without_logs(text)
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [json.loads(text, parse_int=_fitting)]
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):
                try:
                    return _documents(source, text, warn)  # flow style, or JSON with comments
                except (yaml.YAMLError, ValueError):
                    raise InputError(f"not JSON: {error}", source=source) from None
            if "\n---" in text:  # documents of YAML, of which the first happens to be JSON
                with contextlib.suppress(yaml.YAMLError, ValueError):
                    return _documents(source, text, warn)
            return _json_stream(source, text)
        except ValueError as error:  # a number of more digits than Python converts
            raise InputError(f"not JSON: {error}", source=source) from None
    try:
        return _documents(source, text, warn)
    except (yaml.YAMLError, ValueError) as error:
        hint = (
            "It looks like a template: `helm template CHART | kubectl genainet … --manifests -`" if "{{" in text else ""
        )
        problem = " ".join(str(error).replace(' in "<unicode string>",', " at").split())
        raise InputError(f"not YAML: {problem}", source=source, hint=hint) from None


def _without_logs(text: str) -> str:
    """The text without containers' logs; a log that does not end is kept, and is no object."""
    kept: list[str] = []
    log: list[str] = []
    for line in text.split("\n"):
        if log or line.startswith(_LOG_BEGINS):
            log.append(line)
        else:
            kept.append(line)
        if log and line.startswith(_LOG_ENDS):
            log = []
    return "\n".join(kept + log)


def problem_of(value: Any) -> str:
    """Why a value can't be an object of Kubernetes; "" for one that can."""
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            return _TOO_DEEP
        others = [value for value in level if value.__class__ not in _PLAIN]
        strange = next((v for v in others if not isinstance(v, dict | list | str | int | float)), None)
        if strange is not None:
            return f"a value that JSON does not have: {type(strange).__name__}"
        level = [inner for outer in others for inner in _inside(outer)]
    return ""


_PLAIN = frozenset((str, int, bool, float, type(None)))


def _inside(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _documents(source: str, text: str, warn: Warn) -> list[Any]:
    if "*" in text:
        _check_aliases(source, text)
    loader = _Loader(text, source, warn)
    try:
        documents = []
        while loader.check_data():
            documents.append(loader.get_data())
        return documents
    finally:
        loader.dispose()


# Where an alias can begin: most texts have none, and need not be read twice.
MAY_ALIAS = re.compile(r"(?<!\w)\*[\w-]")


def _check_aliases(source: str, text: str) -> None:
    """Counts what the aliases stand for before any of it is made. Raises InputError, and what yaml.parse does."""
    if not MAY_ALIAS.search(text):
        return
    sizes: dict[str, int] = {}  # of what has an anchor, its aliases counted as what they stand for
    begun: list[tuple[str | None, int]] = []  # (anchor, size before it) of the collections that are open
    size = aliased = 0
    for event in yaml.parse(text, Loader=_Loader.__base__):
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in sizes:
                raise InputError(f"not YAML: *{str(event.anchor)[:64]} stands for itself or for nothing", source=source)
            size += sizes[event.anchor]
            aliased += sizes[event.anchor]
            if aliased > MAX_ALIASED:
                raise InputError(f"its aliases stand for more than {MAX_ALIASED} values", source=source)
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, size))
            sizes.pop(event.anchor or "", None)
            size += 1
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor:
                sizes[event.anchor] = 1 + len(event.value) // 64
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            if anchor:
                sizes[anchor] = size - before


def _json_stream(source: str, text: str) -> list[Any]:
    """JSON values one after the other, as `kubectl … -o json` of several commands gives them."""
    decoder, values, position = json.JSONDecoder(parse_int=_fitting), [], 0
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError as error:
            raise InputError(f"not JSON: {error}", source=source) from None
        values.append(value)
        while position < len(text) and text[position].isspace():
            position += 1
    return values
