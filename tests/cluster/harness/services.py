"""The Services of tests/proxy_services.py, as objects of an API server of this age."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.cluster.harness.api import Api
from tests.cluster.harness.kubeproxy import endpoint_slice
from tests.proxy_services import NAMESPACE, SERVICES, endpoint_slices

KUBELET = """\
*nat
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m comment --comment "dropping marked packets" -m mark --mark 0x8000/0x8000 -j DROP
COMMIT
"""  # what the kubelet of this version adds beside kube-proxy


def slices(name: str, spec: dict[str, Any], suffixes: list[int]) -> Iterator[dict[str, Any]]:
    """The EndpointSlices in the version that this API server knows."""
    for item in endpoint_slices(name, spec, suffixes):
        ips = [ip for e in item["endpoints"] for ip in e["addresses"]]
        suffix = item["metadata"]["name"].removeprefix(f"{name}-")
        node = item["endpoints"][0]["nodeName"]
        yield endpoint_slice(name, ips, item["ports"], namespace=NAMESPACE, node=node, suffix=suffix)


def install_services(api: Api) -> None:
    """Makes the namespace, the Services with their load balancers' addresses, and their endpoints."""
    api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    for name, spec, suffixes, balancer in SERVICES:
        metadata = {"name": name, "namespace": NAMESPACE}
        api.apply([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])
        if balancer:
            status = {"status": {"loadBalancer": {"ingress": [{"ip": ip} for ip in balancer]}}}
            api.patch(f"/api/v1/namespaces/{NAMESPACE}/services/{name}/status", status)
        api.apply(list(slices(name, spec, suffixes)))
