"""Commands that change a workload: for every kind one that kubectl takes for it."""

from __future__ import annotations

import json
import re
from typing import Any

from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import at, command, items, mapping, patch, sh, text
from kubectl_genainet.doctor.objects.variables import Variable
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.finding import Evidence
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.units import whole_number

# Kinds of which kubectl knows the pod template (kubectl set env, patch --type=strategic).
_SET = ("Deployment", "StatefulSet", "DaemonSet")


def resource(workload: Workload) -> str:
    """KIND/NAME as kubectl takes it; with the group where the kind is not one of the API server's own."""
    kind = workload.ref.kind.lower()
    return f"{kind}/{workload.name}" if workload.built_in else f"{kind}.{workload.group}/{workload.name}"


# Kinds whose template the API server, or the webhook of their project, lets nobody change: such an object is made anew.
FIXED = ("Job", "JobSet", "Pod", "TrainJob")


def edit(workload: Workload) -> str:
    """`kubectl edit`; empty for an object that has to be made anew."""
    if workload.ref.kind in FIXED:
        return ""
    return command("kubectl", *_namespace(workload), "edit", resource(workload))


def edit_spec(workload: Workload, path: str, value: Any) -> str:
    """Sets a field below the pod's spec. A Job's template is immutable and a bare pod's spec too: these are made anew."""
    if workload.ref.kind in FIXED:
        return ""
    if workload.container is not None:
        return edit(workload)
    if workload.built_in:
        return _patch(workload, "strategic", _nested(f"{workload.path}.{path}", value))
    return _patch(workload, "json", [{"op": "add", "path": _pointer(f"{workload.path}.{path}"), "value": value}])


def edit_container(workload: Workload, container: ContainerSpec, name: str, value: Any) -> str:
    """Sets a field of a container. A strategic patch merges: what the field had and has no longer is taken away by name, so
    that a probe does not end with two handlers."""
    if workload.ref.kind in FIXED:
        return ""
    if workload.container is not None:
        return edit(workload)
    if workload.built_in:
        if isinstance(value, dict):
            value = {**{key: None for key in mapping(container.raw, name) if key not in value}, **value}
        change = _nested(f"{workload.path}.{container.list_name}", [{"name": container.name, name: value}])
        return _patch(workload, "strategic", change)
    path = _pointer(workload.field(f"{container.field}.{name}"))
    return _patch(workload, "json", [{"op": "add", "path": path, "value": value}])


def set_field(workload: Workload, field: str, value: Any) -> str:
    """Gives a field that the object has another value. `field` is its path from the object's root."""
    if workload.ref.kind in FIXED:
        return ""
    if workload.container is not None:
        return edit(workload)
    return _patch(workload, "json", [{"op": "replace", "path": _pointer(field), "value": value}])


def set_in(obj: KubeObject, field: str, value: Any, *, op: str = "add") -> str:
    """Sets a field of an object that is no workload, by its path from the root; what is not there is added. In a list "add"
    puts the value before what stands there ("-": at the end), "replace" in its place."""
    change = json.dumps([{"op": op, "path": _pointer(field), "value": value}])
    return on_object(obj, "patch", "--type=json", "-p", change)


def on_object(obj: KubeObject, verb: str, *arguments: str) -> str:
    """`kubectl VERB` for an object, its kind with its group: Gateway, InferencePool and others are kinds of several groups."""
    name = f"{obj.kind.lower()}.{obj.group}/{obj.name}" if obj.group else f"{obj.kind.lower()}/{obj.name}"
    namespace = ("-n", obj.namespace) if obj.namespace else ()
    return command("kubectl", *namespace, verb, name, *arguments)


def name_instead(obj: KubeObject, field: str, near: str) -> str:
    """Puts the name that was probably meant; `kubectl edit` where none is near."""
    return set_in(obj, field, near, op="replace") if near else on_object(obj, "edit")


def rewrite_value(workload: Workload, obj: KubeObject | None, evidence: Evidence, old: str, new: str) -> str:
    """Puts one text for another in the string that a finding is about: of a workload, or of a ConfigMap that it reads (`obj`
    is the one that has it); `kubectl edit` where it holds what is better not written into a command, such as a password."""
    where = evidence.object
    key = evidence.field.removeprefix("data[").removesuffix("]")
    in_config_map = where is not None and where.kind == "ConfigMap"
    path: tuple[str | int, ...] = ("data", key) if in_config_map else _path(evidence.field)
    value = at(obj.raw, *path) if obj is not None else None
    changed = value.replace(old, new) if old and isinstance(value, str) and value.count(old) == 1 else ""
    if set("@?&\n") & set(changed):
        changed = ""
    if where is not None and in_config_map:
        edited = command("kubectl", "-n", where.namespace, "edit", f"configmap/{where.name}")
        return patch(where, {"data": {key: changed}}) if changed else edited
    return set_field(workload, evidence.field, changed) if changed and where == workload.ref else edit(workload)


def edit_resources(workload: Workload, container: ContainerSpec, **lists: dict[str, str]) -> str:
    """Adds to a container's resources (`limits`, `requests`); what it has stays."""
    have = mapping(container.raw, "resources")
    return edit_container(
        workload, container, "resources", {**have, **{k: {**mapping(have, k), **v} for k, v in lists.items()}}
    )


def edit_shared_memory(workload: Workload, container: ContainerSpec) -> str:
    """Mounts an emptyDir in memory at /dev/shm; a volume that is mounted there loses its limit."""
    if workload.ref.kind in FIXED:
        return ""
    if not workload.built_in:
        return edit(workload)
    mounted = next(
        (m for m in items(container.raw, "volumeMounts") if text(m, "mountPath").rstrip("/") == "/dev/shm"), None
    )
    name = text(mounted, "name") or "dshm"
    change: dict[str, Any] = {"volumes": [{"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": None}}]}
    if mounted is None:
        change = {
            "volumes": [{"name": name, "emptyDir": {"medium": "Memory"}}],
            "containers": [{"name": container.name, "volumeMounts": [{"name": name, "mountPath": "/dev/shm"}]}],
        }
    return _patch(workload, "strategic", _nested(workload.path, change))


def unset_variable(workload: Workload, container: ContainerSpec, variable: Variable) -> str:
    """Takes a variable away where it is set."""
    if variable.object != workload.ref or ".env[" not in variable.field:
        where = variable.object
        namespace = ("-n", where.namespace) if where.namespace else ()
        if where.kind == "ConfigMap" and variable.field == f"data[{variable.name}]":
            return patch(where, {"data": {variable.name: None}})
        name = resource(workload) if where == workload.ref else f"{where.kind.lower()}/{where.name}"
        return command("kubectl", *namespace, "edit", name)
    if workload.ref.kind in _SET:
        unset = f"{variable.name}-"
        return command("kubectl", *_namespace(workload), "set", "env", resource(workload), "-c", container.name, unset)
    if workload.ref.kind in FIXED:
        return ""
    if workload.container is not None:
        return edit(workload)
    path = _pointer(variable.field.removesuffix(".value"))
    return _patch(workload, "json", [{"op": "remove", "path": path}])


def _namespace(workload: Workload) -> tuple[str, ...]:
    return ("-n", workload.namespace) if workload.namespace else ()


def _patch(workload: Workload, kind: str, change: Any) -> str:
    kind_and_name = sh(resource(workload))
    return f"{command('kubectl', *_namespace(workload), 'patch')} {kind_and_name} --type={kind} -p {sh(json.dumps(change))}"


def _steps(path: str) -> list[str]:
    return [s for s in re.split(r"[.\[\]]+", path) if s]


def _path(field: str) -> tuple[str | int, ...]:
    return tuple(step if (index := whole_number(step)) is None else index for step in _steps(field))


def _nested(path: str, value: Any) -> Any:
    for step in reversed(_steps(path)):
        value = {step: value}
    return value


def _pointer(path: str) -> str:
    """A field path ("spec.jobs[0].template") as a JSON pointer (RFC 6901)."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in _steps(path))
