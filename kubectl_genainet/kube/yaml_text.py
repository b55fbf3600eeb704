"""The values in a text of YAML or JSON, read as kubectl and Helm read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import yaml

from kubectl_genainet.errors import InputError

Warn = Callable[[str], None]


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
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, str | int | float | bool):
                if key in seen:
                    line = key_node.start_mark.line + 1
                    self._warn(
                        f"{self._source}, line {line}: the key {key!r} is given twice: the last one counts; "
                        "kubectl apply refuses it"
                    )
                seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        return mapping


def parse_text(source: str, text: str, warn: Warn) -> list[Any]:
    """Every document (or JSON value) of a text; None for an empty one. Raises InputError that names `source`."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [json.loads(text)]
        except json.JSONDecodeError as error:
            if not error.msg.startswith("Extra data"):
                try:
                    return _documents(source, text, warn)  # flow style, or JSON with comments
                except (yaml.YAMLError, RecursionError):
                    raise InputError(f"not JSON: {error}", source=source) from None
            return _json_stream(source, text)
        except RecursionError:
            raise InputError("not JSON: nested too deep", source=source) from None
    try:
        return _documents(source, text, warn)
    except RecursionError:
        raise InputError("not YAML: nested too deep", source=source) from None
    except (yaml.YAMLError, ValueError) as error:
        hint = (
            "It looks like a template: `helm template CHART | kubectl genainet … --manifests -`" if "{{" in text else ""
        )
        raise InputError(f"not YAML: {' '.join(str(error).split())}", source=source, hint=hint) from None


def _documents(source: str, text: str, warn: Warn) -> list[Any]:
    loader = _Loader(text, source, warn)
    try:
        found = []
        while loader.check_data():
            found.append(loader.get_data())
        return found
    finally:
        loader.dispose()


def _json_stream(source: str, text: str) -> list[Any]:
    """JSON values one after the other, as `kubectl … -o json` of several commands gives them."""
    decoder, found, position = json.JSONDecoder(), [], 0
    while position < len(text):
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise InputError(f"not JSON: {error}", source=source) from None
        found.append(value)
        position += len(text[position:]) - len(text[position:].lstrip())
    return found
