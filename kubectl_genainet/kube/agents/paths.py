"""Where an object lives in the API: the path for a kind that this tool makes or removes."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.shell import command, named

_PLURALS = {
    "Namespace": "namespaces",
    "ClusterRole": "clusterroles",
    "PriorityClass": "priorityclasses",
    "ServiceAccount": "serviceaccounts",
    "NetworkPolicy": "networkpolicies",
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "Secret": "secrets",
    "ClusterRoleBinding": "clusterrolebindings",
    "Service": "services",
    "ServiceMonitor": "servicemonitors",
    "PrometheusRule": "prometheusrules",
    "ConfigMap": "configmaps",
}


def collection_path(obj: dict[str, Any]) -> str:
    """ "/apis/apps/v1/namespaces/genainet/daemonsets" """
    version = obj["apiVersion"]
    root = f"/apis/{version}" if "/" in version else f"/api/{version}"
    namespace = obj["metadata"].get("namespace")
    return root + (f"/namespaces/{namespace}" if namespace else "") + "/" + _PLURALS[obj["kind"]]


def object_path(obj: dict[str, Any]) -> str:
    return f"{collection_path(obj)}/{obj['metadata']['name']}"


def describe(obj: dict[str, Any]) -> str:
    """ "daemonset genainet/genainet-agent", as messages name it."""
    namespace = obj["metadata"].get("namespace")
    return f"{obj['kind'].lower()} " + (f"{namespace}/" if namespace else "") + str(obj["metadata"]["name"])


def kubectl_describe(obj: dict[str, Any]) -> str:
    """`kubectl -n NAMESPACE describe KIND NAME`, to paste."""
    metadata = obj["metadata"]
    namespace = ("-n", metadata["namespace"]) if metadata.get("namespace") else ()
    return f"{command('kubectl', *namespace, 'describe')} {named(obj['kind'].lower(), str(metadata['name']))}"


def get_or_none(client: KubeClient, path: str, doing: str = "") -> Any:
    """The object at a path; None where there is none."""
    try:
        return client.json("GET", path, doing=doing or f"get {path}")
    except ApiError as error:
        if error.status == 404:
            return None
        raise
