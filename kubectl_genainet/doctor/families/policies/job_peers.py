"""Policies between the pods of one distributed job or database."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.labels import selecting_labels
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.policy.model import Direction, Explanation, PolicyVerdict

_ROLES = (Role.TRAINING, Role.ACCELERATED, Role.MODEL_SERVER, Role.VECTOR_DATABASE)
# Ports of a database's members for each other, by stack.
_MEMBERS = {"Qdrant": (6335,), "Weaviate": (7102, 7100), "Elasticsearch": (9300,), "OpenSearch": (9300,)}
_RAY = "ray.io"
EPHEMERAL = 40000  # one of the ports that the kernel chooses (ip_local_port_range)


@check(Area.POLICY, Severity.ERROR, needs=("NetworkPolicy", "Pod"), own_namespace=True)
def policy_blocks_peers(cluster: Cluster) -> Problems:
    """Policies keep the pods of one job, or of one database, from each other.

    Asks the policy engine whether pods of a distributed job or model server (parts of one object with accelerators, head
    and workers of Ray, or several pods of a training workload that is no Deployment and no Job without a subdomain) may
    connect to each other on TCP ports that the kernel chooses, and whether pods of a vector database with several may on the
    port of its cluster (Qdrant 6335, Weaviate 7102 or 7100, Elasticsearch and OpenSearch 9300), where the containers
    declare it.

    Why: NCCL, Gloo, MPI and Ray rendezvous on one port and then listen on others, which nobody knows beforehand. A
    policy that admits the rendezvous port alone, or nothing, leaves every rank waiting for its peers. An error: the
    job hangs at its first collective, the database takes no writes. A warning in manifests that are not the whole cluster:
    a policy that is not among them may admit the peers.

    Source: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#networking-issues,
    https://docs.ray.io/en/latest/ray-core/configure.html#ports-configurations,
    https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    parts: dict[ObjectRef, list[Workload]] = defaultdict(list)
    for workload in cluster.workloads:
        spread = workload.part or workload.ref.kind not in ("Deployment", "DaemonSet", "ReplicaSet")
        together = cluster.role(workload) in _ROLES or workload.group == _RAY
        if cluster.in_scope(workload.namespace) and spread and together:
            parts[workload.ref].append(workload)
    for ref, workloads in parts.items():
        port = _peer_port(cluster, workloads)
        denied = _denied(cluster, workloads, port) if port else None
        if denied is None:
            continue
        last, first, verdict = denied
        ingress = verdict.ingress.verdict is PolicyVerdict.DENY
        direction = Direction.INGRESS if ingress else Direction.EGRESS
        policies = verdict.direction(direction).isolated_by
        if any(p.kind == "DaemonSet" for p in policies):  # an agent in strict mode: left to vpc-cni-strict
            continue
        yield Problem(
            "its pods may not connect to each other",
            ref,
            tuple(
                derived(
                    p, f"spec.{direction.value}", port, f"{p} isolates them, and no rule admits {_named(port)} of peers"
                )
                for p in policies
            ),
            _among_themselves(first, last, direction),
            refuted_by=("NetworkPolicy", first.namespace),
        )


def _denied(cluster: Cluster, workloads: list[Workload], port: int) -> tuple[Workload, Workload, Explanation] | None:
    """(client, server, verdict) of the first way between the parts of one object that policies do not admit; the pods of a
    single part reach each other or do not, in both directions alike."""
    first, last = workloads[0], workloads[-1]
    for client, server in ((last, first), (first, last))[: len(workloads)]:
        verdict = cluster.admits(client, server, "TCP", port) if client.pods and server.pods else None
        if verdict is not None and verdict.verdict is PolicyVerdict.DENY:
            return client, server, verdict
    return None


def _peer_port(cluster: Cluster, workloads: list[Workload]) -> int:
    """The port on which the pods of one object have to reach each other; 0 where they need not."""
    first = workloads[0]
    stack = cluster.stack(first)
    if cluster.role(first) is Role.VECTOR_DATABASE:
        declared = {n for c in first.containers for n, _, _ in c.ports}
        members = _MEMBERS.get(stack.name, ()) if stack is not None and len(first.pods) > 1 else ()
        return next((n for n in members if n in declared), 0)
    together = len(workloads) > 1 or (cluster.role(first) is Role.TRAINING and _meets(first))
    return EPHEMERAL if together and (first.group == _RAY or all(w.template.accelerated for w in workloads)) else 0


def _meets(workload: Workload) -> bool:
    """Whether the pods of a training workload work together: the shards of a plain Job need not."""
    return workload.ref.kind not in ("Job", "CronJob") or bool(workload.template.spec.get("subdomain"))


def _named(port: int) -> str:
    return "all ports" if port == EPHEMERAL else f"TCP {port}"


def _among_themselves(first: Workload, last: Workload, direction: Direction) -> Remedy:
    """A policy that admits the job's pods to each other on every port, in the direction in which they are isolated."""
    shared = {k: v for k, v in selecting_labels(first).items() if selecting_labels(last).get(k) == v}
    if not shared:
        return Remedy("Give the parts a common label, and admit pods with it to each other on all ports.")
    peers = [{"podSelector": {"matchLabels": shared}}]
    rule = {"ingress": [{"from": peers}]} if direction is Direction.INGRESS else {"egress": [{"to": peers}]}
    spec = {"podSelector": {"matchLabels": shared}, "policyTypes": [direction.value.capitalize()], **rule}
    return adding(
        "Admit the pods to each other on all ports.",
        network_policy(f"{first.name}-peers", first.namespace, spec),
    )
