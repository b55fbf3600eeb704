"""Ports that rules of NetworkPolicies name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, mapping, number, selector_matches
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import set_in
from kubectl_genainet.doctor.predicates.selectors import named_by
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service


@check(Area.POLICY, Severity.WARNING, needs=("NetworkPolicy", "Service", "Pod"), own_namespace=True)
def policy_service_port(cluster: Cluster) -> Problems:
    """A NetworkPolicy names a Service's port instead of the pods'.

    Looks at the ports of ingress rules, and of egress rules to pods: a number that no pod there declares, but that is the
    port of a Service whose target port is another one.

    Why: a policy sees the packet after the Service's translation, so it never matches, and the calls that it was to
    admit are dropped. A warning: another rule or policy may admit the call.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    for policy in cluster.snapshot.of("NetworkPolicy", "networking.k8s.io"):
        if not cluster.in_scope(policy.namespace):
            continue
        for direction in ("ingress", "egress"):
            for r, rule in enumerate(items(policy.raw, "spec", direction)):
                servers = list(_servers(cluster, policy, direction, rule))
                for p, port in _single_ports(rule):
                    translated = _translated(cluster, servers, port, {n for _, n in _single_ports(rule)})
                    if translated is not None:
                        yield _service_port(policy, f"spec.{direction}[{r}].ports[{p}].port", port, *translated)


def _servers(cluster: Cluster, policy: KubeObject, direction: str, rule: dict[str, Any]) -> Iterator[Workload]:
    """The workloads whose ports a rule is about: those that the policy selects, or that its peers name."""
    if direction == "egress":
        for peer in items(rule, "to"):
            yield from named_by(cluster, policy.namespace, peer)
        return
    selector = mapping(policy.raw, "spec", "podSelector")
    yield from (w for w in cluster.workloads_in.get(policy.namespace, ()) if selector_matches(selector, w.labels))


def _single_ports(rule: dict[str, Any]) -> list[tuple[int, int]]:
    """(index, number) of the ports of a rule that are single numbers."""
    return [
        (index, number(entry, "port"))
        for index, entry in enumerate(items(rule, "ports"))
        if number(entry, "port") and "endPort" not in entry
    ]


def _translated(
    cluster: Cluster, servers: list[Workload], port: int, admitted: set[int]
) -> tuple[Service, int, int] | None:
    """(Service, index of its port, pods' port) where a port is a Service's alone; None where it is a pod's, or the pods' is
    admitted as well."""
    for workload in servers:
        if port in {n for c in workload.template.all_containers for n, _, _ in c.ports}:
            continue
        for service in cluster.services_of(workload):
            for index, service_port in enumerate(service.spec.ports):
                target = cluster.target_port(workload, service_port)
                if service_port.port == port and target not in (0, port):
                    return None if target in admitted else (service, index, target)
    return None


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
