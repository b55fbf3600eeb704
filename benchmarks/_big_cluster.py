"""A big cluster that exists only in etcd: 1,000 nodes, 50,000 pods, 5,000 Services, 3,000 policies.

Each object has the shape that the API server gives it. etcd takes JSON as it takes the API server's own encoding, and the
API server reads it like any other object: what is measured is the client against a real server, in minutes less than by
59,000 requests. Run inside the control plane's network namespace:  python -m benchmarks._big_cluster
"""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

ETCD = "http://127.0.0.1:2379"
_CREATED = "2026-01-01T00:00:00Z"
_IN_ONE_TRANSACTION = 100  # etcd allows 128

Object = dict[str, Any]


@dataclass(frozen=True)
class Size:
    nodes: int = 1_000
    namespaces: int = 50
    services: int = 5_000
    pods_per_service: int = 10
    policies: int = 3_000

    @property
    def pods(self) -> int:
        return self.services * self.pods_per_service


def namespace_of(service: int, size: Size) -> str:
    return f"team-{service % size.namespaces}"


def _metadata(name: str, namespace: str = "", **more: Any) -> Object:
    uid = f"{abs(hash((name, namespace))) % 10**12:012d}"
    manager = {"operation": "Update", "apiVersion": "v1", "time": _CREATED, "fieldsType": "FieldsV1"}
    fields: Object = {"fieldsV1": {f"f:field-{number}": {} for number in range(40)}}
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "uid": f"00000000-0000-4000-8000-{uid}",
        "creationTimestamp": _CREATED,
        "managedFields": [{"manager": name, **manager, **fields} for name in ("kube-controller-manager", "kubelet")],
        **more,
    }


def node_address(number: int) -> str:
    return f"172.20.{number >> 8}.{number & 255}"


def pod_address(number: int) -> str:
    return f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def service_address(service: int) -> str:
    return f"10.96.{32 + (service >> 8)}.{service & 255}"


def _node(number: int) -> Object:
    name = f"worker-{number}"
    addresses = [{"type": "InternalIP", "address": node_address(number)}, {"type": "Hostname", "address": name}]
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "topology.kubernetes.io/zone": f"zone-{number % 3}",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": _metadata(name, labels=labels),
        "spec": {"podCIDR": f"10.{128 + (number >> 8)}.{number & 255}.0/24"},
        "status": {
            "addresses": addresses,
            "capacity": {"cpu": "64", "memory": "512Gi", "pods": "110"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "images": [{"names": [f"registry.example/image-{n}:1"], "sizeBytes": 10**8} for n in range(30)],
            "nodeInfo": {
                "kernelVersion": "6.1.0",
                "kubeletVersion": "v1.37.2",
                "containerRuntimeVersion": "containerd://2",
            },
        },
    }


def _moment(number: int) -> str:
    """Each pod has its own."""
    return f"2026-01-{1 + number // 86400:02d}T{number // 3600 % 24:02d}:{number // 60 % 60:02d}:{number % 60:02d}Z"


def _pod(number: int, service: int, size: Size) -> Object:
    app = f"model-{service}"
    container = {
        "name": "model",
        "image": "registry.example/vllm:1",
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "env": [{"name": f"OPTION_{option}", "value": "x" * 20} for option in range(10)],
        "resources": {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}},
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http", "scheme": "HTTP"}, "periodSeconds": 5},
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
    }
    owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{app}-7d9c6b5f4", "uid": "u", "controller": True}
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": _metadata(
            f"{app}-7d9c6b5f4-{number:05d}",
            namespace_of(service, size),
            labels={"app.kubernetes.io/name": app, "pod-template-hash": "7d9c6b5f4"},
            ownerReferences=[owner],
        ),
        "spec": {
            "nodeName": f"worker-{number % size.nodes}",
            "containers": [container],
            "volumes": [{"name": "token", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}],
            "serviceAccountName": "default",
            "restartPolicy": "Always",
            "dnsPolicy": "ClusterFirst",
            "schedulerName": "default-scheduler",
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
        "status": {
            "phase": "Running",
            "podIP": pod_address(number),
            "podIPs": [{"ip": pod_address(number)}],
            "hostIP": node_address(number % size.nodes),
            "startTime": _moment(number),
            "conditions": [{"type": kind, "status": "True", "lastTransitionTime": _moment(number)} for kind in kinds],
            "containerStatuses": [
                {
                    "name": "model",
                    "ready": True,
                    "restartCount": 0,
                    "image": "registry.example/vllm:1",
                    "imageID": "sha256:" + "0" * 64,
                    "containerID": f"containerd://{number:064x}",
                    "state": {"running": {"startedAt": _moment(number)}},
                }
            ],
        },
    }


def _workload(service: int, size: Size) -> Iterator[tuple[str, Object]]:
    """A Service with all that is behind it, each with its place in etcd."""
    app, namespace, ip = f"model-{service}", namespace_of(service, size), service_address(service)
    labels = {"app.kubernetes.io/name": app}
    numbers = range(service * size.pods_per_service, (service + 1) * size.pods_per_service)
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "model", "image": "vllm"}]}}
    spec = {"replicas": len(numbers), "selector": {"matchLabels": labels}, "template": template}
    yield (
        f"services/specs/{namespace}/{app}",
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _metadata(app, namespace, labels=labels),
            "spec": {
                "type": "ClusterIP",
                "clusterIP": ip,
                "clusterIPs": [ip],
                "ipFamilies": ["IPv4"],
                "ipFamilyPolicy": "SingleStack",
                "selector": labels,
                "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}],
            },
        },
    )
    parent = {"resource": "services", "namespace": namespace, "name": app}
    yield (
        f"ipaddresses/{ip}",
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IPAddress",
            "metadata": _metadata(
                ip,
                labels={
                    "ipaddress.kubernetes.io/ip-family": "IPv4",
                    "ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io",
                },
            ),
            "spec": {"parentRef": parent},
        },
    )
    yield (
        f"endpointslices/{namespace}/{app}-1",
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": _metadata(f"{app}-1", namespace, labels={"kubernetes.io/service-name": app}),
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": [pod_address(number)],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": f"worker-{number % size.nodes}",
                    "targetRef": {"kind": "Pod", "namespace": namespace, "name": f"{app}-7d9c6b5f4-{number:05d}"},
                }
                for number in numbers
            ],
        },
    )
    yield (
        f"deployments/{namespace}/{app}",
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": _metadata(app, namespace), "spec": spec},
    )
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": app, "uid": "u", "controller": True}
    name = f"{app}-7d9c6b5f4"
    yield (
        f"replicasets/{namespace}/{name}",
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": _metadata(name, namespace, labels=labels, ownerReferences=[owner]),
            "spec": spec,
        },
    )
    for number in numbers:
        yield f"pods/{namespace}/{name}-{number:05d}", _pod(number, service, size)


def _policy(number: int, size: Size) -> Object:
    namespace = namespace_of(number, size)
    callers = [
        {"podSelector": {"matchLabels": {"app.kubernetes.io/name": f"model-{number + 50 * hop}"}}} for hop in range(4)
    ]
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": _metadata(f"callers-of-model-{number}", namespace),
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": f"model-{number}"}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": callers, "ports": [{"protocol": "TCP", "port": 8080}]}],
        },
    }


def objects(size: Size) -> Iterator[tuple[str, Object]]:
    """Every object, with its key below /registry."""
    for number in range(size.namespaces):
        name = f"team-{number}"
        labels = {"kubernetes.io/metadata.name": name}
        status = {"phase": "Active"}
        metadata = _metadata(name, labels=labels)
        yield f"namespaces/{name}", {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata, "status": status}
    for number in range(size.nodes):
        yield f"minions/worker-{number}", _node(number)
    for number in range(size.policies):
        yield f"networkpolicies/{namespace_of(number, size)}/callers-of-model-{number}", _policy(number, size)
    for service in range(size.services):
        yield from _workload(service, size)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode()


def put_all(size: Size, etcd: str = ETCD) -> int:
    """Puts the objects into etcd, and says how many."""
    count = 0
    rest = objects(size)
    while batch := list(islice(rest, _IN_ONE_TRANSACTION)):
        puts = [
            {"requestPut": {"key": _text(b"/registry/" + key.encode()), "value": _text(json.dumps(value).encode())}}
            for key, value in batch
        ]
        request = urllib.request.Request(f"{etcd}/v3/kv/txn", json.dumps({"success": puts}).encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            if not json.load(answer).get("succeeded"):
                raise RuntimeError("etcd refused a transaction")
        count += len(batch)
    return count


if __name__ == "__main__":
    print(put_all(Size()))
