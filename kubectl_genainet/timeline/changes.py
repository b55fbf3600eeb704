"""What changed: from the objects of the API as they were one after the other, and from what nodes report of themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from kubectl_genainet.history.rules import sizes, without_counters
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.history import ChangeOf, NodeChange, ObjectChanged, ObjectKey, object_key
from kubectl_genainet.model.node import STATISTICS, RulesetDump
from kubectl_genainet.model.results.timeline import TimelineChangeKind

Raw = Mapping[str, Any]

_ROLLED = frozenset(
    {"Deployment", "StatefulSet", "DaemonSet", "Rollout", "LeaderWorkerSet", "InferenceService", "RayService", "Job"}
)
_GATEWAYS = frozenset({"Ingress", "Gateway", "HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute", "VirtualService"})
# They change all the time, or follow from another change that is told.
_PASSED_OVER = frozenset(
    {"Endpoints", "Event", "Lease", "ReplicaSet", "ControllerRevision", "PodMetrics", "NodeMetrics"}
)
_DNS_NAMES = frozenset({"coredns", "kube-dns", "node-local-dns", "nodelocaldns", "coredns-custom"})
_CONFIGURATION = ("spec", "data", "rules", "subsets")
FOLD_NS = 60_000_000_000  # changes of the same kind to the same workload within so long are one
_MOST_FIELDS = 4


@dataclass(slots=True)
class Noted:
    """A change as it was noted, before it is placed on a timeline. `workload` is "namespace/name" of what owns a pod."""

    at_ns: int
    kind: TimelineChangeKind
    what: str
    object: ObjectRef | None = None
    node: str = ""
    fields: tuple[str, ...] = ()
    workload: str = ""
    times: int = 1
    last_ns: int = field(default=0)


class Changes:
    """Feed it the objects as they were first, then what changed, in order of time."""

    def __init__(self, objects: Iterable[Raw]) -> None:
        self._objects: dict[ObjectKey, Raw] = {object_key(raw): raw for raw in objects}
        self._rules: dict[tuple[str, str], RulesetDump] = {}
        self.noted: list[Noted] = []

    def object_changed(self, change: ObjectChanged) -> None:
        self._change(change.at_ns, change.key, change.after)

    def all_objects(self, at_ns: int, objects: Iterable[Raw]) -> None:
        """All objects as they are now; what is the same as before is no change."""
        now = {object_key(raw): raw for raw in objects}
        for key in self._objects.keys() - now.keys():
            self._change(at_ns, key, None)
        for key, raw in now.items():
            if self._objects.get(key) != raw:
                self._change(at_ns, key, raw)

    def _change(self, at_ns: int, key: ObjectKey, after: Raw | None) -> None:
        before = self._objects.get(key)
        if after is None:
            self._objects.pop(key, None)
        else:
            self._objects[key] = after
        for noted in _of_object(at_ns, key, before, after):
            self._note(noted)

    def node_changed(self, change: NodeChange) -> None:
        kind = {ChangeOf.RULES: TimelineChangeKind.RULES, ChangeOf.COUNTER: TimelineChangeKind.COUNTER}.get(
            change.what, TimelineChangeKind.NODE
        )
        if change.what is ChangeOf.POD or (change.pod_uid and kind is TimelineChangeKind.NODE):
            return  # the pod itself is told
        self._note(Noted(change.at_ns, kind, _node_text(change), node=change.node))

    def rules(self, at_ns: int, dump: RulesetDump) -> None:
        """A node's rules as they are now; the first are none that changed."""
        if dump.source in STATISTICS:
            return
        now = without_counters(dump)
        before = self._rules.get((dump.node, dump.source))
        self._rules[dump.node, dump.source] = now
        if before is not None and before.text != now.text:
            self._note(
                Noted(at_ns, TimelineChangeKind.RULES, f"{dump.source}: {sizes(before, now)[1]}", node=dump.node)
            )

    def _note(self, noted: Noted) -> None:
        noted.last_ns = noted.at_ns
        for earlier in reversed(self.noted):
            if noted.at_ns - earlier.last_ns > FOLD_NS:
                break
            if noted.workload and _same(earlier, noted):
                earlier.times += 1
                earlier.last_ns = noted.at_ns
                return
        self.noted.append(noted)


def _same(noted: Noted, other: Noted) -> bool:
    return (noted.kind, noted.what, noted.workload) == (other.kind, other.what, other.workload)


def _of_object(at_ns: int, key: ObjectKey, before: Raw | None, after: Raw | None) -> Iterator[Noted]:
    kind, namespace, name, _ = key
    object_ref = ObjectRef(kind, name, namespace)
    if kind in _PASSED_OVER:
        return
    if kind == "Pod":
        yield from _pod(at_ns, object_ref, before, after)
        return
    if kind == "EndpointSlice":
        yield from _endpoints(at_ns, namespace, before, after)
        return
    if kind == "Node":
        yield from _node(at_ns, object_ref, before, after)
        return
    change_kind = _kind_of(key)
    if before is None or after is None:
        yield Noted(at_ns, change_kind, "removed" if after is None else "created", object_ref)
        return
    fields = tuple(_differences(before, after))
    if fields:
        yield Noted(at_ns, change_kind, _configured(fields, before, after), object_ref, fields=fields[:_MOST_FIELDS])


def _kind_of(key: ObjectKey) -> TimelineChangeKind:
    kind, namespace, name, _ = key
    if namespace == "kube-system" and name in _DNS_NAMES:
        return TimelineChangeKind.COREDNS
    if kind in _ROLLED:
        return TimelineChangeKind.ROLLOUT
    if "Policy" in kind or kind in ("NetworkSet", "GlobalNetworkSet", "CiliumCIDRGroup", "Tier"):
        return TimelineChangeKind.POLICY
    if kind == "Service":
        return TimelineChangeKind.SERVICE
    return TimelineChangeKind.GATEWAY if kind in _GATEWAYS else TimelineChangeKind.OTHER


def _configured(fields: tuple[str, ...], before: Raw, after: Raw) -> str:
    """What became of an object's configuration, in a few words."""
    old, new = before.get("spec") or {}, after.get("spec") or {}
    if "spec.replicas" in fields:
        return f"scaled from {old.get('replicas', 1)} to {new.get('replicas', 1)}"
    images = _images(old) ^ _images(new)
    if images:
        return f"rolled out: {', '.join(sorted(_images(old) - _images(new)))} → {', '.join(sorted(_images(new) - _images(old)))}"
    if any(field.startswith("spec.template") for field in fields):
        return f"rolled out: {_listed(fields)}"
    return f"changed: {_listed(fields)}"


def _listed(fields: tuple[str, ...]) -> str:
    more = f" and {len(fields) - _MOST_FIELDS} more" if len(fields) > _MOST_FIELDS else ""
    return ", ".join(fields[:_MOST_FIELDS]) + more


def _images(spec: Raw) -> set[str]:
    pod = ((spec.get("template") or {}).get("spec")) or {}
    return {str(container.get("image", "")) for container in pod.get("containers") or ()}


def _differences(before: Raw, after: Raw) -> Iterator[str]:
    """The paths of an object's configuration that differ, as deep as there are objects."""
    for part in _CONFIGURATION:
        yield from _paths(part, before.get(part), after.get(part))


def _paths(path: str, before: Any, after: Any) -> Iterator[str]:
    if before == after:
        return
    if isinstance(before, dict) and isinstance(after, dict):
        for name in sorted(before.keys() | after.keys()):
            yield from _paths(f"{path}.{name}", before.get(name), after.get(name))
    else:
        yield path


def _workload(raw: Raw | None) -> str:
    metadata = (raw or {}).get("metadata") or {}
    for owner in metadata.get("ownerReferences") or ():
        name = str(owner.get("name", ""))
        short = name.rpartition("-")[0] if owner.get("kind") == "ReplicaSet" and "-" in name else name
        return f"{metadata.get('namespace', '')}/{short}"
    return f"{metadata.get('namespace', '')}/{metadata.get('name', '')}"


def _pod(at_ns: int, object_ref: ObjectRef, before: Raw | None, after: Raw | None) -> Iterator[Noted]:
    raw = after or before or {}
    node = str((raw.get("spec") or {}).get("nodeName", ""))

    def noted(what: str) -> Noted:
        return Noted(at_ns, TimelineChangeKind.POD, what, object_ref, node, workload=_workload(raw))

    if before is None or after is None:
        yield noted("removed" if after is None else "created")
        return
    restarts = _restarts(after) - _restarts(before)
    if restarts > 0:
        why = _last_reason(after)
        yield noted(f"restarted ({why})" if why else "restarted")
    was, is_ready = _is_ready(before), _is_ready(after)
    if was != is_ready:
        yield noted("became ready" if is_ready else "became unready")


def _statuses(raw: Raw) -> list[Raw]:
    return list((raw.get("status") or {}).get("containerStatuses") or ())


def _restarts(raw: Raw) -> int:
    return sum(int(status.get("restartCount", 0)) for status in _statuses(raw))


def _last_reason(raw: Raw) -> str:
    for status in _statuses(raw):
        ended = (status.get("lastState") or {}).get("terminated") or {}
        if ended.get("reason"):
            return str(ended["reason"])
    return ""


def _is_ready(raw: Raw) -> bool:
    conditions = (raw.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Ready" and c.get("status") == "True" for c in conditions)


def _endpoints(at_ns: int, namespace: str, before: Raw | None, after: Raw | None) -> Iterator[Noted]:
    labels = ((after or before or {}).get("metadata") or {}).get("labels") or {}
    service = str(labels.get("kubernetes.io/service-name", ""))
    old, new = _ready_addresses(before), _ready_addresses(after)
    if old == new or not service:
        return
    parts = [f"{len(old)} → {len(new)} ready"]
    for word, addresses in (("gone", old - new), ("new", new - old)):
        if addresses:
            shown = ", ".join(sorted(addresses)[:3]) + (" …" if len(addresses) > 3 else "")
            parts.append(f"{word}: {shown}")
    yield Noted(at_ns, TimelineChangeKind.ENDPOINTS, "; ".join(parts), ObjectRef("Service", service, namespace))


def _ready_addresses(raw: Raw | None) -> set[str]:
    return {
        str(address)
        for endpoint in (raw or {}).get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True)
        for address in endpoint.get("addresses") or ()
    }


def _node(at_ns: int, object_ref: ObjectRef, before: Raw | None, after: Raw | None) -> Iterator[Noted]:
    name = object_ref.name
    if before is None or after is None:
        yield Noted(at_ns, TimelineChangeKind.NODE, "removed" if after is None else "joined", object_ref, name)
        return
    old, new = _conditions(before), _conditions(after)
    for condition in sorted(old.keys() | new.keys()):
        if old.get(condition) != new.get(condition):
            what = f"{condition}: {old.get(condition, 'none')} → {new.get(condition, 'none')}"
            yield Noted(at_ns, TimelineChangeKind.NODE, what, object_ref, name)
    fields = tuple(_differences(before, after))
    if fields:
        yield Noted(
            at_ns, TimelineChangeKind.NODE, f"changed: {_listed(fields)}", object_ref, name, fields[:_MOST_FIELDS]
        )


def _conditions(raw: Raw) -> dict[str, str]:
    return {str(c.get("type", "")): str(c.get("status", "")) for c in (raw.get("status") or {}).get("conditions") or ()}


def _node_text(change: NodeChange) -> str:
    if not change.before and not change.after:
        return change.subject
    return f"{change.subject}: {_short(change.before) or 'none'} → {_short(change.after) or 'none'}"


def _short(text: str, most: int = 60) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
