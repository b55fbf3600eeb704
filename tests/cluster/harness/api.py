"""The tests' own way to the API server: JSON over HTTPS, nothing of the product under test."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import urllib3
import yaml


class ApiError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status, self.message = status, message


class Api:
    """One user's requests. Paths are the API's ("/api/v1/nodes"); answers are decoded JSON."""

    def __init__(self, server: str, ca_file: str, token: str) -> None:
        self.server, self.token = server, token
        self._pool = urllib3.PoolManager(ca_certs=ca_file, cert_reqs="CERT_REQUIRED", timeout=30, retries=False)

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        """Raises ApiError with the server's message for a status above 299."""
        answer = self._pool.request(
            method,
            self.server + path,
            body=None if body is None else json.dumps(body),
            headers={"Authorization": f"Bearer {self.token}", "Content-Type": content_type},
        )
        text = answer.data.decode()
        if answer.status > 299:
            try:
                message = json.loads(text)["message"]
            except (ValueError, KeyError, TypeError):
                message = text
            raise ApiError(answer.status, message)
        return json.loads(text) if text.startswith(("{", "[")) else text

    def get(self, path: str) -> Any:
        return self.request("GET", path)

    def create(self, obj: dict[str, Any]) -> Any:
        return self.request("POST", collection(obj), obj)

    def apply(self, objects: str | Iterable[dict[str, Any]]) -> list[Any]:
        """Creates the objects of YAML text or of a list, in order; those that exist are merge-patched.

        Not server-side apply, which wants defaulted keys of a list such as a Service port's protocol spelled out.
        """
        documents = yaml.safe_load_all(objects) if isinstance(objects, str) else objects
        return [self._create_or_patch(o) for o in documents if o]

    def _create_or_patch(self, obj: dict[str, Any]) -> Any:
        try:
            return self.create(obj)
        except ApiError as error:
            if error.status != 409:
                raise
        return self.patch(f"{collection(obj)}/{obj['metadata']['name']}", obj)

    def patch(self, path: str, body: Any) -> Any:
        return self.request("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path: str) -> None:
        try:
            self.request("DELETE", path)
        except ApiError as error:
            if error.status != 404:
                raise


def may(api: Api, verb: str, resource: str, namespace: str) -> bool:
    """Whether the user of the API may do so to what the core group has: the API server follows roles and bindings by watches."""
    name, _, part = resource.partition("/")
    attributes = {"verb": verb, "resource": name, "subresource": part, "namespace": namespace}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = api.request("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
    return bool(answer["status"]["allowed"])


_CLUSTER_SCOPED = {
    "Namespace",
    "Node",
    "ClusterRole",
    "ClusterRoleBinding",
    "PriorityClass",
    "CustomResourceDefinition",
    "PersistentVolume",
    "StorageClass",
    "RuntimeClass",
    "ServiceCIDR",
}
_PLURALS = {
    "NetworkPolicy": "networkpolicies",
    "Ingress": "ingresses",
    "PriorityClass": "priorityclasses",
    "Endpoints": "endpoints",
    "RuntimeClass": "runtimeclasses",
}


def collection(obj: dict[str, Any]) -> str:
    """The path of the collection that an object belongs to."""
    version, kind = obj["apiVersion"], obj["kind"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    plural = _PLURALS.get(kind, kind.lower() + "s")
    if kind in _CLUSTER_SCOPED:
        return f"{root}/{plural}"
    return f"{root}/namespaces/{obj['metadata'].get('namespace', 'default')}/{plural}"
