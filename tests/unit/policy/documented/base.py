"""A statement of the documentation, and the cluster that it is judged in."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.unit.policy.policy_cluster import (
    Raw,
    admin,
    labels,
    namespace,
    netpol,
    node,
    pod,
)

WEB, DB, CHAT, WORLD, NODE1, NODE2 = "a/web", "a/db", "b/chat", "203.0.113.9", "192.168.0.1", "192.168.0.2"
NAME = "kubernetes.io/metadata.name"
OWNED = {
    "ownerReferences": [{"kind": "ReplicaSet", "name": "r", "apiVersion": "apps/v1", "uid": "1", "controller": True}]
}


def owned(raw: Raw) -> Raw:
    return {**raw, "metadata": {**raw["metadata"], **OWNED}}


CLUSTER = (
    namespace("a", **{NAME: "a"}),
    namespace("b", **{NAME: "b"}),
    node("n1", NODE1, role="worker"),
    node("n2", NODE2, role="infra"),
    owned(pod(WEB, "10.0.0.1", node="n1")),
    owned(pod(DB, "10.0.0.2", node="n2")),
    owned(pod(CHAT, "10.0.0.3", node="n2")),
)


def kind(api: str, name: str, *, where: str = "", **spec: Any) -> Raw:
    metadata = {"name": "p", **({"namespace": where} if where else {})}
    return {"apiVersion": api, "kind": name, "metadata": metadata, "spec": spec}


class Documented(NamedTuple):
    """One statement: under this enforcer, with these objects, this becomes of the flow."""

    says: str
    enforcer: str
    objects: tuple[Raw, ...]
    source: str
    target: str
    verdict: str
    port: int = 80


OVN = "ovn"
FIREWALL = kind(
    "k8s.ovn.org/v1", "EgressFirewall", where="a", egress=[{"type": "Deny", "to": {"cidrSelector": "0.0.0.0/0"}}]
)
CLOSED_OUT = netpol("a/out", policyTypes=["Egress"])
CLOSED_IN = netpol("a/in", policyTypes=["Ingress"])
DENY_B = {"action": "Deny", "from": [{"namespaces": labels(**{NAME: "b"})}]}
SUBJECT_A = {"namespaces": labels(**{NAME: "a"})}
FROM_B = netpol("a/b", ingress=[{"from": [{"namespaceSelector": labels(**{NAME: "b"})}]}])


def anp(priority: int, **rules: Any) -> Raw:
    return admin("AdminNetworkPolicy", f"p{priority}", priority=priority, subject=SUBJECT_A, **rules)


def banp(**rules: Any) -> Raw:
    return admin("BaselineAdminNetworkPolicy", "default", subject=SUBJECT_A, **rules)
