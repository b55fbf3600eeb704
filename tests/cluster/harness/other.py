"""A cluster that is not the harness's own: its API by the kubeconfig that was given, users as service accounts."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from kubectl_genainet.kube.client import connect
from kubectl_genainet.kube.failures import ApiError as Refused
from tests.cluster.harness.api import Api, ApiError

NAMESPACE = "chat"


class OtherApi(Api):
    """As harness.api.Api, with whichever credentials the kubeconfig has: that is what the product's client is for."""

    def __init__(self, kubeconfig: str) -> None:
        self._client = connect(kubeconfig=kubeconfig)

    def request(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        path, _, query = path.partition("?")
        options = dict(part.split("=", 1) for part in query.split("&")) if query else {}
        try:
            return self._client.json(method, path, body, query=options, content_type=content_type)
        except Refused as error:
            raise ApiError(error.status, error.message) from None


def service_account_config(kubeconfig: str, api: Api, name: str) -> str:
    """A kubeconfig that speaks as a service account of the namespace `chat`, which is made where it is missing."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": NAMESPACE}}
    api.apply([account])
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{name}/token"
    wanted = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}}
    token = api.request("POST", path, wanted)["status"]["token"]
    given = yaml.safe_load(Path(kubeconfig).read_text())
    current = next(c["context"] for c in given["contexts"] if c["name"] == given["current-context"])
    cluster = next(c["cluster"] for c in given["clusters"] if c["name"] == current["cluster"])
    if "certificate-authority" in cluster:
        cluster["certificate-authority"] = str(Path(kubeconfig).parent / cluster["certificate-authority"])
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": name, "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": name, "namespace": "default"}}],
    }
    file = Path(tempfile.mkdtemp(prefix="genainet-test-")) / "config"
    file.write_text(yaml.safe_dump(config))
    file.chmod(0o600)
    return str(file)
