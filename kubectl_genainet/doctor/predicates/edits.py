"""Commands that change a workload: for every kind one that kubectl takes for it."""

from __future__ import annotations

import json
import re
from typing import Any

from kubectl_genainet.doctor.objects.podspec import Container
from kubectl_genainet.doctor.objects.raw import command, items, mapping, sh, text
from kubectl_genainet.doctor.objects.variables import Variable
from kubectl_genainet.doctor.objects.workloads import Workload

# Kinds of which kubectl knows the pod template (kubectl set env, patch --type=strategic).
_SET = ("Deployment", "StatefulSet", "DaemonSet")


def resource(workload: Workload) -> str:
    """KIND/NAME as kubectl takes it; with the group where the kind is not one of the API server's own."""
    kind = workload.ref.kind.lower()
    return f"{kind}/{workload.name}" if workload.built_in else f"{kind}.{workload.group}/{workload.name}"


def edit(workload: Workload) -> str:
    return command("kubectl", *_namespace(workload), "edit", resource(workload))


def edit_spec(workload: Workload, path: str, value: Any) -> str:
    """Sets a field below the pod's spec. A Job's template is immutable and a bare pod's spec too: these are made anew."""
    if workload.ref.kind in ("Job", "Pod"):
        return ""
    if workload.container is not None:
        return edit(workload)
    if workload.built_in:
        return _patch(workload, "strategic", _nested(f"{workload.path}.{path}", value))
    return _patch(workload, "json", [{"op": "add", "path": _pointer(f"{workload.path}.{path}"), "value": value}])


def edit_container(workload: Workload, container: Container, name: str, value: Any) -> str:
    """Sets a field of a container."""
    if workload.ref.kind in ("Job", "Pod"):
        return ""
    if workload.container is not None:
        return edit(workload)
    if workload.built_in:
        change = _nested(f"{workload.path}.{container.list_name}", [{"name": container.name, name: value}])
        return _patch(workload, "strategic", change)
    path = _pointer(workload.field(f"{container.field}.{name}"))
    return _patch(workload, "json", [{"op": "add", "path": path, "value": value}])


def edit_resources(workload: Workload, container: Container, **lists: dict[str, str]) -> str:
    """Adds to a container's resources (`limits`, `requests`); what it has stays."""
    have = mapping(container.raw, "resources")
    return edit_container(
        workload, container, "resources", {**have, **{k: {**mapping(have, k), **v} for k, v in lists.items()}}
    )


def edit_shared_memory(workload: Workload, container: Container) -> str:
    """Mounts an emptyDir in memory at /dev/shm; a volume that is mounted there loses its limit."""
    if workload.ref.kind in ("Job", "Pod"):
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


def unset_variable(workload: Workload, container: Container, variable: Variable) -> str:
    """Takes a variable away where it is set."""
    if variable.object != workload.ref or ".env[" not in variable.field:
        where = variable.object
        namespace = ("-n", where.namespace) if where.namespace else ()
        name = resource(workload) if where == workload.ref else f"{where.kind.lower()}/{where.name}"
        return command("kubectl", *namespace, "edit", name)
    if workload.ref.kind in _SET:
        unset = f"{variable.name}-"
        return command("kubectl", *_namespace(workload), "set", "env", resource(workload), "-c", container.name, unset)
    if workload.ref.kind in ("Job", "Pod"):
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


def _nested(path: str, value: Any) -> Any:
    for step in reversed(_steps(path)):
        value = {step: value}
    return value


def _pointer(path: str) -> str:
    """A field path ("spec.jobs[0].template") as a JSON pointer (RFC 6901)."""
    return "".join("/" + step.replace("~", "~0").replace("/", "~1") for step in _steps(path))
