"""Items of a list as objects, in little memory: what many objects have in common is one value.

50,000 pods come from some thousand templates. A member of `metadata`, `spec` or `status` that was seen a moment ago, byte
for byte (labels, containers, volumes, tolerations), is not decoded again. Whoever changes an object copies it first.
"""

from __future__ import annotations

from sys import intern
from typing import Any

import msgspec

from kubectl_genainet.kube.resources import Served
from kubectl_genainet.model.kube import KubeObject

_REMEMBERED = 8192  # parts; a list is sorted by name, so that what has the same owner is close together
_WORTH_SHARING = 1 << 13  # bytes; a longer part is one of its kind
_OPENED = frozenset({"metadata", "spec", "status"})
# Heavy and never analysed: test_kube_items.py holds that nothing else in the package names them.
_NOT_KEPT = frozenset({"managedFields", "volumesInUse", "volumesAttached"})
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder(Any)
Item = dict[str, msgspec.Raw]


class ItemDecoder:
    """Decodes the items of one list, or the changes of one watch. Not thread-safe."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._left_out = _NOT_KEPT | ({"images"} if served.resource.kind == "Node" else set())
        self._remembered: dict[bytes, Any] = {}
        self._flat: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}

    def object(self, item: Item) -> KubeObject:
        """An item with its kind, without nulls and without what is heavy and never analysed."""
        raw: dict[str, Any] = {"apiVersion": self._served.api_version, "kind": self._served.resource.kind}
        for name, part in item.items():
            if name == "binaryData":
                continue
            value = self._opened(part) if name in _OPENED else self._shared(bytes(part))
            if value is not None:
                raw[name] = value
        return KubeObject(raw)

    def _opened(self, part: msgspec.Raw) -> Any:
        text = bytes(part)
        if not text.startswith(b"{"):
            return self._shared(text)
        opened = {}
        for name, member in _members.decode(text).items():
            if name in self._left_out:
                continue
            value = self._annotations(member) if name == "annotations" else self._shared(bytes(member))
            if value is not None:
                opened[name] = value
        return opened

    def _annotations(self, part: msgspec.Raw) -> Any:
        """One by one: the copy of the object that kubectl leaves there is neither kept nor remembered."""
        text = bytes(part)
        if not text.startswith(b"{"):
            return self._shared(text)
        values = {
            name: self._shared(bytes(member)) for name, member in _members.decode(text).items() if name != _LAST_APPLIED
        }
        return {name: value for name, value in values.items() if value is not None}

    def _shared(self, text: bytes) -> Any:
        """The value of a text; the same one as the last time. None where it is null."""
        known = self._remembered.get(text, self)
        if known is not self:
            return known
        value = self._tidied(_value.decode(text))
        if len(text) <= _WORTH_SHARING:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[text] = value
        return value

    def _tidied(self, value: Any) -> Any:
        """The value without null members; of equal strings and of equal flat objects in it there is one.

        The conditions of a pod have the same few times, the endpoints of a slice the same conditions.
        """
        if value.__class__ is dict:
            flat = True
            for key, member in list(value.items()):
                if member is None:
                    del value[key]
                elif member.__class__ is str:
                    value[key] = intern(member)
                elif member.__class__ is dict or member.__class__ is list:
                    value[key] = self._tidied(member)
                    flat = False
                elif member.__class__ is not bool:
                    flat = False  # True == 1: numbers and truth values would be taken for each other
            if flat:
                if len(self._flat) >= _REMEMBERED:
                    self._flat.clear()
                return self._flat.setdefault(tuple(value.items()), value)
        elif value.__class__ is list:
            return [self._tidied(member) for member in value if member is not None]
        elif value.__class__ is str:
            return intern(value)
        return value
