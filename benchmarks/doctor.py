"""doctor on a large cluster, from a bundle: 5,000 Services, 20,000 pods, 2,000 policies. Baseline: reading the bundle.

Each figure is of a process of its own (wall-clock and CPU time, peak resident memory), on a bundle made by this run. The
processes find bytecode, as those of an installed package do: a run before the first figure writes it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from kubectl_genainet.bundle import BundleWriter, new_header, read_bundle
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject

TAKEN_AT = "2026-03-01T12:00:00Z"
LIMIT_CPU_S, LIMIT_MB = 3.0, 1000
Raw = dict[str, Any]


def objects(services: int, pods: int, policies: int, nodes: int = 500, namespaces: int = 200) -> list[Raw]:
    """A cluster of many small applications; every tenth Service is a model server with a caller."""
    out: list[Raw] = []
    for n in range(nodes):
        out.append(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": f"node-{n}", "labels": {"topology.kubernetes.io/zone": f"zone-{n % 3}"}},
                "status": {"capacity": {"cpu": "32", "pods": "110"}, "allocatable": {"cpu": "32", "pods": "110"}},
            }
        )
    out += [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{n}"}} for n in range(namespaces)]
    each = pods // services
    for s in range(services):
        out += _application(s, each, nodes, f"team-{s % namespaces}")
    for p in range(policies):
        app = p % services
        out.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": f"policy-{p}", "namespace": f"team-{app % namespaces}"},
                "spec": {
                    "podSelector": {"matchLabels": {"app": f"app-{app}"}},
                    "policyTypes": ["Ingress"],
                    "ingress": [
                        {
                            "from": [{"podSelector": {"matchLabels": {"app": f"app-{app + namespaces}"}}}],
                            "ports": [{"protocol": "TCP", "port": 8080}],
                        }
                    ],
                },
            }
        )
    return out


def _application(s: int, pods: int, nodes: int, namespace: str) -> list[Raw]:
    name, labels = f"app-{s}", {"app": f"app-{s}", "team": namespace}
    image = "vllm/vllm-openai:v0.8.4" if s % 10 == 0 else "registry.test/web:1"
    container: Raw = {
        "name": "main",
        "image": image,
        "ports": [{"name": "http", "containerPort": 8080}],
        "env": [{"name": "UPSTREAM", "value": f"http://app-{s - 200}.{namespace}"}] if s >= 200 else [],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 8080}},
    }
    spec = {"containers": [container]}
    out: list[Raw] = [
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "replicas": pods,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": spec},
            },
        }
    ]
    endpoints = []
    for p in range(pods):
        number = s * pods + p
        ip, node, pod = (
            f"10.{64 + number // 65536}.{number // 256 % 256}.{number % 256}",
            f"node-{number % nodes}",
            f"{name}-abc-{p}",
        )
        out.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": pod,
                    "namespace": namespace,
                    "uid": f"uid-{number}",
                    "labels": {**labels, "pod-template-hash": "abc"},
                    "ownerReferences": [{"kind": "ReplicaSet", "name": f"{name}-abc", "controller": True}],
                },
                "spec": {**spec, "nodeName": node},
                "status": {
                    "phase": "Running",
                    "podIP": ip,
                    "podIPs": [{"ip": ip}],
                    "conditions": [{"type": "Ready", "status": "True"}],
                },
            }
        )
        endpoints.append(
            {
                "addresses": [ip],
                "conditions": {"ready": True},
                "nodeName": node,
                "targetRef": {"kind": "Pod", "name": pod, "namespace": namespace},
            }
        )
    address = f"10.32.{s // 250}.{s % 250 + 1}"
    out.append(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": address,
                "clusterIPs": [address],
                "selector": {"app": name},
                "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
            },
        }
    )
    out.append(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "addressType": "IPv4",
            "endpoints": endpoints,
            "metadata": {"name": f"{name}-x", "namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }
    )
    return out


def _measured(command: list[str], bytecode: Path) -> tuple[float, float, int, int]:
    """(seconds, CPU seconds, peak resident megabytes, exit status) of a command whose output goes nowhere."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(bytecode)}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.execve(command[0], command, environment)
    _, status, usage = os.wait4(pid, 0)
    cpu = usage.ru_utime + usage.ru_stime
    return time.perf_counter() - start, cpu, usage.ru_maxrss // 1024, os.waitstatus_to_exitcode(status)


def main() -> None:
    print(
        f"{'services':>9} {'pods':>7} {'policies':>9} {'read only':>10} {'doctor':>8} {'CPU':>7} {'ratio':>6}   memory"
    )
    with tempfile.TemporaryDirectory() as folder:
        for services, pods, policies in ((1250, 5000, 500), (2500, 10_000, 1000), (5000, 20_000, 2000)):
            path = Path(folder) / f"{services}.bundle"
            snapshot = ClusterSnapshot(tuple(map(KubeObject, objects(services, pods, policies))), (), TAKEN_AT)
            with BundleWriter(path, new_header("doctor", {}, TAKEN_AT), snapshot):
                pass
            start = time.perf_counter()
            read_bundle(path)
            reading = time.perf_counter() - start
            command = [sys.executable, "-m", "kubectl_genainet", "doctor", "--from", str(path), "-o", "json"]
            bytecode = Path(folder) / "bytecode"
            if not bytecode.exists():
                _measured(command, bytecode)
            seconds, cpu, memory, status = _measured(command, bytecode)
            if status not in (0, 1):
                raise SystemExit(f"doctor failed with status {status}")
            print(
                f"{services:>9} {pods:>7} {policies:>9} {reading:>9.2f}s {seconds:>7.2f}s {cpu:>6.2f}s "
                f"{seconds / reading:>6.1f} {memory:>6} MB"
            )
    verdict = "within" if cpu < LIMIT_CPU_S and memory < LIMIT_MB else "BEYOND"
    print(f"{verdict} the limits of {LIMIT_CPU_S:.0f} s of CPU time and {LIMIT_MB} MB")


if __name__ == "__main__":
    main()
