"""Ports that rules of NetworkPolicies name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, mapping, number
from kubectl_genainet.doctor.objects.workloads import Workload, WorkloadKey
from kubectl_genainet.doctor.predicates.edits import set_in
from kubectl_genainet.doctor.predicates.selectors import named_by
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service


@check(Area.POLICY, Severity.WARNING, needs=("NetworkPolicy", "Service", "Pod"), own_namespace=True)
def policy_service_port(cluster: Cluster) -> Problems:
    """A NetworkPolicy names a Service's port instead of the pods'.

    Looks at the ports of ingress rules, and of egress rules to pods: a number that no pod there declares or is a target of,
    but that is the port of a Service whose target port is another one. Where another rule of that direction, of any policy
    that selects the pods, admits the target port to the same peers, it is not reported. A rule for all pods of a namespace
    may mean pods that the manifests do not hold: where these are not the whole cluster it is not checked.

    Why: a policy sees the packet after the Service's translation, so it never matches, and the calls that it was to
    admit are dropped. A warning: the calls may come another way.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    for policy in cluster.snapshot.of("NetworkPolicy", "networking.k8s.io"):
        if not cluster.in_scope(policy.namespace):
            continue
        for direction in ("ingress", "egress"):
            for r, rule in enumerate(items(policy.raw, "spec", direction)):
                servers = tuple(_servers(cluster, policy, direction, rule))
                for p, port in _single_ports(rule):
                    service = _translated(cluster, servers, port)
                    if service is None or _admitted_otherwise(cluster, policy, direction, rule, service[2]):
                        continue
                    if _for_all(policy, direction, rule) and cluster.partial("Pod", policy.namespace):
                        why = f"pods that are not here may listen on port {port}, which it names for all pods"
                        yield NotChecked(str(policy.ref), why)
                        continue
                    yield _service_port(policy, f"spec.{direction}[{r}].ports[{p}].port", port, *service)


def _servers(cluster: Cluster, policy: KubeObject, direction: str, rule: dict[str, Any]) -> Iterator[Workload]:
    """The workloads whose ports a rule is about: those that the policy selects, or that its peers name."""
    if direction == "egress":
        for peer in items(rule, "to"):
            yield from named_by(cluster, policy.namespace, peer)
        return
    yield from _selected(cluster, policy)


def _selected(cluster: Cluster, policy: KubeObject) -> Iterator[Workload]:
    yield from cluster.templates_matching(policy.namespace, mapping(policy.raw, "spec", "podSelector"))


def _for_all(policy: KubeObject, direction: str, rule: dict[str, Any]) -> bool:
    """Whether a rule is about all pods of some namespace, and not about those of one server."""
    if direction == "ingress":
        return not mapping(policy.raw, "spec", "podSelector")
    return any(not mapping(peer, "podSelector") for peer in items(rule, "to"))


def _single_ports(rule: dict[str, Any]) -> list[tuple[int, int]]:
    """(index, number) of the ports of a rule that are single numbers."""
    return [
        (index, number(entry, "port"))
        for index, entry in enumerate(items(rule, "ports"))
        if number(entry, "port") and "endPort" not in entry
    ]


def _translated(cluster: Cluster, servers: tuple[Workload, ...], port: int) -> tuple[Service, int, int] | None:
    """(Service, index of its port, pods' port) where a port is a Service's alone; None where one of the servers has it."""
    found = None
    for workload in servers:
        if port in {n for c in workload.template.all_containers for n, _, _ in c.ports}:
            return None
        for service in cluster.services_of(workload):
            for index, service_port in enumerate(service.spec.ports):
                target = cluster.target_port(workload, service_port)
                if target == port:
                    return None
                if service_port.port == port and target:
                    found = found or (service, index, target)
    return found


def _admitted_otherwise(
    cluster: Cluster, policy: KubeObject, direction: str, rule: dict[str, Any], target: int
) -> bool:
    """Whether some rule that holds for a pod of the policy, and may be for the same peers, admits the pods' port."""
    own, peers = _keys(_selected(cluster, policy)), _peers(cluster, policy, direction, rule)
    return any(
        any(_admits(entry, target) for entry in items(one, "ports") or [{}])
        and _overlap(peers, _peers(cluster, other, direction, one))
        for other in cluster.snapshot.of("NetworkPolicy", "networking.k8s.io")
        if other is policy or (other.namespace == policy.namespace and own & _keys(_selected(cluster, other)))
        for one in items(other.raw, "spec", direction)
    )


def _keys(workloads: Iterable[Workload]) -> set[WorkloadKey]:
    return {w.key for w in workloads}


def _peers(cluster: Cluster, policy: KubeObject, direction: str, rule: dict[str, Any]) -> set[WorkloadKey]:
    """The workloads that the peers of a rule name; empty where it is for everyone, for addresses, or for pods elsewhere."""
    peers = items(rule, "to" if direction == "egress" else "from")
    named = [_keys(named_by(cluster, policy.namespace, peer)) for peer in peers]
    return set().union(*named) if all(named) else set()


def _overlap(peers: set[WorkloadKey], others: set[WorkloadKey]) -> bool:
    return not peers or not others or bool(peers & others)


def _admits(entry: dict[str, Any], target: int) -> bool:
    """Whether an entry of a rule's ports admits a number; a name may be that of the port."""
    first, last = number(entry, "port"), number(entry, "endPort")
    return not first or target == first or first <= target <= last


def _service_port(policy: KubeObject, field: str, port: int, service: Service, index: int, target: int) -> Problem:
    return Problem(
        f"port {port} is that of {service.ref}; its pods listen on {target}",
        policy.ref,
        (
            seen(policy.ref, field, port, f"admits TCP {port}"),
            seen(service.ref, f"spec.ports[{index}].targetPort", target, f"{service.ref} sends to {target}"),
        ),
        Remedy("Name the pods' port.", command=set_in(policy, field, target)),
    )
