"""Cilium's policies for domain names: by which lookups it learns the addresses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.policies.global_policy import CILIUM_GROUP
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, mapping, selector_matches, text
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

_KINDS = ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy")


@dataclass(frozen=True, slots=True)
class _Part:
    """What one `spec` of a policy says, or one of its `specs`."""

    policy: KubeObject
    field: str
    spec: dict[str, Any]

    def to_ports(self) -> Iterator[dict[str, Any]]:
        for rule in items(self.spec, "egress"):
            yield from items(rule, "toPorts")

    def proxies_dns(self) -> bool:
        return any("dns" in mapping(ports, "rules") for ports in self.to_ports())

    def admits_dns(self) -> bool:
        return any(text(port, "port") == "53" for ports in self.to_ports() for port in items(ports, "ports"))

    def selector(self) -> dict[str, Any]:
        """The endpointSelector, its keys without the source of the label ("k8s:app" is "app")."""
        selector = mapping(self.spec, "endpointSelector")
        plain = {_without_source(key): value for key, value in mapping(selector, "matchLabels").items()}
        expressions = [{**e, "key": _without_source(text(e, "key"))} for e in items(selector, "matchExpressions")]
        return {"matchLabels": plain, "matchExpressions": expressions}


def _parts(cluster: Cluster) -> Iterator[_Part]:
    for kind in _KINDS:
        for policy in cluster.snapshot.of(kind, CILIUM_GROUP):
            if spec := mapping(policy.raw, "spec"):
                yield _Part(policy, "spec", spec)
            for index, spec in enumerate(items(policy.raw, "specs")):
                yield _Part(policy, f"specs[{index}]", spec)


@check(Area.GLOBAL_POLICY, Severity.ERROR)
def cilium_fqdn_dns(cluster: Cluster) -> Problems:
    """A toFQDNs policy has no DNS rule to learn addresses from.

    Looks at CiliumNetworkPolicies and CiliumClusterwideNetworkPolicies with toFQDNs, in `spec` and in each of `specs`, whose
    egress has no port 53 rule with `rules.dns`; other policies that have one for the same pods are accepted. In manifests
    that are not the whole cluster it is a warning, and only where one of them admits port 53 for the same pods: without that,
    lookups are admitted by a policy elsewhere.

    Why: Cilium learns which addresses a name has by proxying the pods' DNS; without the rule the list stays empty
    and the name is never admitted. An error: every call to the name fails.

    Source: https://docs.cilium.io/en/stable/security/policy/language/#dns-based
    """
    for kind in _KINDS:
        if reason := cluster.unread(kind):
            yield NotChecked(kind, reason)
    parts = list(_parts(cluster))
    learning = [p for p in parts if p.proxies_dns()]
    admitting = [p for p in parts if p.admits_dns()]
    whole = cluster.extent.of_a_cluster
    for part in parts:
        policy = part.policy
        if (policy.namespace and not cluster.in_scope(policy.namespace)) or part.proxies_dns():
            continue
        rule = next(((r, e) for r, e in enumerate(items(part.spec, "egress")) if items(e, "toFQDNs")), None)
        if rule is None or _for_the_same_pods(cluster, part, learning):
            continue
        if not whole and not part.admits_dns() and not _for_the_same_pods(cluster, part, admitting):
            yield NotChecked(str(policy.ref), "a policy that is not in the manifests admits its lookups")
            continue
        index, egress = rule
        hosts = [text(f, "matchName") or text(f, "matchPattern") for f in items(egress, "toFQDNs")]
        yield Problem(
            f"it admits {', '.join(hosts[:3])}, and never learns the addresses",
            policy.ref,
            (seen(policy.ref, f"{part.field}.egress[{index}].toFQDNs", hosts, "no egress rule has rules.dns"),),
            _dns_rule(part),
            severity=None if whole else Severity.WARNING,
        )


def _without_source(key: str) -> str:
    source, colon, plain = key.partition(":")
    return plain if colon and source in ("k8s", "any") else key


def _for_the_same_pods(cluster: Cluster, part: _Part, others: list[_Part]) -> bool:
    """Whether others select every pod that a part of a policy selects; without pods, whatever has its labels."""
    own, namespace = part.selector(), part.policy.namespace
    label_sets = [
        workload.labels
        for workload in cluster.workloads
        if namespace in ("", workload.namespace) and selector_matches(own, workload.labels)
    ]
    near = [p.selector() for p in others if p.policy.namespace in ("", namespace)]
    if own in near:
        return True
    return all(any(selector_matches(s, labels) for s in near) for labels in label_sets or [own["matchLabels"]])


def _dns_rule(part: _Part) -> Remedy:
    """A policy for the same pods through which the agent sees their lookups; rules of several policies add up."""
    policy = part.policy
    names = {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}
    ports = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}
    metadata = {"name": f"{policy.name}-dns"} | ({"namespace": policy.namespace} if policy.namespace else {})
    egress = [{"toEndpoints": [{"matchLabels": names}], "toPorts": [ports]}]
    return adding(
        "Add the DNS rule.",
        {
            "apiVersion": policy.api_version,
            "kind": policy.kind,
            "metadata": metadata,
            "spec": {"endpointSelector": part.spec.get("endpointSelector") or {}, "egress": egress},
        },
    )
