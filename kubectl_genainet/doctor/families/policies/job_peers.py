"""Policies between the pods of one distributed job."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.labels import selecting_labels
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.policy.model import Direction, PolicyVerdict

_ROLES = (Role.TRAINING, Role.ACCELERATED, Role.MODEL_SERVER)
EPHEMERAL = 40000  # one of the ports that the kernel chooses (ip_local_port_range)


@check(Area.POLICY, Severity.ERROR, needs=("NetworkPolicy", "Pod"), own_namespace=True)
def policy_blocks_job(cluster: Cluster) -> Problems:
    """Policies keep the pods of one job from each other.

    Asks the policy engine whether pods of a distributed job or model server (parts of one object, or several pods of a
    workload with accelerators that is no Deployment) may connect to each other on TCP ports that the kernel chooses. An
    error: the job hangs at its first collective.

    Why: NCCL, Gloo, MPI and Ray rendezvous on one port and then listen on others, which nobody knows beforehand. A
    policy that admits the rendezvous port alone, or nothing, leaves every rank waiting for its peers. An error: the
    job hangs at its first collective.

    Source: https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/troubleshooting.html#networking-issues,
    https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    parts: dict[ObjectRef, list[Workload]] = defaultdict(list)
    for workload in cluster.workloads:
        spread = workload.part or workload.ref.kind not in ("Deployment", "DaemonSet", "ReplicaSet")
        if cluster.in_scope(workload.namespace) and spread and cluster.role(workload) in _ROLES:
            parts[workload.ref].append(workload)
    for ref, workloads in parts.items():
        first, last = workloads[0], workloads[-1]
        if first is not last and not all(w.template.accelerated for w in workloads):
            continue
        if first is last and not first.template.accelerated:
            continue
        found = cluster.admits(last, first, "TCP", EPHEMERAL) if first.pods and last.pods else None
        if found is None or found.verdict is not PolicyVerdict.DENY:
            continue
        ingress = found.ingress.verdict is PolicyVerdict.DENY
        direction = Direction.INGRESS if ingress else Direction.EGRESS
        policies = found.direction(direction).isolated_by
        if any(p.kind == "DaemonSet" for p in policies):  # an agent in strict mode: left to vpc-cni-strict
            continue
        yield Problem(
            "its pods may not connect to each other",
            ref,
            tuple(
                derived(
                    p, f"spec.{direction.value}", EPHEMERAL, f"{p} isolates them, and no rule admits all ports of peers"
                )
                for p in policies
            ),
            _among_themselves(first, last, direction),
        )


def _among_themselves(first: Workload, last: Workload, direction: Direction) -> Remedy:
    """A policy that admits the job's pods to each other on every port, in the direction in which they are isolated."""
    shared = {k: v for k, v in selecting_labels(first).items() if selecting_labels(last).get(k) == v}
    if not shared:
        return Remedy("Give the parts a common label, and admit pods with it to each other on all ports.")
    peers = [{"podSelector": {"matchLabels": shared}}]
    rule = {"ingress": [{"from": peers}]} if direction is Direction.INGRESS else {"egress": [{"to": peers}]}
    spec = {"podSelector": {"matchLabels": shared}, "policyTypes": [direction.value.capitalize()], **rule}
    return adding(
        "Admit the job's pods to each other on all ports.",
        network_policy(f"{first.name}-peers", first.namespace, spec),
    )
