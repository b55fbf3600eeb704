"""Whom the rules of NetworkPolicies name: nobody, or someone whose own policies say no."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, command, items, mapping, number, selector_matches
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.selectors import named_by
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.model import PolicyVerdict


def _policies(cluster: Cluster) -> list[KubeObject]:
    return [p for p in cluster.snapshot.of("NetworkPolicy", "networking.k8s.io") if cluster.in_scope(p.namespace)]


@check(Area.POLICY, Severity.WARNING, needs=("NetworkPolicy", "Pod"))
def policy_peer_nobody(cluster: Cluster) -> Problems:
    """A rule of a policy names peers that do not exist.

    Looks at the selectors in `from` and `to` of a rule: none of them matches a pod, or the template of a workload. A
    rule with an ipBlock, or one for everybody, is not reported; nor are manifests that are not the whole cluster.

    Why: a label that was renamed on one side. The pods stay isolated and the caller that was meant is not admitted.
    A warning: only the caller that was meant is shut out, and it may not be there yet.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
    """
    elsewhere = cluster.partial("Pod") or cluster.partial("Namespace")
    if elsewhere and _policies(cluster):
        yield NotChecked("", f"peers of policies may be elsewhere: {elsewhere}")
        return
    known: dict[tuple[str, str], bool] = {}
    for policy in _policies(cluster):
        for direction, side in (("ingress", "from"), ("egress", "to")):
            for index, rule in enumerate(items(policy.raw, "spec", direction)):
                peers = items(rule, side)
                if not peers or any("ipBlock" in p for p in peers):
                    continue
                key = (policy.namespace, str(peers))
                if key not in known:
                    known[key] = any(next(named_by(cluster, policy.namespace, p), None) for p in peers)
                if not known[key]:
                    field = f"spec.{direction}[{index}].{side}"
                    yield Problem(
                        f"rule {index + 1} of its {direction} names nobody",
                        policy.ref,
                        (seen(policy.ref, field, peers, "no pod has these labels"),),
                        Remedy(
                            "Use the labels that the peers have.",
                            command=command("kubectl", "-n", policy.namespace, "get", "pods", "--show-labels"),
                        ),
                    )


@check(Area.POLICY, Severity.INFO, needs=("NetworkPolicy", "Pod"))
def policy_one_sided(cluster: Cluster) -> Problems:
    """A policy admits a client for ingress, and the client's own policies do not admit it for egress.

    Looks at ingress rules of policies that name pods of their namespace by label and TCP or UDP ports by number, and
    asks the policy engine about each such connection. A rule of which the client's egress admits one connection is not
    reported: it is written for several servers or ports, and this client needs that one.

    Why: a connection passes only where both sides admit it. The ingress rule shows that the call is meant; egress
    isolation that was added later forgot it. Calls that the client is configured to make are left to
    policy-blocks-call. Information: whether this client makes the call is not seen, and a rule may be left over.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#the-two-sorts-of-pod-isolation
    """
    isolating = _egress_selectors(cluster)
    for policy in _policies(cluster):
        egress = isolating.get(policy.namespace, [])
        for index, rule in enumerate(items(policy.raw, "spec", "ingress")):
            peers = [p for p in items(rule, "from") if p.get("podSelector") and "namespaceSelector" not in p]
            clients = [w for p in peers for w in _isolated(cluster, policy.namespace, p, egress)]
            for client in clients if items(rule, "ports") else ():
                refused = _refused_by_its_own(cluster, policy, rule, client)
                if refused is not None:
                    yield _one_sided(policy, index, client, refused)


@dataclass(frozen=True, slots=True)
class _Refused:
    """A connection that a rule admits and that the client's own policies do not."""

    server: Workload
    protocol: str
    port: int
    isolated_by: tuple[ObjectRef, ...]


def _refused_by_its_own(
    cluster: Cluster, policy: KubeObject, rule: dict[str, Any], client: Workload
) -> _Refused | None:
    """The first connection of a rule that the client's egress refuses; None where it admits one of them, for which the
    rule is then meant, or is configured to make one."""
    first: _Refused | None = None
    for server, protocol, port in _connections(cluster, policy, rule):
        explained = cluster.admits(client, server, protocol, port)
        if explained is None:
            continue
        if explained.egress.verdict is not PolicyVerdict.DENY or _configured(cluster, client, server, port):
            return None
        first = first or _Refused(server, protocol, port, tuple(explained.egress.isolated_by))
    return first


def _connections(cluster: Cluster, policy: KubeObject, rule: dict[str, Any]) -> Iterator[tuple[Workload, str, int]]:
    """(server, protocol, port) of an ingress rule: the ports that each server declares, where it declares any."""
    selector = mapping(policy.raw, "spec", "podSelector")
    ports = [(str(p.get("protocol", "TCP")), number(p, "port")) for p in items(rule, "ports")]
    for server in cluster.workloads_in.get(policy.namespace, ()):
        if selector_matches(selector, server.labels):
            declared = {(protocol, n) for c in server.template.all_containers for n, _, protocol in c.ports}
            yield from ((server, *port) for port in ports if port[1] and (not declared or port in declared))


def _configured(cluster: Cluster, client: Workload, server: Workload, port: int) -> bool:
    """Whether a client is configured to call a port of a server."""
    return any(
        call.client.key == client.key and called is not None and cluster.target_port(server, called) == port
        for service in cluster.services_of(server)
        for call in cluster.calls_to.get(service.ref, ())
        if (called := call.service_port) is not None
    )


def _one_sided(policy: KubeObject, index: int, client: Workload, refused: _Refused) -> Problem:
    server, port = refused.server, refused.port
    return Problem(
        f"{policy.ref} admits it to {server.ref}, its own egress does not ({refused.protocol} {port})",
        client.ref,
        (
            seen(policy.ref, f"spec.ingress[{index}].from", None, f"admits {client.ref}"),
            *(
                derived(p, "spec.egress", port, f"{p} isolates it for egress, and admits no {port}")
                for p in refused.isolated_by
            ),
        ),
        Remedy(
            "See the rules and the smallest change that admits it.",
            command=command(
                "kubectl",
                "genainet",
                "explain",
                f"pod/{client.namespace}/{client.pods[0].ref.name}",
                f"pod/{server.namespace}/{server.pods[0].ref.name}:{port}",
                "--patch",
            ),
        ),
    )


def _egress_selectors(cluster: Cluster) -> Mapping[str, list[dict[str, Any]]]:
    """The podSelectors of the policies that isolate for egress, by namespace."""
    selectors: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for policy in cluster.snapshot.of("NetworkPolicy", "networking.k8s.io"):
        if "egress" in policy.raw.get("spec", {}) or _egress_type(policy):
            selectors[policy.namespace].append(mapping(policy.raw, "spec", "podSelector"))
    return selectors


def _isolated(
    cluster: Cluster, namespace: str, peer: dict[str, Any], egress: list[dict[str, Any]]
) -> Iterator[Workload]:
    """The workloads that a peer names and that some policy isolates for egress."""
    for workload in named_by(cluster, namespace, peer) if egress else ():
        if any(selector_matches(s, workload.labels) for s in egress):
            yield workload


def _egress_type(policy: KubeObject) -> bool:
    types = at(policy.raw, "spec", "policyTypes")
    return isinstance(types, list) and "Egress" in types
