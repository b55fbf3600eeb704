"""The policy engine: the full matrix and single verdicts, beside judging every pair of pods one by one.

The cluster: pods in namespaces, five workloads each, with policies as they are found in the field (default deny, from
the same namespace, from labelled namespaces, to a block, to DNS, named ports).
"""

from __future__ import annotations

import gc
import random
import resource
import time
from typing import Any, NamedTuple

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy import Patcher, PolicyEngine, PolicyFlow, PolicyVerdict, pod_endpoint

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
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"pod{i}",
                    "namespace": f"ns{i % namespaces}",
                    "labels": {"app": app, "t": app[-1]},
                },
                "spec": {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}]},
                "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]},
            }
        )
    for i in range(policies):
        objects.append(
            {
                "apiVersion": "networking.k8s.io/v1",
                "kind": "NetworkPolicy",
                "metadata": {"name": f"policy{i}", "namespace": f"ns{i % namespaces}"},
                "spec": _spec(rng, i // namespaces),
            }
        )
    return ClusterSnapshot(tuple(KubeObject(o) for o in objects))


def _spec(rng: random.Random, kind: int) -> dict[str, Any]:
    app = {"matchLabels": {"app": f"app{rng.randrange(WORKLOADS)}"}}
    other = {"matchLabels": {"app": f"app{rng.randrange(WORKLOADS)}"}}
    team = {"matchLabels": {"team": f"t{rng.randrange(20)}"}}
    block: dict[str, Any] = {
        "ipBlock": {"cidr": f"10.0.{rng.randrange(40)}.0/24", "except": [f"10.0.{rng.randrange(40)}.8/29"]}
    }
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


class Figures(NamedTuple):
    """Seconds of wall clock and of CPU; `index` reads and compiles, `matrix` folds pods and judges all pairs."""

    indexed: float
    matrix: float
    cpu: float
    classes: int
    engine: PolicyEngine

    @property
    def total(self) -> float:
        return self.indexed + self.matrix


def measure(pods: int, namespaces: int, policies: int) -> Figures:
    snapshot = cluster(pods, namespaces, policies)
    gc.collect()
    cpu, start = time.process_time(), time.perf_counter()
    engine = PolicyEngine(snapshot)
    built = time.perf_counter()
    matrix = engine.matrix("TCP", 8080)
    done = time.perf_counter()
    allowed = sum(row.bit_count() for row in matrix.allowed)
    assert 0 < allowed < len(matrix.classes) ** 2
    return Figures(built - start, done - built, time.process_time() - cpu, len(matrix.classes), engine)


def verdicts_a_second(engine: PolicyEngine, pods: int, namespaces: int, count: int = 200_000) -> tuple[float, float]:
    """Single verdicts between random pods on three ports, by wall clock and by CPU; rows are made as needed."""
    flows = _flows(pods, namespaces, count)
    cpu, start = time.process_time(), time.perf_counter()
    for flow in flows:
        engine.verdict(flow)
    return count / (time.perf_counter() - start), count / (time.process_time() - cpu)


def explained_a_second(engine: PolicyEngine, pods: int, namespaces: int, count: int = 5000) -> float:
    flows = _flows(pods, namespaces, count)
    start = time.perf_counter()
    for flow in flows:
        engine.explain(flow)
    return count / (time.perf_counter() - start)


def denials(count: int = 121) -> tuple[int, float, float, float]:
    """Random denials with their patches in a cluster with many policies: how many, seconds of CPU for the first, which
    makes the classes of pods, for all, and for as many admissions explained."""
    pods, namespaces, policies = DENIALS
    engine = PolicyEngine(cluster(pods, namespaces, policies))
    explained = [engine.explain(flow) for flow in _flows(pods, namespaces, 20 * count)]
    denied = [e.flow for e in explained if e.verdict is PolicyVerdict.DENY][:count]
    admitted = [e.flow for e in explained if e.verdict is PolicyVerdict.ALLOW][:count]
    patcher = Patcher(engine)
    start = time.process_time()
    patcher.patch(denied[0])
    first = time.process_time() - start
    for flow in denied[1:]:
        patcher.patch(flow)
    total = time.process_time() - start
    start = time.process_time()
    for flow in admitted:
        engine.explain(flow)
    return len(denied), first, total, time.process_time() - start


def _flows(pods: int, namespaces: int, count: int) -> list[PolicyFlow]:
    rng = random.Random(2)
    ends = [pod_endpoint(f"ns{i % namespaces}", f"pod{i}") for i in range(pods)]
    return [PolicyFlow(rng.choice(ends), rng.choice(ends), "TCP", rng.choice((53, 443, 8080))) for _ in range(count)]


SIZES = (
    (1000, 20, 100),
    (2000, 40, 200),
    (5000, 100, 500),
    (10000, 200, 250),
    (10000, 200, 500),
    (10000, 200, 1000),
    (10000, 200, 2000),
)
DENIALS = (10000, 200, 5000)  # a denial with its patch in 1 s, 121 in 3 s
TARGET = (10000, 200, 1000)  # in under 2 s and 500 MB; and 100,000 verdicts a second


def main() -> None:
    print("The matrix of one port, seconds of wall clock (cpu: of CPU time).")
    columns = ("pods", "namespaces", "policies", "classes", "index", "matrix", "total", "cpu")
    print("".join(f"{c:>11}" for c in columns))
    for size in SIZES:
        found = measure(*size)
        numbers = "".join(f"{n:11}" for n in (*size, found.classes))
        print(numbers + "".join(f"{s:11.2f}" for s in (found.indexed, found.matrix, found.total, found.cpu)))
        if size == TARGET:
            target = found
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pods, namespaces, policies = TARGET
    rate, cpu_rate = verdicts_a_second(target.engine, pods, namespaces)
    baseline = explained_a_second(target.engine, pods, namespaces)
    pairs = pods * pods
    print(f"{pods} pods, {policies} policies: {target.total:.2f} s, {peak:.0f} MB at most")
    print(f"single verdicts: {rate:,.0f} a second ({cpu_rate:,.0f} a second of CPU)")
    print(f"baseline, each pair explained by itself: {baseline:,.0f} a second, {pairs / baseline / 3600:.1f} h for all")
    faster = pairs / baseline / target.total
    number, first, total, admissions = denials()
    print(f"{DENIALS[2]} policies, {number} denials with patches: {total:.2f} s of CPU, the first {first:.2f} s")
    print(f"beside as many admissions explained ({admissions:.3f} s): {total / admissions:.0f} times")
    print(f"beside it: verdicts {rate / baseline:.0f} times as fast, the matrix {faster:,.0f} times")


if __name__ == "__main__":
    main()
