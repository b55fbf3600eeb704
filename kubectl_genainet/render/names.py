"""`-o name`, as kubectl has it: the objects that records name, each once, a line each."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec

from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.results.path import Party, ServiceRef
from kubectl_genainet.proxy.report import RulesRow
from kubectl_genainet.render.text import printable


def object_names(value: Any) -> Iterator[str]:
    """KIND/NAME of every object in a record: pods, Services, and what findings and their evidence are about."""
    match value:
        case Party():
            if value.pod:
                yield f"pod/{value.pod}"
        case ServiceRef():
            yield f"service/{value.name}"
        case ObjectRef():
            yield f"{value.kind.lower()}/{value.name}"
        case RulesRow():
            if "/" in value.service:
                yield f"service/{value.service.rpartition('/')[2].partition(':')[0]}"
        case msgspec.Struct():
            for name in value.__struct_fields__:
                yield from object_names(getattr(value, name))
        case list() | tuple():
            for each in value:
                yield from object_names(each)
        case dict():
            yield from object_names(list(value.values()))
        case _ if is_dataclass(value):
            for field in fields(value):
                yield from object_names(getattr(value, field.name))


def name_writer() -> Callable[[object], None]:
    """Writes the names in a record that were not in an earlier one."""
    written: set[str] = set()

    def write(record: object) -> None:
        for name in object_names(record):
            if name not in written:
                written.add(name)
                sys.stdout.write(f"{printable(name)}\n")
        sys.stdout.flush()

    return write
