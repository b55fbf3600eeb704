"""The client of a process inside the cluster: the pod's service account, with nothing but urllib3."""

from __future__ import annotations

import os
from pathlib import Path

import urllib3

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.client import KubeClient

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class ServiceAccountClient(KubeClient):
    """Requests as the pod's service account. The token is read anew for each: the kubelet renews it in place."""

    def __init__(self, folder: Path = SERVICE_ACCOUNT, timeout_s: float = 30.0) -> None:
        """Raises GenainetError outside of a pod."""
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not port:
            raise GenainetError("this is no pod of a cluster: KUBERNETES_SERVICE_HOST is not set")
        self._token = folder / "token"
        self.server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
        self.namespace = "default"
        self._timeout = urllib3.Timeout(connect=min(10.0, timeout_s), read=timeout_s)
        self._pool = urllib3.PoolManager(
            maxsize=4, ca_certs=str(folder / "ca.crt"), cert_reqs="CERT_REQUIRED", retries=False
        )

    def headers(self) -> dict[str, str]:
        try:
            return {"authorization": f"Bearer {self._token.read_text().strip()}"}
        except OSError as error:
            raise GenainetError(f"the service account's token can't be read: {error}") from None
