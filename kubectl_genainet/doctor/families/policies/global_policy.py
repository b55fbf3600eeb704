"""FQDN and cluster-wide policy: what upstream NetworkPolicy cannot say, and who enforces it."""

from __future__ import annotations

import ipaddress
from collections import defaultdict
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, derived, seen
from kubectl_genainet.doctor.families.policies.model_hub import FILES, fetches
from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, mapping, selector_matches, sh, text, walk
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.labels import selecting_labels
from kubectl_genainet.doctor.predicates.policy_text import adding, network_policy
from kubectl_genainet.doctor.settings import some_told, told_together
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy.model import PolicyVerdict

ADMIN_GROUP = "policy.networking.k8s.io"
CILIUM_GROUP = "cilium.io"
CALICO_GROUPS = ("crd.projectcalico.org", "projectcalico.org")
AWS_GROUP = "networking.k8s.aws"

# (group, kind) -> names of the CNIs that enforce it
_ENFORCERS: tuple[tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]], ...] = (
    ((CILIUM_GROUP,), ("CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy"), ("Cilium",)),
    (CALICO_GROUPS, ("GlobalNetworkPolicy", "NetworkPolicy", "StagedNetworkPolicy"), ("Calico",)),
    (
        (ADMIN_GROUP,),
        ("AdminNetworkPolicy", "BaselineAdminNetworkPolicy", "ClusterNetworkPolicy"),
        ("Calico", "Antrea", "kube-router", "OVN-Kubernetes", "Cilium", "Amazon VPC CNI"),
    ),
)
_DOCUMENTATION = "203.0.113.1"  # TEST-NET-3 (RFC 5737): an address that stands for "anywhere on the internet"


def extended_policies(cluster: Cluster) -> Iterator[tuple[KubeObject, tuple[str, ...]]]:
    """Policies of kinds beyond NetworkPolicy in scope, with the CNIs that enforce them."""
    for groups, kinds, enforcers in _ENFORCERS:
        for group in groups:
            for kind in kinds:
                for obj in cluster.snapshot.of(kind, group):
                    if not obj.namespace or cluster.in_scope(obj.namespace):
                        yield obj, enforcers


@check(Area.GLOBAL_POLICY, Severity.INFO)
def policy_not_evaluated(cluster: Cluster) -> Problems:
    """A policy has terms that cannot be judged from the objects.

    Looks, in Cilium's, Calico's and the administrators' policies, for domain names (toFQDNs, domains, domainNames),
    L7 rules (http, kafka, dns), and Services or identities that only the data plane resolves.

    Why: which addresses a name has, and what a request says, is known only on the wire. Verdicts that hang on them
    are given as unknown, never guessed. Information: nothing is wrong; the verdict is not known.

    Source: https://docs.cilium.io/en/stable/security/policy/language/,
    https://docs.tigera.io/calico/latest/reference/resources/globalnetworkpolicy
    """
    for kind in dict.fromkeys(kind for _, kinds, _ in _ENFORCERS for kind in kinds):
        if kind != "NetworkPolicy" and (reason := cluster.unread(kind)):
            yield NotChecked(kind, f"no verdict takes it into account: {reason}")
    names = {"toFQDNs", "domains", "domainNames", "http", "kafka", "l7proto", "toServices", "toGroups"}
    for policy, _ in extended_policies(cluster):
        fields: dict[str, str] = {}
        for path in (p for field in ("spec", "specs") for p, _ in walk(policy.raw.get(field), field)):
            parts = path.split(".")
            for index, part in enumerate(parts):
                name = part.split("[")[0]
                if name in names:
                    fields.setdefault(name, ".".join([*parts[:index], name]))
        if fields:
            kinds = ", ".join(sorted(fields))
            yield Problem(
                f"not judged from objects alone: {kinds}",
                policy.ref,
                tuple(
                    seen(policy.ref, field, name, f"{name} is resolved by the data plane")
                    for name, field in fields.items()
                ),
                Remedy(
                    "Ask for the traffic itself.",
                    command="kubectl genainet drops " + (f"-n {sh(policy.namespace)}" if policy.namespace else "-A"),
                ),
            )


@check(Area.GLOBAL_POLICY, Severity.ERROR, needs=("DaemonSet",))
def policy_kind_unenforced(cluster: Cluster) -> Problems:
    """There are policies of a kind that no installed CNI enforces.

    Looks at CiliumNetworkPolicies without Cilium, Calico policies without Calico, (Baseline)AdminNetworkPolicies and
    ClusterNetworkPolicies under a CNI that has no implementation of them (Flannel, kindnet, Weave Net).

    Why: their CRDs can be left from another CNI: objects that nobody reads. An error: everybody may reach what the
    policies were to protect.

    Source: https://network-policy-api.sigs.k8s.io/implementations/
    """
    elsewhere = cluster.partial("DaemonSet")
    if not cluster.cnis or elsewhere:
        yield NotChecked("", elsewhere or "the CNI is not known")
        return
    reported = set()
    for policy, enforcers in extended_policies(cluster):
        calico_beside = "Calico" in enforcers and cluster.running("calico-node") is not None
        if cluster.cni_names & set(enforcers) or calico_beside or (policy.group, policy.kind) in reported:
            continue
        reported.add((policy.group, policy.kind))
        has = ", ".join(sorted(cluster.cni_names))
        yield Problem(
            f"{policy.kind} is enforced by none of the installed CNIs ({has})",
            policy.ref,
            (seen(policy.ref, "apiVersion", policy.api_version, f"enforced by {', '.join(enforcers)} only"),),
            Remedy("Say the same with NetworkPolicies, or install a CNI that enforces it."),
        )


def _fqdn_names(cluster: Cluster) -> set[str]:
    """Names and patterns that some FQDN policy lists."""
    names = set()
    for kind, group in (
        ("CiliumNetworkPolicy", CILIUM_GROUP),
        ("CiliumClusterwideNetworkPolicy", CILIUM_GROUP),
        ("GlobalNetworkPolicy", None),
        ("NetworkPolicy", "projectcalico.org"),
        ("NetworkPolicy", "crd.projectcalico.org"),
        ("AdminNetworkPolicy", ADMIN_GROUP),
        ("ClusterNetworkPolicy", ADMIN_GROUP),
        ("ApplicationNetworkPolicy", AWS_GROUP),
        ("FQDNNetworkPolicy", "networking.gke.io"),
    ):
        for policy in cluster.snapshot.of(kind, group):
            for path, value in walk([policy.raw.get("spec"), policy.raw.get("specs")]):
                if any(word in path for word in ("matchName", "matchPattern", "domains", "domainNames", "matches")):
                    names.add(str(value).rstrip("."))
    return names


def _covered(host: str, names: set[str]) -> bool:
    host = host.rstrip(".")
    return any(n == host or n == "*" or (n.startswith("*.") and host.endswith(n[1:])) for n in names)


@check(Area.GLOBAL_POLICY, Severity.ERROR, needs=("NetworkPolicy", "Pod"))
def fqdn_egress(cluster: Cluster) -> Problems:
    """A workload calls a model API or a model hub on the internet that its egress policies do not admit.

    Looks at hosts outside the cluster in the configuration of GenAI workloads (api.openai.com, api.anthropic.com, …), and
    at model servers told to serve a repository of Hugging Face or to pull a model of Ollama, where no volume is kept that
    may hold it. Asks the policy engine whether egress to the internet on that port is admitted. A policy that names the
    host (Cilium toFQDNs, Calico domains, domainNames) counts. Information where a ConfigMap tells several workloads the
    host, and another of them is admitted.

    Why: NetworkPolicy cannot name domains, and the API's addresses change: the call hangs, now or after the next DNS
    change. An error: every call to the API fails, and a server without its model does not start. A warning in manifests that
    are not the whole cluster: a policy that is not among them may admit it.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#what-you-can-t-do-with-network-policies-at-least-not-yet
    """
    names, together = _fqdn_names(cluster), told_together(cluster.calls)
    servers = [workload for workload, _ in cluster.model_servers]
    for call in (*cluster.genai_calls, *fetches(servers)):
        if not call.external or _covered(call.host, names):
            continue
        verdict = cluster.egress_to(call.client, _DOCUMENTATION, "TCP", call.port or 443, domain=call.host.rstrip("."))
        if verdict is None:
            continue
        if verdict.verdict is PolicyVerdict.UNKNOWN:
            yield NotChecked(f"{call.client.ref} → {call.host}", "; ".join(str(n) for n in verdict.not_evaluated[:2]))
        elif verdict.verdict is PolicyVerdict.DENY:
            evidence = [call.evidence]
            evidence += [
                derived(p, "spec.egress", call.host, f"{p} isolates it for egress, and no rule admits {call.host}")
                for p in verdict.isolated_by
            ]
            yield Problem(
                f"egress to {call.host} is not admitted",
                call.client.ref,
                tuple(evidence),
                _admit_host(cluster, call.client, call.host, call.port or 443),
                refuted_by=("NetworkPolicy", call.client.namespace),
                severity=Severity.INFO if any(_admitted(cluster, o) for o in some_told(together, call)) else None,
            )


def _admitted(cluster: Cluster, call: Call) -> bool:
    verdict = cluster.egress_to(call.client, _DOCUMENTATION, "TCP", call.port or 443, domain=call.host.rstrip("."))
    return verdict is not None and verdict.verdict is PolicyVerdict.ALLOW


def _admit_host(cluster: Cluster, client: Workload, host: str, port: int) -> Remedy:
    """A policy for the client's own pods, which are isolated for egress already."""
    labels, name = {"matchLabels": selecting_labels(client)}, f"egress-{host.strip('*.').replace('.', '-')}"
    if "Cilium" in cluster.cni_names:
        dns = {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}
        files = [{"matchPattern": pattern} for pattern in FILES.get(host, ())]
        learn = {"ports": [{"port": "53", "protocol": "ANY"}], "rules": {"dns": [{"matchPattern": "*"}]}}
        egress = [
            {"toEndpoints": [{"matchLabels": dns}], "toPorts": [learn]},
            {
                "toFQDNs": [{"matchName": host}, *files],
                "toPorts": [{"ports": [{"port": str(port), "protocol": "TCP"}]}],
            },
        ]
        return adding(
            "Admit the name, with the DNS rule that Cilium learns its addresses from.",
            {
                "apiVersion": "cilium.io/v2",
                "kind": "CiliumNetworkPolicy",
                "metadata": {"name": name, "namespace": client.namespace},
                "spec": {"endpointSelector": labels, "egress": egress},
            },
        )
    internet = {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16"]}
    spec = {
        "podSelector": labels,
        "policyTypes": ["Egress"],
        "egress": [{"to": [{"ipBlock": internet}], "ports": [{"protocol": "TCP", "port": port}]}],
    }
    return adding(
        "Upstream policy cannot name a domain: admit the port to the internet but not to private ranges, or use a CNI "
        "with FQDN policies or an egress proxy.",
        network_policy(name, client.namespace, spec),
    )


@check(Area.GLOBAL_POLICY, Severity.WARNING, needs=("NetworkPolicy", "Pod"))
def fqdn_pinned(cluster: Cluster) -> Problems:
    """Egress to a model API is admitted by single addresses.

    Looks at egress rules of NetworkPolicies with public /32 (or /128) ipBlocks that select a workload which is
    configured to call a host outside the cluster.

    Why: the addresses of an API behind a content network change within hours; the policy then cuts the application
    off without any change in the cluster. A warning: calls pass until the API's addresses change.

    Source: https://kubernetes.io/docs/concepts/services-networking/network-policies/#what-you-can-t-do-with-network-policies-at-least-not-yet
    """
    calls: dict[str, list[Call]] = defaultdict(list)
    for outside in cluster.genai_calls:
        if outside.external:
            calls[outside.client.namespace].append(outside)
    for policy in cluster.snapshot.of("NetworkPolicy", "networking.k8s.io"):
        if not cluster.in_scope(policy.namespace):
            continue
        selector = mapping(policy.raw, "spec", "podSelector")
        own = calls.get(policy.namespace, ())
        call = next((c for c in own if selector_matches(selector, c.client.labels)), None)
        if call is None:
            continue
        for r, rule in enumerate(items(policy.raw, "spec", "egress")):
            pinned = [
                (t, cidr) for t, to in enumerate(items(rule, "to")) if _single(cidr := text(to, "ipBlock", "cidr"))
            ]
            if pinned:
                yield Problem(
                    f"{call.host} is admitted by {len(pinned)} single address{'es' if len(pinned) > 1 else ''}",
                    policy.ref,
                    (
                        *(
                            seen(policy.ref, f"spec.egress[{r}].to[{t}].ipBlock.cidr", cidr, f"admits {cidr}")
                            for t, cidr in pinned[:3]
                        ),
                        call.evidence,
                    ),
                    _admit_host(cluster, call.client, call.host, call.port or 443),
                    rests_on=(call.client.ref,),
                )
                break


def _single(cidr: str) -> bool:
    try:
        network = ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return False
    return network.num_addresses == 1 and network.is_global
