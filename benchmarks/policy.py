"""The policy engine: the full matrix and single verdicts, beside judging every pair of pods one by one.

The cluster: pods in namespaces, five workloads each, with policies as they are found in the field (default deny, from
the same namespace, from labelled namespaces, to a block, to DNS, named ports).
"""

from __future__ import annotations

import gc
import random
import resource
import time
from typing import Any

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy import PolicyEngine, PolicyFlow, pod_endpoint

WORKLOADS = 5


def cluster(pods: int, namespaces: int, policies: int, seed: int = 1) -> ClusterSnapshot:
    """A made-up cluster; the same seed gives the same one."""
    rng = random.Random(seed)
    objects: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"ns{i}", "labels": {"team": f"t{i % 20}"}}}
        for i in range(namespaces)
    ]
    for i in range(pods):
        app = f"app{(i // namespaces) % WORKLOADS}"
        ip = f"10.{i >> 16 & 255}.{i >> 8 & 255}.{i & 255}"
        objects.append({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"pod{i}", "namespace": f"ns{i % namespaces}", "labels": {"app": app, "t": app[-1]}},
            "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
        })  # fmt: skip
    for i in range(policies):
        objects.append({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"name": f"policy{i}", "namespace": f"ns{i % namespaces}"},
            "spec": _spec(rng, i // namespaces),
        })  # fmt: skip
    return ClusterSnapshot(tuple(KubeObject(o) for o in objects))


def _spec(rng: random.Random, kind: int) -> dict[str, Any]:
    app = {"matchLabels": {"app": f"app{rng.randrange(WORKLOADS)}"}}
    other = {"matchLabels": {"app": f"app{rng.randrange(WORKLOADS)}"}}
    team = {"matchLabels": {"team": f"t{rng.randrange(20)}"}}
    block = {"ipBlock": {"cidr": f"10.0.{rng.randrange(40)}.0/24", "except": [f"10.0.{rng.randrange(40)}.8/29"]}}
    if block["ipBlock"]["except"][0].rpartition(".")[0] != block["ipBlock"]["cidr"].rpartition(".")[0]:
        del block["ipBlock"]["except"]
    match kind % 5:
        case 0:
            return {"podSelector": {}, "policyTypes": ["Ingress"]}
        case 1:
            return {"podSelector": app, "ingress": [{"from": [{"podSelector": other}], "ports": [{"port": "http"}]}]}
        case 2:
            peers = [{"namespaceSelector": team, "podSelector": other}, {"namespaceSelector": team}]
            return {"podSelector": app, "ingress": [{"from": peers, "ports": [{"port": 8080}]}]}
        case 3:
            rules = [{"to": [block]}, {"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]}]
            return {"podSelector": app, "policyTypes": ["Egress"], "egress": rules}
        case _:
            ports = [{"port": 8000, "endPort": 9000}]
            return {"podSelector": app, "ingress": [{"from": [{"namespaceSelector": team}, block], "ports": ports}]}


def _figures(pods: int, namespaces: int, policies: int) -> tuple[float, float, float, int, PolicyEngine]:
    snapshot = cluster(pods, namespaces, policies)
    gc.collect()
    start = time.perf_counter()
    engine = PolicyEngine(snapshot)
    built = time.perf_counter()
    matrix = engine.matrix("TCP", 8080)
    done = time.perf_counter()
    allowed = sum(row.bit_count() for row in matrix.allowed)
    assert 0 < allowed < len(matrix.classes) ** 2
    return built - start, done - built, done - start, len(matrix.classes), engine


def _verdicts(engine: PolicyEngine, pods: int, namespaces: int, count: int) -> float:
    rng = random.Random(2)
    ends = [pod_endpoint(f"ns{i % namespaces}", f"pod{i}") for i in range(pods)]
    flows = [PolicyFlow(rng.choice(ends), rng.choice(ends), "TCP", rng.choice((53, 443, 8080))) for _ in range(count)]
    start = time.perf_counter()
    for flow in flows:
        engine.verdict(flow)
    return count / (time.perf_counter() - start)


def main() -> None:
    print("matrix of one port; seconds: index = read and compile, matrix = classes and verdicts")
    print(f"{'pods':>7} {'namespaces':>10} {'policies':>8} {'classes':>7} {'index':>7} {'matrix':>7} {'total':>7}")
    sizes = [
        (1000, 20, 100),
        (2000, 40, 200),
        (5000, 100, 500),
        (10000, 200, 250),
        (10000, 200, 1000),
        (10000, 200, 4000),
    ]
    for pods, namespaces, policies in sizes:
        index, matrix, total, classes, engine = _figures(pods, namespaces, policies)
        print(f"{pods:7} {namespaces:10} {policies:8} {classes:7} {index:7.2f} {matrix:7.2f} {total:7.2f}")
        if (pods, policies) == (10000, 1000):
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            rate = _verdicts(engine, pods, namespaces, 200_000)
            slow = _explained(engine, pods, namespaces)
            days = pods * pods / slow / 3600
            print(f"        peak memory {peak:.0f} MB; {rate:,.0f} verdicts a second")
            print(
                f"        baseline, explaining pair by pair: {slow:,.0f} a second; the whole matrix so: {days:.1f} h,"
            )
            print(f"        {pods * pods / slow / matrix:,.0f} times as long")


def _explained(engine: PolicyEngine, pods: int, namespaces: int, count: int = 5000) -> float:
    rng = random.Random(3)
    ends = [pod_endpoint(f"ns{i % namespaces}", f"pod{i}") for i in range(pods)]
    start = time.perf_counter()
    for _ in range(count):
        engine.explain(PolicyFlow(rng.choice(ends), rng.choice(ends), "TCP", 8080))
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main()
