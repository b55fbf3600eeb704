"""Equal parts of decoded objects as one value."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

T = TypeVar("T")


class SharedParts:
    """Equal parts of decoded objects become one: 50,000 pods have the containers and labels of some thousand templates.

    The parts are frozen; nobody changes a decoded object's labels either.
    """

    def __init__(self) -> None:
        self._parts: dict[Any, Any] = {}
        self._fields: dict[type, tuple[str, ...]] = {}

    def of(self, decoded: T) -> T:
        """The same object; its members' tuples and mappings are those of an equal object seen before."""
        for name in self._names(decoded):
            member = getattr(decoded, name)
            for part_name in self._names(member):
                part = getattr(member, part_name)
                if part and (part.__class__ is tuple or part.__class__ is dict):
                    msgspec.structs.force_setattr(member, part_name, self._shared(part_name, part))
        return decoded

    def _shared(self, name: str, part: Any) -> Any:
        try:
            return self._parts.setdefault((name, part if part.__class__ is tuple else tuple(part.items())), part)
        except TypeError:  # mappings inside: it has no hash
            return part

    def _names(self, value: Any) -> tuple[str, ...]:
        if not isinstance(value, msgspec.Struct):
            return ()
        names = self._fields.get(value.__class__)
        if names is None:
            names = self._fields[value.__class__] = tuple(value.__struct_fields__)
        return names
