"""What the API server says of the changes that remedies make: the object is made for each, and taken away again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from kubectl_genainet.doctor.changes import applied
from kubectl_genainet.doctor.registry import check_named
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.resources import KINDS
from kubectl_genainet.model.kube import KubeObject
from tests.cluster.harness.api import Api, ApiError, collection
from tests.unit.doctor.faults.case import Case
from tests.unit.doctor.faults.cases import CASES

Object = dict[str, Any]
_NAMESPACED = {(r.group, r.kind): r for r in KINDS if r.namespaced}
# What only the API server and controllers write.
_GENERATED = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences")
_ASSIGNED = ("clusterIPs", "healthCheckNodePort")


def tried_remedies(api: Api) -> tuple[list[tuple[str, str, str]], set[str]]:
    """(check, kind, why) of every change that is refused, and the checks of which a change is taken. Kinds of a group that
    the server doesn't offer are left out.
    """
    prefix = "remedy-"
    for namespace in ("chatbot", "edge", "kube-system", "ml", "sriov"):
        api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": prefix + namespace}}])
    groups = {"", *(group["name"] for group in api.get("/apis")["groups"])}
    refused, taken = [], set()
    for case in CASES:
        for before, after in _changed_objects(case):
            if KubeObject(after, "").group not in groups:
                continue
            made = None if before is None else prepared(before, prefix)
            said = refusal(api, made, prepared(after, prefix))
            if said:
                refused.append((case.check, after["kind"], said))
            elif said == "":
                taken.add(case.check)
    return refused, taken


def _changed_objects(case: Case) -> Iterator[tuple[Object | None, Object]]:
    """(as it was, as it is after) of the objects that the tried remedies of a fault's own check change or add."""
    world = case.base()
    case.fault(world)
    cluster, check = world.cluster(), check_named(case.check)
    assert check is not None
    snapshot = cluster.snapshot
    before = {(o.group, o.kind, o.namespace, o.name): o.raw for o in snapshot.objects}
    for finding in examine(cluster, [check]).findings:
        remedy = finding.remedy
        if remedy is None or not (remedy.command or remedy.yaml):
            continue
        if not remedy.trial.startswith("tried: "):
            continue
        after = [KubeObject(raw, "") for raw in yaml.safe_load_all(remedy.yaml)]
        for obj in after or applied(snapshot, remedy).objects:
            raw = before.get((obj.group, obj.kind, obj.namespace, obj.name))
            if obj.kind != "Pod" and raw != obj.raw:
                yield raw, obj.raw


def prepared(raw: Object, prefix: str) -> Object:
    """An object as a user would make it, in a namespace of the test's own."""
    metadata = {key: value for key, value in raw["metadata"].items() if key not in _GENERATED}
    if metadata.get("namespace"):
        metadata["namespace"] = prefix + metadata["namespace"]
    body = {key: value for key, value in raw.items() if key != "status"} | {"metadata": metadata}
    if raw["kind"] == "Service" and raw["apiVersion"] == "v1":
        spec = {key: value for key, value in raw["spec"].items() if key not in _ASSIGNED}
        if spec.get("clusterIP") != "None":
            spec.pop("clusterIP", None)
        body["spec"] = spec
    return body


def path_of(obj: Object) -> str:
    """The path of an object's collection, by the plural that its project gave it."""
    resource = _NAMESPACED.get((obj["apiVersion"].rpartition("/")[0], obj["kind"]))
    if resource is None:
        return collection(obj)
    root = "/apis/" if "/" in obj["apiVersion"] else "/api/"
    return f"{root}{obj['apiVersion']}/namespaces/{obj['metadata']['namespace']}/{resource.plural}"


def refusal(api: Api, before: Object | None, after: Object) -> str | None:
    """Why the API server refuses a change, or a new object where `before` is None; empty where it takes it. None where it
    does not take the object as it was before: then nothing is said of the change."""
    strict = "?dryRun=All&fieldValidation=Strict"
    if before is None:
        return _said(api, "POST", path_of(after) + strict, after)
    place = f"{path_of(before)}/{before['metadata']['name']}"
    if _said(api, "POST", path_of(before) + "?fieldValidation=Strict", before):
        return None
    try:
        version = api.get(place)["metadata"]["resourceVersion"]
        changed = {**after, "metadata": {**after["metadata"], "resourceVersion": version}}
        return _said(api, "PUT", place + strict, changed)
    finally:
        api.delete(place)


def _said(api: Api, method: str, path: str, body: Object) -> str:
    try:
        api.request(method, path, body)
    except ApiError as error:
        return f"{error.status} {error.message}"
    return ""
