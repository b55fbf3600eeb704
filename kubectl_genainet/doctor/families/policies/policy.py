"""NetworkPolicy: coverage, DNS egress, enforcement, and what the configured calls need."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import at, items, mapping, named, selector_matches, sh, strings
from kubectl_genainet.doctor.objects.recognise import container_stack
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.backends import backends_of
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy
from kubectl_genainet.doctor.settings import lists_all, some_told, told_together
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity, listed
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.model import Direction, PolicyVerdict

GROUP = "networking.k8s.io"


def _policies(cluster: Cluster) -> list[KubeObject]:
    return [p for p in cluster.snapshot.of("NetworkPolicy", GROUP) if cluster.in_scope(p.namespace)]


def _dns_targets(cluster: Cluster) -> tuple[list[Workload], set[int]]:
    """The workloads behind the cluster's DNS Service and the ports they listen on."""
    service = cluster.dns_service
    if service is None:
        return [], set()
    workloads = [w for w in cluster.workloads_of(service) if w.pods]
    ports = {cluster.target_port(w, p) for w in workloads for p in service.spec.ports if p.protocol == "UDP"}
    return workloads, ports - {0} or {53}


def _names_dns(policy: KubeObject) -> bool:
    """Whether a rule of a policy names a port of DNS, and peers beyond its namespace: it then admits DNS somewhere, maybe
    where this cluster's is. DNS is in a namespace of the system."""
    return any(
        port.get("port") in (53, 5353, "53", "dns", "dns-tcp", "dns-udp")
        for rule in items(policy.raw, "spec", "egress")
        if not items(rule, "to") or any("namespaceSelector" in p or "ipBlock" in p for p in items(rule, "to"))
        for port in items(rule, "ports")
    )


def _with_dns(snapshot: ClusterSnapshot) -> ClusterSnapshot:
    """A snapshot of manifests with the cluster's DNS as most clusters have it."""
    labels = {"k8s-app": "kube-dns"}
    ports = [{"name": "dns", "port": 53, "protocol": "UDP"}]
    meta = {"name": "kube-dns", "namespace": "kube-system"}
    container = {"name": "dns", "ports": [{"name": "dns", "containerPort": 53, "protocol": "UDP"}]}
    added: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"selector": labels, "ports": ports}},
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {**meta, "labels": labels},
            "spec": {"containers": [container]},
        },
    ]
    return replace(snapshot, objects=(*snapshot.objects, *(KubeObject(o, "assumed") for o in added)))


@check(Area.POLICY, Severity.ERROR, needs=("NetworkPolicy", "Pod"))
def egress_without_dns(cluster: Cluster) -> Problems:
    """A workload is isolated for egress and may not ask DNS.

    Asks the policy engine whether pods of each workload with isolated egress may send UDP to the cluster's DNS pods
    (on the port they listen on), in both directions of the verdict. With NodeLocal DNSCache also to its address. Manifests
    without a DNS Service are judged with pods labelled k8s-app: kube-dns in kube-system, where no rule names a port of DNS.
    Where no egress at all is admitted, a database, a cache or a model server that is not told to call anyone or to fetch
    its model is left out, and so is any workload that such a policy selects by its labels: it is closed off on purpose.

    Why: adding egress rules without DNS breaks name lookup: every call fails after 5 to 15 seconds with "could not
    resolve host", whatever else is allowed. An error: every call by name fails. A warning in manifests that are not the
    whole cluster: policies add up, and one that is not among them may admit DNS.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    servers, ports = _dns_targets(cluster)
    if not servers and cluster.from_files and not any(_names_dns(p) for p in _policies(cluster)):
        cluster = replace(cluster, snapshot=_with_dns(cluster.snapshot))
        servers, ports = _dns_targets(cluster)
    if not servers:
        yield NotChecked("", "no DNS Service (kube-system/kube-dns) with pods was found")
        return
    port = min(ports)
    cut_off: dict[tuple[str, tuple[ObjectRef, ...]], list[Workload]] = {}
    for workload in cluster.workloads:
        isolated_by = _without_dns(cluster, workload, servers[0], port)
        if isolated_by:
            cut_off.setdefault((workload.namespace, isolated_by), []).append(workload)
    for (namespace, isolated_by), (first, *others) in cut_off.items():
        names = [f"{other.ref.kind} {other.name}" for other in others]
        nor = f"; nor may {listed(names)}" if others else ""
        yield Problem(
            f"it may not reach DNS: isolated for egress by {', '.join(p.name for p in isolated_by)}{nor}",
            first.ref,
            tuple(
                derived(p, "spec.egress", port, f"{p} isolates it for egress, and no rule admits UDP {port} to DNS")
                for p in isolated_by
            ),
            _admit_dns(cluster, isolated_by, port),
            refuted_by=("NetworkPolicy", namespace),
        )


def _without_dns(cluster: Cluster, workload: Workload, dns: Workload, port: int) -> tuple[ObjectRef, ...]:
    """The policies that isolate a workload which asks the cluster's DNS and may not; none where it may, or needs no names."""
    live = next((p for p in workload.pods if not p.terminating), None)
    if live is None or not cluster.in_scope(workload.namespace) or workload.template.host_network:
        return ()
    if workload.template.spec.get("dnsPolicy") in ("None", "Default"):
        return ()
    isolated_by = cluster.policy.isolating((live.ref.namespace, live.ref.name), Direction.EGRESS)
    verdict = cluster.admits(workload, dns, "UDP", port) if isolated_by else None
    if verdict is None or verdict.egress.verdict is not PolicyVerdict.DENY:
        return ()
    if not _admits_some_egress(cluster, isolated_by) and _closed_on_purpose(cluster, workload, isolated_by):
        return ()
    return isolated_by


_STORES = (Role.MODEL_SERVER, Role.VECTOR_DATABASE, Role.KV_CACHE)
_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
_HUB_MODEL = re.compile(r"(?:--model(?:-id|-path)?[= ]|\bserve )[A-Za-z0-9][\w.-]*/[\w.-]+")


def _closed_on_purpose(cluster: Cluster, workload: Workload, isolated_by: tuple[ObjectRef, ...]) -> bool:
    """Whether a workload without any egress needs no names: a server that only answers, or one that the policies mean."""
    if _is_told_of_others(cluster, workload):
        return False
    if cluster.role(workload) in _STORES or any(map(container_stack, workload.containers)):
        return True
    return any(at(p.raw, "spec", "podSelector") for p in _policies(cluster) if p.ref in isolated_by)


def _is_told_of_others(cluster: Cluster, workload: Workload) -> bool:
    """Whether a workload is configured to call someone, or to fetch its model."""
    fetches = any(
        _HUB_MODEL.search(" ".join(c.words)) and not any(c.env.get(name) for name in _OFFLINE)
        for c in workload.containers
    )
    return fetches or any(call.client.key == workload.key for call in (*cluster.calls, *cluster.dangling_calls))


def _admits_some_egress(cluster: Cluster, isolated_by: tuple[ObjectRef, ...]) -> bool:
    """Whether one of some policies has an egress rule; a policy of another dialect is taken to have one."""
    own = {p.ref: p for p in _policies(cluster)}
    return any(ref not in own or items(own[ref].raw, "spec", "egress") for ref in isolated_by)


def _admit_dns(cluster: Cluster, isolated_by: tuple[ObjectRef, ...], port: int) -> Remedy:
    """A policy beside the first one that isolates, for the same pods: it isolates none that was not isolated before."""
    policy = next((p for p in _policies(cluster) for ref in isolated_by if p.ref == ref), None)
    if policy is None:
        return Remedy(f"Admit UDP and TCP {port} to the cluster's DNS in the policy that isolates it.")
    dns = cluster.dns_service
    to = {
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
        "podSelector": {"matchLabels": dict(dns.spec.selector) if dns else {"k8s-app": "kube-dns"}},
    }
    ports = [{"protocol": "UDP", "port": port}, {"protocol": "TCP", "port": port}]
    spec = {
        "podSelector": mapping(policy.raw, "spec", "podSelector"),
        "policyTypes": ["Egress"],
        "egress": [{"to": [to], "ports": ports}],
    }
    return adding(
        f"Admit DNS for the pods that {policy.name} isolates.",
        network_policy(f"{policy.name}-dns", policy.namespace, spec),
    )


@check(Area.POLICY, Severity.ERROR, needs=("NetworkPolicy", "DaemonSet"))
def policy_not_enforced(cluster: Cluster) -> Problems:
    """There are NetworkPolicies, and the CNI does not enforce them.

    Looks at the installed CNIs: Flannel alone enforces nothing; the Amazon VPC CNI only with
    --enable-network-policy=true in its aws-eks-nodeagent container; Cilium with enable-policy: never, kube-router
    without its firewall. Where the CNI is not known it is listed as not checked.

    Why: the API server accepts policies whether or not anyone enforces them: the segmentation is on paper. An
    error: everybody may reach what the policies were to protect.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#prerequisites,
    https://docs.aws.amazon.com/eks/latest/userguide/cni-network-policy.html
    """
    policies = _policies(cluster)
    if not policies:
        return
    elsewhere = cluster.partial("DaemonSet")
    if not cluster.cnis or elsewhere:
        yield NotChecked("", elsewhere or "the CNI is not known")
        return
    if any(c.enforces for c in cluster.cnis):
        return
    if any(c.enforces is None for c in cluster.cnis):
        yield NotChecked("", f"whether {cluster.cnis[0].name} enforces policies depends on its version")
        return
    cni = cluster.cnis[0]
    if cni.name == "Amazon VPC CNI":
        remedy = Remedy(
            "Switch the VPC CNI's policy agent on; put in the cluster's name for CLUSTER.",
            command="aws eks update-addon --cluster-name CLUSTER --addon-name vpc-cni "
            """--configuration-values '{"enableNetworkPolicy": "true"}'""",
        )
    else:
        remedy = Remedy(f"Install a policy engine beside {cni.name} (Calico as Canal, kube-router, Cilium).")
    yield Problem(
        f"{len(policies)} NetworkPolicies, and {cni.name} enforces none",
        cni.daemonset.ref,
        (
            seen(
                cni.daemonset.ref,
                "spec.template.spec.containers",
                cni.daemonset.name,
                f"{cni.name} without policy agent",
            ),
            seen(policies[0].ref, "spec", None, f"{policies[0].ref} is not enforced"),
        ),
        remedy,
    )


@check(Area.POLICY, Severity.ERROR, needs=("NetworkPolicy", "Service", "Pod"))
def policy_blocks_call(cluster: Cluster) -> Problems:
    """Policies do not admit a call that a workload is configured to make.

    Asks the policy engine about every call to a Service that a GenAI workload has in its variables, arguments or
    ConfigMaps, from its pods to the Service's pods on the target port. Information where a ConfigMap tells several workloads
    the address, and another of them is admitted, or one of them is the callee: which of them calls there is not seen.

    Why: the application is configured to call something that it may not reach; it will hang until its timeout. An
    error: the call fails whenever it is made. A warning in manifests that are not the whole cluster: policies add up, and
    one that is not among them may admit the call.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/
    """
    together = told_together(cluster.calls)
    for call in cluster.genai_calls:
        port = call.service_port
        if call.service is None or port is None:
            continue
        for workload in backends_of(cluster, call.service, port):
            number_ = cluster.target_port(workload, port)
            verdict = cluster.admits(call.client, workload, port.protocol, number_) if number_ else None
            if verdict is None:
                continue
            if verdict.verdict is PolicyVerdict.UNKNOWN:
                reasons = "; ".join(str(n) for n in verdict.not_evaluated[:2])
                yield NotChecked(f"{call.client.ref} → {call.service.ref}", reasons or "the verdict is not known")
                continue
            if verdict.verdict is not PolicyVerdict.DENY:
                continue
            direction = Direction.EGRESS if verdict.egress.verdict is PolicyVerdict.DENY else Direction.INGRESS
            policies = verdict.direction(direction).isolated_by or tuple(
                p.ref for p in verdict.direction(direction).policies
            )
            if policies and cluster.policy.by_option.issuperset(policies):
                continue  # an option of the enforcer isolates every pod, and that is a finding of its own
            evidence = [call.evidence]
            evidence += [
                derived(
                    p, f"spec.{direction.value}", number_, f"{p} isolates the pod, and no rule admits TCP {number_}"
                )
                for p in policies
            ]
            who = f"{call.client.namespace}/{call.client.name}"
            others = (cluster.admits(o.client, workload, port.protocol, number_) for o in some_told(together, call))
            yield Problem(
                f"{call.client.ref} is configured to call {call.service.ref}, and the policies do not admit it",
                workload.ref if direction is Direction.INGRESS else call.client.ref,
                tuple(evidence),
                Remedy(
                    "See the rules and the smallest change that admits it.",
                    command=f"kubectl genainet explain pod/{sh(who.split('/')[0])}/{sh(call.client.pods[0].ref.name)} "
                    f"svc/{sh(call.service.metadata.namespace)}/{sh(call.service.metadata.name)}:{port.port} --patch",
                ),
                refuted_by=("NetworkPolicy", (workload if direction is Direction.INGRESS else call.client).namespace),
                severity=Severity.INFO
                if lists_all(together, call, workload) or any(o and o.verdict is PolicyVerdict.ALLOW for o in others)
                else None,
                rests_on=(call.client.ref, workload.ref),
            )


@check(Area.POLICY, Severity.INFO, needs=("NetworkPolicy",))
def policy_open_to_all(cluster: Cluster) -> Problems:
    """A policy for a GenAI workload admits everyone.

    Looks at ingress rules without `from` of policies that select a recognised model server or vector database;
    without `ports` either, the rule admits everything.

    Why: an isolating policy with a rule for everyone protects nothing; mostly a forgotten `from`. Information: it
    may be meant.

    Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
    """
    for policy in _policies(cluster):
        types = strings(policy.raw, "spec", "policyTypes") or ["Ingress"]
        selector = mapping(policy.raw, "spec", "podSelector")
        rules = enumerate(items(policy.raw, "spec", "ingress")) if "Ingress" in types else ()
        for index, rule in rules:
            if items(rule, "from") or items(rule, "ports"):
                continue
            selected = [
                w
                for w, recognised in cluster.genai_workloads
                if w.namespace == policy.namespace
                and recognised.role in (Role.MODEL_SERVER, Role.VECTOR_DATABASE)
                and selector_matches(selector, w.labels)
            ]
            if selected:
                yield Problem(
                    f"rule {index + 1} admits everyone to {selected[0].ref}",
                    policy.ref,
                    (
                        seen(
                            policy.ref,
                            f"spec.ingress[{index}]",
                            rule,
                            "no `from` and no `ports`: everything is admitted",
                        ),
                    ),
                    Remedy(
                        "Name the callers.",
                        command=f"kubectl -n {sh(policy.namespace)} edit {named('networkpolicy', policy.name)}",
                    ),
                )
                break
