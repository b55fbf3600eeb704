"""Addresses that a ConfigMap tells several workloads: which of them calls there is not written in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.workloads import Workload

_Setting = tuple[str, str, str, int]
_SOME = 16


def _setting(call: Call) -> _Setting:
    return str(call.evidence.object), call.evidence.field, call.host, call.port


def told_together(calls: Iterable[Call]) -> Mapping[_Setting, list[Call]]:
    """The calls of each setting of a ConfigMap."""
    index: dict[_Setting, list[Call]] = defaultdict(list)
    for call in calls:
        if call.evidence.object is not None and call.evidence.object.kind == "ConfigMap":
            index[_setting(call)].append(call)
    return index


def others_told(index: Mapping[_Setting, list[Call]], call: Call) -> list[Call]:
    """The same call of the other workloads that read the setting."""
    return [other for other in index.get(_setting(call), ()) if other.client.key != call.client.key]


def some_told(index: Mapping[_Setting, list[Call]], call: Call) -> list[Call]:
    """So many of them that asking about each stays cheap where hundreds read one setting."""
    return others_told(index, call)[:_SOME]


def lists_all(index: Mapping[_Setting, list[Call]], call: Call, callee: Workload) -> bool:
    """Whether the callee reads the setting too, and more than one other workload does: an application's list of the addresses
    of all its parts, of which each calls some."""
    readers = {other.client.key for other in others_told(index, call)}
    return callee.key in readers and len(readers) > 1
