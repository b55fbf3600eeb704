"""What the API server says of a change that it is asked to try: the object is made for it, and taken away again."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.kube.resources import KINDS
from tests.cluster.harness.api import Api, ApiError, collection

Object = dict[str, Any]
_NAMESPACED = {(r.group, r.kind): r for r in KINDS if r.namespaced}
# What only the API server and controllers write.
_GENERATED = ("uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "ownerReferences")
_ASSIGNED = ("clusterIPs", "healthCheckNodePort")


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
