"""kube-router, where its firewall runs. Source: kube-router documentation, user guide (--run-firewall, on by default)."""

from __future__ import annotations

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.policy.enforcers.base import Enforcer, EnforcerName, Known, arguments_of, running


def _find(snapshot: ClusterSnapshot) -> str:
    for obj, container in running(snapshot, "kube-router"):
        if "--run-firewall=false" not in arguments_of(container):
            return str(obj.ref)
    return ""


KUBE_ROUTER = Known(Enforcer(EnforcerName.KUBE_ROUTER, "kube-router"), _find)
