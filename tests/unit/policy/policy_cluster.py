"""Small clusters for the tests of policies."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.kube import KubeObject, without_nulls
from kubectl_genainet.policy import (
    DirectionResult,
    Explanation,
    PolicyEndpoint,
    PolicyEngine,
    PolicyFlow,
    domain_endpoint,
    ip_endpoint,
    pod_endpoint,
)
from kubectl_genainet.policy.left_out.unevaluated import Unevaluated

Raw = dict[str, Any]


def namespace(name: str, **labels: str) -> Raw:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def node(name: str, ip: str = "", **labels: str) -> Raw:
    addresses = [{"type": "InternalIP", "address": ip}] if ip else []
    metadata = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "status": {"addresses": addresses}}


def pod(name: str, ip: str = "", *, ports: tuple[tuple[str, str, int], ...] = (), **more: Any) -> Raw:
    """`name` is namespace/name; `labels`, `node`, `host_network`, `service_account` and `phase` may be given."""
    where, _, short = name.partition("/")
    spec: Raw = {
        "containers": [{"name": "c", "ports": [{"name": n, "protocol": p, "containerPort": i} for n, p, i in ports]}],
        "nodeName": more.get("node", ""),
        "hostNetwork": more.get("host_network", False),
        "serviceAccountName": more.get("service_account", ""),
    }
    ips = ip.split(",") if ip else []
    status: Raw = {"phase": more.get("phase", "Running"), "podIPs": [{"ip": i} for i in ips]}
    if ips:
        status["podIP"] = ips[0]
    metadata = {"name": short, "namespace": where, "labels": more.get("labels", {"app": short})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


def netpol(name: str, **spec: Any) -> Raw:
    where, _, short = name.partition("/")
    spec = {"podSelector": {}, **spec}
    metadata = {"name": short, "namespace": where}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def admin(kind: str, name: str, **spec: Any) -> Raw:
    version = "v1alpha2" if kind == "ClusterNetworkPolicy" else "v1alpha1"
    metadata = {"name": name}
    return {"apiVersion": f"policy.networking.k8s.io/{version}", "kind": kind, "metadata": metadata, "spec": spec}


def daemon_set(image: str, container: str = "c", *arguments: str, name: str = "net") -> Raw:
    """The agent of an enforcer."""
    spec = {"containers": [{"name": container, "image": image, "args": list(arguments)}]}
    template = {"metadata": {"labels": {"app": name}}, "spec": spec}
    metadata = {"name": name, "namespace": "kube-system"}
    return {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": metadata, "spec": {"template": template}}


def labels(**wanted: str) -> Raw:
    return {"matchLabels": wanted}


def engine(*objects: Raw, left_out: tuple[LeftOut, ...] = ()) -> PolicyEngine:
    return PolicyEngine(snapshot(*objects, left_out=left_out))


def unevaluated(*objects: Raw) -> Unevaluated:
    """The one policy of `objects` that is not evaluated."""
    (found,) = engine(*objects).unevaluated
    return found


def snapshot(*objects: Raw, left_out: tuple[LeftOut, ...] = ()) -> ClusterSnapshot:
    return ClusterSnapshot(tuple(KubeObject(without_nulls(o), "test.yaml") for o in objects), left_out)


def end(text: str) -> PolicyEndpoint:
    """ "ns/pod", an address, or a domain name."""
    if "/" in text:
        return pod_endpoint(*text.split("/"))
    return domain_endpoint(text) if text.rpartition(".")[2].isalpha() else ip_endpoint(text)


def ask(engine: PolicyEngine, source: str, target: str, port: int = 80, protocol: str = "TCP") -> Explanation:
    """Explains a flow, and checks that the bare verdict is the same."""
    flow = PolicyFlow(end(source), end(target), protocol, port)
    explanation = engine.explain(flow)
    assert engine.verdict(flow) is explanation.verdict
    return explanation


def verdict(engine: PolicyEngine, source: str, target: str, port: int = 80, protocol: str = "TCP") -> str:
    return ask(engine, source, target, port, protocol).verdict.value


def effects(result: DirectionResult) -> list[tuple[str, str, int | None]]:
    return [(p.name, p.effect.value, p.rule) for p in result.policies]
