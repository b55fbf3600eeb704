"""What clusters to examine are built of: objects, pods, and what their nodes report.

A test takes one, breaks one thing and asserts on what doctor says. Objects look as the API server gives them.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from kubectl_genainet.doctor.inputs import NO_FABRIC, DnsMeasurement, DnsStats, FabricMeasurement
from kubectl_genainet.doctor.nodes_rules import NodesRules
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import Report, examine
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.events import PacketSighting
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.node import NodeReport, RulesetDump

NOW = "2026-03-01T12:00:00Z"
NS = "chatbot"
Raw = dict[str, Any]


@dataclass
class World:
    """A cluster under construction; `add`, `get`, `remove` and the node knowledge are for tests to change."""

    objects: dict[tuple[str, str, str], Raw] = field(default_factory=dict)
    reports: list[NodeReport] = field(default_factory=list)
    rulesets: list[RulesetDump] = field(default_factory=list)
    packets: list[PacketSighting] = field(default_factory=list)
    dns: list[DnsStats] = field(default_factory=list)
    fabric: FabricMeasurement = NO_FABRIC
    left_out: list[LeftOut] = field(default_factory=list)
    namespace: str = ""

    def add(self, *objects: Raw) -> None:
        for raw in objects:
            meta = raw["metadata"]
            self.objects[(raw["kind"], meta.get("namespace", ""), meta["name"])] = raw

    def get(self, kind: str, name: str, namespace: str = NS) -> Raw:
        return self.objects[(kind, namespace, name)]

    def of(self, kind: str) -> list[Raw]:
        return [o for (k, _, _), o in self.objects.items() if k == kind]

    def remove(self, kind: str, name: str, namespace: str = NS) -> None:
        del self.objects[(kind, namespace, name)]

    def spec(self, kind: str, name: str, namespace: str = NS) -> Raw:
        """The pod spec of a controller; `change` copies what is done to it to its pods."""
        found: Raw = self.get(kind, name, namespace)["spec"]["template"]["spec"]
        return found

    def pods(self, name: str, namespace: str = NS) -> list[Raw]:
        return [
            p
            for p in self.of("Pod")
            if p["metadata"]["namespace"] == namespace
            and p["metadata"]["labels"].get("app.kubernetes.io/name", p["metadata"]["labels"].get("k8s-app")) == name
        ]

    def cluster(self) -> Cluster:
        objects = tuple(KubeObject(copy.deepcopy(o)) for o in self.objects.values())
        return Cluster(
            ClusterSnapshot(objects, tuple(self.left_out), NOW),
            tuple(self.reports),
            NodesRules(self.rulesets),
            tuple(self.packets),
            DnsMeasurement(tuple(self.dns)),
            self.fabric,
            self.namespace,
        )

    def report(self) -> Report:
        return examine(self.cluster(), all_checks())


def meta(name: str, namespace: str = "", labels: Raw | None = None, **more: Any) -> Raw:
    out: Raw = {
        "name": name,
        "uid": f"uid-{namespace or 'cluster'}-{name}",
        "creationTimestamp": "2026-02-01T00:00:00Z",
    }
    if namespace:
        out["namespace"] = namespace
    return {**out, "labels": dict(labels or {}), "annotations": {}, **more}


def node(
    name: str,
    ip: str,
    *,
    zone: str,
    kind: str,
    provider: str,
    labels: Raw | None = None,
    pods: int = 58,
    cores: int = 4,
    cidr: str = "",
    allocatable: Raw | None = None,
) -> Raw:
    capacity = {"cpu": str(cores), "memory": "16Gi", "pods": str(pods), **(allocatable or {})}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": meta(
            name,
            labels={
                "kubernetes.io/hostname": name,
                "topology.kubernetes.io/zone": zone,
                "node.kubernetes.io/instance-type": kind,
                "kubernetes.io/arch": "amd64",
                **(labels or {}),
            },
        ),
        "spec": {"providerID": provider, **({"podCIDR": cidr, "podCIDRs": [cidr]} if cidr else {})},
        "status": {
            "addresses": [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}],
            "capacity": capacity,
            "allocatable": dict(capacity),
            "conditions": [
                {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is ready"}
            ],
        },
    }


def config_map(name: str, data: dict[str, str], namespace: str = "kube-system") -> Raw:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta(name, namespace), "data": data}


def container(name: str, image: str, port: int = 0, **more: Any) -> Raw:
    out: Raw = {"name": name, "image": image, **more}
    if port:
        out["ports"] = [{"name": "http", "containerPort": port, "protocol": "TCP"}]
    return out


def http_probe(path: str, port: int | str, period: int = 10, failures: int = 3) -> Raw:
    return {"httpGet": {"path": path, "port": port}, "periodSeconds": period, "failureThreshold": failures}


class Builder:
    """Adds controllers with their pods, Services with their slices; hands out addresses."""

    def __init__(self, world: World, nodes: dict[str, str], prefix: str) -> None:
        self.world, self.nodes, self.prefix = world, nodes, prefix
        self.next_pod = 10
        self.next_service = 10

    def controller(self, kind: str, name: str, namespace: str, labels: Raw, spec: Raw, on: list[str]) -> None:
        """A controller with a pod on each node of `on`."""
        template = {"metadata": {"labels": dict(labels)}, "spec": spec}
        count = len(on)
        owner_kind, owner = kind, name
        status: Raw = {"replicas": count, "readyReplicas": count, "availableReplicas": count}
        if kind == "DaemonSet":
            status = {"desiredNumberScheduled": count, "numberReady": count, "currentNumberScheduled": count}
        self.world.add(
            {
                "apiVersion": "batch/v1" if kind == "Job" else "apps/v1",
                "kind": kind,
                "metadata": meta(name, namespace, labels),
                "spec": {
                    "replicas": count,
                    "selector": {"matchLabels": dict(labels)},
                    "template": copy.deepcopy(template),
                },
                "status": status,
            }
        )
        pod_labels = dict(labels)
        if kind == "Deployment":
            owner_kind, owner, pod_labels["pod-template-hash"] = "ReplicaSet", f"{name}-5d9f7c6b8", "5d9f7c6b8"
            self.world.add(
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "metadata": meta(
                        owner,
                        namespace,
                        pod_labels,
                        ownerReferences=[
                            {
                                "apiVersion": "apps/v1",
                                "kind": "Deployment",
                                "name": name,
                                "uid": f"uid-{name}",
                                "controller": True,
                            }
                        ],
                    ),
                    "spec": {"replicas": count, "template": copy.deepcopy(template)},
                }
            )
        for index, where in enumerate(on):
            suffix = str(index) if kind == "StatefulSet" else f"{'abcdefgh'[index % 8]}{index}x2k"
            self.pod(f"{owner}-{suffix}", namespace, pod_labels, spec, where, (owner_kind, owner))

    def pod(self, name: str, namespace: str, labels: Raw, spec: Raw, where: str, owner: tuple[str, str] | None) -> Raw:
        host = bool(spec.get("hostNetwork"))
        ip = self.nodes[where] if host else f"{self.prefix}.{self.next_pod}"
        self.next_pod += 0 if host else 1
        owners = []
        if owner is not None:
            kind, of = owner
            owners = [{"apiVersion": "apps/v1", "kind": kind, "name": of, "uid": f"uid-{of}", "controller": True}]
        raw = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": meta(name, namespace, labels, ownerReferences=owners),
            "spec": {**copy.deepcopy(spec), "nodeName": where},
            "status": {
                "phase": "Running",
                "podIP": ip,
                "podIPs": [{"ip": ip}],
                "hostIP": self.nodes[where],
                "conditions": [
                    {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T11:00:00Z"},
                    {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T11:03:00Z"},
                ],
                "containerStatuses": [
                    {
                        "name": c["name"],
                        "ready": True,
                        "restartCount": 0,
                        "state": {"running": {"startedAt": "2026-03-01T11:00:30Z"}},
                    }
                    for c in spec["containers"]
                ],
            },
        }
        self.world.add(raw)
        return raw

    def service(self, name: str, namespace: str, selector: Raw, ports: list[Raw], **more: Any) -> Raw:
        """A Service with an EndpointSlice of the pods that its selector matches now."""
        ip = f"10.100.0.{self.next_service}" if name != "kube-dns" else "10.100.0.10"
        self.next_service += 1
        spec = {
            "type": "ClusterIP",
            "clusterIP": ip,
            "clusterIPs": [ip],
            "selector": dict(selector),
            "ports": ports,
            "sessionAffinity": "None",
            "ipFamilies": ["IPv4"],
            **more,
        }
        raw = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta(name, namespace),
            "spec": spec,
            "status": {"loadBalancer": {}},
        }
        self.world.add(raw, self.slice_of(raw))
        return raw

    def slice_of(self, service: Raw) -> Raw:
        spec, namespace, name = service["spec"], service["metadata"]["namespace"], service["metadata"]["name"]
        pods = [
            p
            for p in self.world.of("Pod")
            if p["metadata"]["namespace"] == namespace and spec["selector"].items() <= p["metadata"]["labels"].items()
        ]
        return {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta(f"{name}-x7k2p", namespace, {"kubernetes.io/service-name": name}),
            "addressType": "IPv4",
            "endpoints": [
                {
                    "addresses": [p["status"]["podIP"]],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": p["spec"]["nodeName"],
                    "targetRef": {"kind": "Pod", "name": p["metadata"]["name"], "namespace": namespace},
                }
                for p in pods
            ],
            "ports": [
                {"name": p.get("name", ""), "port": _target(p, pods), "protocol": p.get("protocol", "TCP")}
                for p in spec["ports"]
            ],
        }


def _target(port: Raw, pods: list[Raw]) -> int:
    target = port.get("targetPort", port["port"])
    if isinstance(target, int):
        return target
    found: int = next(
        p["containerPort"]
        for pod in pods
        for c in pod["spec"]["containers"]
        for p in c.get("ports", ())
        if p["name"] == target
    )
    return found


def proxy_conf(mode: str = "iptables", **sections: str) -> str:
    lines = ["apiVersion: kubeproxy.config.k8s.io/v1alpha1", "kind: KubeProxyConfiguration", f'mode: "{mode}"']
    for section, body in sections.items():
        lines += [f"{section}:", *(f"  {line}" for line in body.split(";"))]
    return "\n".join(lines) + "\n"


def daemon(
    build: Builder, name: str, image: str, nodes: list[str], namespace: str = "kube-system", **more: Any
) -> None:
    spec = {
        "hostNetwork": True,
        "tolerations": [{"operator": "Exists"}],
        "containers": [container(name, image), *more.pop("beside", [])],
        **more,
    }
    build.controller("DaemonSet", name, namespace, {"k8s-app": name}, spec, nodes)


def ingress(name: str, host: str, service: str, port: int | str, path: str = "/", cls: str = "nginx") -> Raw:
    backend = {"name": service, "port": {"number" if isinstance(port, int) else "name": port}}
    out: Raw = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": meta(name, NS),
        "spec": {
            "ingressClassName": cls,
            "tls": [{"hosts": [host], "secretName": f"{name}-tls"}],
            "rules": [
                {
                    "host": host,
                    "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": {"service": backend}}]},
                }
            ],
        },
    }
    out["metadata"]["annotations"] = {"nginx.ingress.kubernetes.io/proxy-read-timeout": "3600"}
    return out


def change_report(world: World, index: int, **changes: Any) -> None:
    world.reports[index] = msgspec.structs.replace(world.reports[index], **changes)


def change_netns(world: World, index: int, netns: int, **changes: Any) -> None:
    report = world.reports[index]
    found = list(report.namespaces)
    found[netns] = msgspec.structs.replace(found[netns], **changes)
    world.reports[index] = msgspec.structs.replace(report, namespaces=tuple(found))


def event(reason: str, message: str, about: Raw, name: str = "ev1") -> Raw:
    ref = {
        "kind": about["kind"],
        "name": about["metadata"]["name"],
        "namespace": about["metadata"].get("namespace", ""),
    }
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": meta(name, about["metadata"].get("namespace", "default")),
        "involvedObject": ref,
        "reason": reason,
        "message": message,
        "type": "Warning",
        "count": 7,
    }


def each(world: World, kind: str, name: str, namespace: str = NS) -> Iterator[Raw]:
    """The template's pod spec and those of its pods: what an edit of a controller changes in the end."""
    controller = world.get(kind, name, namespace)
    yield controller["spec"]["template"]["spec"]
    labels = controller["spec"]["template"]["metadata"]["labels"]
    for pod in world.of("Pod"):
        if pod["metadata"]["namespace"] == namespace and labels.items() <= pod["metadata"]["labels"].items():
            yield pod["spec"]
