"""Items of a list as objects, in little memory: what many objects have in common is one value.

50,000 pods come from some thousand templates. A member of `metadata`, `spec` or `status` that was seen a moment ago, byte
for byte (labels, containers, volumes, tolerations), is not decoded again. Whoever changes an object copies it first.
"""

from __future__ import annotations

from collections.abc import Callable
from sys import intern
from typing import Any

import msgspec

from kubectl_genainet.errors import DECODE_ERRORS, GenainetError
from kubectl_genainet.kube.nesting import MAX_DEPTH, TOO_DEEP
from kubectl_genainet.kube.resources import POD, Served
from kubectl_genainet.model.kube import KubeObject

_REMEMBERED = 8192  # parts; a list is sorted by name, so that what has the same owner is close together
_WORTH_SHARING = 1 << 13  # bytes; a longer part is one of its kind
_OPENED = frozenset({"metadata", "spec", "status"})
# Heavy and never analysed: test_kube_items.py holds that nothing else in the package names them.
_NOT_KEPT = frozenset({"managedFields", "volumesInUse", "volumesAttached"})
_NOT_KEPT_OF_CONTAINERS = frozenset({"image", "imageID", "allocatedResources", "resources", "user", "volumeMounts"})
_TIMED_CONDITIONS = frozenset({"Ready", "PodScheduled"})  # of pods: no check asks when another one changed
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_value = msgspec.json.Decoder(Any)
Item = dict[str, msgspec.Raw]


def _without_unread_times(conditions: Any) -> Any:
    """The conditions of a pod; those whose time no check reads are alike on many pods without it."""
    return _each(conditions, _without_unread_time)


def _without_unread_time(condition: dict[str, Any]) -> dict[str, Any]:
    left_out = {"lastProbeTime", "observedGeneration"}
    if str(condition.get("type")) not in _TIMED_CONDITIONS:
        left_out.add("lastTransitionTime")
    return {name: value for name, value in condition.items() if name not in left_out}


def _without_unread_state(statuses: Any) -> Any:
    """The container statuses of a pod, without what its spec has too or no check reads, and without a lastState of {}."""
    return _each(statuses, _without_unread_parts)


def _without_unread_parts(status: dict[str, Any]) -> dict[str, Any]:
    left_out = _NOT_KEPT_OF_CONTAINERS if status.get("lastState") else _NOT_KEPT_OF_CONTAINERS | {"lastState"}
    return {name: value for name, value in status.items() if name not in left_out}


def _each(members: Any, reduce: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    if not isinstance(members, list):
        return members
    return [reduce(member) if isinstance(member, dict) else member for member in members]


_POD_REDUCERS: dict[str, Callable[[Any], Any]] = {
    "conditions": _without_unread_times,
    "containerStatuses": _without_unread_state,
    "initContainerStatuses": _without_unread_state,
    "ephemeralContainerStatuses": _without_unread_state,
}


class _Compact:
    """Makes mappings that share their table of keys with all that have the same keys (PEP 412): half the memory.

    They are the attributes of objects of one class a set of keys, and plain dictionaries to everybody else.
    """

    _MOST_SHAPES = 256
    _MOST_KEYS = 25  # CPython shares up to 30

    def __init__(self) -> None:
        self._shapes: dict[tuple[str, ...], type] = {}

    def of(self, mapping: dict[str, Any]) -> dict[str, Any]:
        names = tuple(mapping)
        shape = self._shapes.get(names)
        if shape is None:
            if len(self._shapes) >= self._MOST_SHAPES or len(names) > self._MOST_KEYS or "__class__" in names:
                return mapping
            shape = self._shapes[names] = type("Members", (), {})
        members: dict[str, Any] = vars(shape())
        for name, member in mapping.items():  # one by one: update() makes a table of its own
            members[name] = member
        return members


class ItemDecoder:
    """Decodes the items of one list, or the changes of one watch. Not thread-safe."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._reduce = _POD_REDUCERS if served.resource == POD else {}
        self._left_out = _NOT_KEPT | ({"images"} if served.resource.kind == "Node" else set())
        self._remembered: dict[bytes, Any] = {}
        self._compact = _Compact()
        self._flat: dict[tuple[tuple[str, Any], ...], dict[str, Any]] = {}

    def object(self, item: Item) -> KubeObject:
        """An item with its kind, without nulls and without what is heavy and never analysed. Raises GenainetError for one
        that can't be read."""
        try:
            return self._object(item)
        except DECODE_ERRORS as error:
            kind = self._served.resource.kind
            raise GenainetError(f"a {kind} in the API server's answer can't be read: {error}") from None

    def _object(self, item: Item) -> KubeObject:
        raw: dict[str, Any] = {"apiVersion": self._served.api_version, "kind": self._served.resource.kind}
        for name, part in item.items():
            if name == "binaryData":
                continue
            value = self._opened(part) if name in _OPENED else self._shared(bytes(part))
            if value is not None:
                raw[name] = value
        return KubeObject(self._compact.of(raw))

    def _opened(self, part: msgspec.Raw) -> Any:
        text = bytes(part)
        if not text.startswith(b"{"):
            return self._shared(text)
        opened = {}
        for name, member in _members.decode(text).items():
            if name in self._left_out:
                continue
            annotations = name == "annotations"
            value = self._annotations(member) if annotations else self._shared(bytes(member), self._reduce.get(name))
            if value is not None:
                opened[name] = value
        return self._compact.of(opened)

    def _annotations(self, part: msgspec.Raw) -> Any:
        """One by one: the copy of the object that kubectl leaves there is neither kept nor remembered."""
        text = bytes(part)
        if not text.startswith(b"{"):
            return self._shared(text)
        values = {
            name: self._shared(bytes(member)) for name, member in _members.decode(text).items() if name != _LAST_APPLIED
        }
        return {name: value for name, value in values.items() if value is not None}

    def _shared(self, text: bytes, reduce: Callable[[Any], Any] | None = None) -> Any:
        """The value of a text; the same one as the last time. None where it is null."""
        known = self._remembered.get(text, self)
        if known is not self:
            return known
        value = _value.decode(text)
        if reduce is not None:
            value = reduce(value)
        value = self._tidied(value)
        if len(text) <= _WORTH_SHARING:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            self._remembered[text] = value
        return value

    def _tidied(self, value: Any, room: int = MAX_DEPTH) -> Any:
        """The value without null members; of equal strings and of equal flat objects in it there is one. `room`: levels that
        it may nest; what is deeper has TOO_DEEP in its place.

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
                    value[key] = self._tidied(member, room - 1) if room else TOO_DEEP
                    flat = False
                elif member.__class__ is not bool:
                    flat = False  # True == 1: numbers and truth values would be taken for each other
            if flat:
                if len(self._flat) >= _REMEMBERED:
                    self._flat.clear()
                key = tuple(value.items())
                known = self._flat.get(key)
                if known is None:
                    known = self._flat[key] = self._compact.of(value)
                return known
            return self._compact.of(value)
        if value.__class__ is list:
            if not room:
                return TOO_DEEP
            return [self._tidied(member, room - 1) for member in value if member is not None]
        return intern(value) if value.__class__ is str else value
