"""The Services of tests/proxy_services.py, as objects of the API server."""

from __future__ import annotations

from collections.abc import Collection

from tests.cluster.harness.api import Api
from tests.proxy_services import NAMESPACE, SERVICES, endpoint_slices

KUBELET = """\
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*nat
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
*filter
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-FIREWALL - [0:0]
-A INPUT -j KUBE-FIREWALL
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
COMMIT
"""  # what the kubelet adds beside kube-proxy  # noqa: E501


def install_services(api: Api, only: Collection[str] = ()) -> None:
    """Makes the namespace, the Services with their load balancers' addresses, and their endpoints; all, or `only` some."""
    api.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}])
    for name, spec, suffixes, balancer in SERVICES:
        if only and name not in only:
            continue
        metadata = {"name": name, "namespace": NAMESPACE}
        api.apply([{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}])
        if balancer:
            status = {"status": {"loadBalancer": {"ingress": [{"ip": ip} for ip in balancer]}}}
            api.patch(f"/api/v1/namespaces/{NAMESPACE}/services/{name}/status", status)
        api.apply(list(endpoint_slices(name, spec, suffixes)))
