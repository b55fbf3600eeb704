"""Clients from outside the cluster that a load balancer brings, and that the pods' policies do not admit."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, mapping
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.backends import backends_of, is_for_metrics
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service, ServicePort
from kubectl_genainet.policy.model import PolicyFlow, PolicyVerdict, ip_endpoint, pod_endpoint

_OUTSIDE = "203.0.113.10"  # of the addresses for documentation (RFC 5737): no rule by address names it


def _isolating(cluster: Cluster, workload: Workload, protocol: str, port: int) -> list[KubeObject]:
    """The NetworkPolicies that keep everyone from outside away from a port: of each kind of peer they admit pods alone."""
    live = next((p for p in workload.pods if not p.terminating), None)
    if live is None or workload.template.host_network or not port:
        return []
    flow = PolicyFlow(ip_endpoint(_OUTSIDE), pod_endpoint(live.ref.namespace, live.ref.name), protocol, port)
    verdict = cluster.policy.explain(flow).ingress
    known = {p.ref: p for p in cluster.snapshot.of("NetworkPolicy", "networking.k8s.io")}
    if verdict.verdict is not PolicyVerdict.DENY or any(ref not in known for ref in verdict.isolated_by):
        return []
    isolating = [known[ref] for ref in verdict.isolated_by]
    return [] if any(_names_addresses(p) for p in isolating) else isolating


def _names_addresses(policy: KubeObject) -> bool:
    return any("ipBlock" in peer for rule in items(policy.raw, "spec", "ingress") for peer in items(rule, "from"))


def _admit(policy: KubeObject, service: Service, protocol: str, port: int) -> Remedy:
    """A policy beside the one that isolates, for the same pods, that admits the addresses that the Service takes."""
    ranges = service.spec.load_balancer_source_ranges or ("0.0.0.0/0",)
    rule = {
        "from": [{"ipBlock": {"cidr": cidr}} for cidr in ranges],
        "ports": [{"protocol": protocol, "port": port}],
    }
    spec = {"podSelector": mapping(policy.raw, "spec", "podSelector"), "policyTypes": ["Ingress"], "ingress": [rule]}
    return adding(
        f"Admit the clients' addresses for the pods that {policy.name} isolates; narrow them to those that you expect.",
        network_policy(f"{policy.name}-outside", policy.namespace, spec),
    )


def _kept_away(cluster: Cluster, service: Service) -> list[tuple[Workload, ServicePort, int, list[KubeObject]]]:
    """The first port of each workload behind a Service that nobody from outside may reach, with the policies."""
    found: dict[ObjectRef, tuple[Workload, ServicePort, int, list[KubeObject]]] = {}
    for port in service.spec.ports:
        for workload in backends_of(cluster, service, port) if not is_for_metrics(service, port) else ():
            number = cluster.target_port(workload, port)
            isolating = _isolating(cluster, workload, port.protocol, number)
            if isolating:
                found.setdefault(workload.ref, (workload, port, number, isolating))
    return list(found.values())


@check(Area.POLICY, Severity.WARNING, needs=("NetworkPolicy", "Service", "Pod"))
def policy_blocks_outside(cluster: Cluster) -> Problems:
    """Policies do not admit the clients that a load balancer brings.

    Asks the policy engine whether pods behind a Service of type LoadBalancer may be reached from outside the cluster, on the
    Service's target ports. Left out are pods that a policy with an ipBlock, or of another kind than NetworkPolicy, isolates:
    whose addresses it means is not seen. Pods on the node's network are left out too, and ports for metrics, which are not for
    clients. A warning: with externalTrafficPolicy
    Cluster those clients pass whose packets come in at the pod's own node, and policies that are not among manifests may
    admit them.

    Why: a client from outside, or the node that forwards its packets, is no pod: neither podSelector nor namespaceSelector
    admits it. Connections hang until the client's timeout, while callers inside the cluster are served.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#networkpolicy-and-services,
    https://kubernetes.io/docs/tutorials/services/source-ip/
    """
    for service in cluster.services:
        if service.spec.type != "LoadBalancer":
            continue
        for workload, port, number, isolating in _kept_away(cluster, service):
            yield Problem(
                f"clients of the load balancer of {service.ref} are not admitted to {port.protocol} {number}",
                workload.ref,
                (
                    *(
                        derived(p.ref, "spec.ingress", number, f"{p.ref} isolates it; it admits pods")
                        for p in isolating
                    ),
                    seen(service.ref, "spec.type", "LoadBalancer", f"{service.ref} leads to it from outside"),
                ),
                _admit(isolating[0], service, port.protocol, number),
                refuted_by=("NetworkPolicy", workload.namespace),
            )
