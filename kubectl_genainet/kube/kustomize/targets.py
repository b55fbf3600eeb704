"""Which objects a patch of a kustomization is for, by its target: patterns of group, version, kind, name and namespace, and
selectors of labels and annotations.

A target that is not read is named, and its patch is for nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from kubectl_genainet.errors import InputError
from kubectl_genainet.kube.kustomize.patterns import pattern

_TERM = re.compile(r"(?P<key>[\w./\-]+) *(?P<operator>==?|!=) *(?P<value>[\w.\-]*)|(?P<not>!?) *(?P<has>[\w./\-]+)")
_SET = re.compile(r"(?P<key>[\w./\-]+) +(?P<operator>in|notin) *\((?P<values>[\w.\-, ]*)\)")


def selects(target: dict[str, Any], obj: dict[str, Any]) -> bool:
    """Whether the target names the object. Raises InputError for a target that is not read."""
    metadata = obj.get("metadata") or {}
    group, _, version = str(obj.get("apiVersion", "")).rpartition("/")
    actual = {
        "group": group,
        "version": version,
        "kind": obj.get("kind", ""),
        "name": metadata.get("name", ""),
        "namespace": metadata.get("namespace", "default"),
    }
    for field, value in actual.items():
        if field in target and not pattern(str(target[field])).matches(str(value)):
            return False
    return all(
        match(metadata.get(held) or {})
        for field, held in (("labelSelector", "labels"), ("annotationSelector", "annotations"))
        for match in selector(str(target.get(field) or ""))
    )


Selects = Callable[[dict[str, Any]], bool]


@lru_cache(maxsize=1024)
def selector(text: str) -> tuple[Selects, ...]:
    """Each of the terms of a selector as kubectl takes it. Raises InputError for one that is none."""
    terms, unread = [], text.strip()
    while unread:
        term = _SET.match(unread) or _TERM.match(unread)
        after = unread[term.end() :].lstrip() if term else "?"
        if term is None or after[:1] not in ("", ","):
            raise InputError(f"the selector {text[:64]!r} of a patch's target is not read")
        terms.append(_term(term))
        unread = after[1:].lstrip()
    return tuple(terms)


def _term(match: re.Match[str]) -> Selects:
    groups = match.groupdict()
    if groups.get("has"):
        key, wanted = groups["has"], not groups["not"]
        return lambda labels: (key in labels) is wanted
    key, operator = groups["key"], groups["operator"]
    values = {v.strip() for v in groups["values"].split(",")} if "values" in groups else {groups["value"]}
    if operator in ("in", "=", "=="):
        return lambda labels: str(labels.get(key)) in values if key in labels else False
    return lambda labels: key not in labels or str(labels[key]) not in values
