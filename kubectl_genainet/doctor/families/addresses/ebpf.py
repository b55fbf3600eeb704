"""eBPF data planes: Cilium, and the VPC CNI's policy agent."""

from __future__ import annotations

from collections import Counter

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, derived, on_node, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.platform import config_map, container_env
from kubectl_genainet.doctor.objects.raw import sh
from kubectl_genainet.doctor.predicates import kube_proxy
from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.policy.model import Direction
from kubectl_genainet.proxy.cleanup import cleanup
from kubectl_genainet.proxy.services import proxy_modes


def no_ebpf(cluster: Cluster) -> str:
    vpc = cluster.cni("Amazon VPC CNI")
    if cluster.cni("Cilium") or (vpc and vpc.enforces):
        return ""
    return "no eBPF data plane is installed"


@check(Area.EBPF, Severity.WARNING, needs=("DaemonSet", "ConfigMap"), applies=no_ebpf)
def kube_proxy_twice(cluster: Cluster) -> Problems:
    """Cilium replaces kube-proxy, and kube-proxy runs too.

    Looks at kube-proxy-replacement in cilium-config and at DaemonSet kube-proxy.

    Why: both program Services. Connections are handled by whichever sees them first, rules of the other are dead
    weight, and a trace that looks for kube-proxy's rules finds some that no packet takes. A warning: connections
    pass; debugging misleads.

    Source: https://docs.cilium.io/en/stable/network/kubernetes/kubeproxy-free/
    """
    daemonset, config = kube_proxy.daemonset(cluster), config_map(cluster.snapshot, "cilium-config", "")
    if daemonset is not None and config is not None and kube_proxy.replaced(cluster):
        value = config.raw["data"]["kube-proxy-replacement"]
        yield Problem(
            "kube-proxy and its replacement both run",
            daemonset.ref,
            (
                seen(config.ref, "data[kube-proxy-replacement]", value, "Cilium does kube-proxy's work"),
                seen(daemonset.ref, "metadata.name", daemonset.name, "and kube-proxy runs as well"),
            ),
            Remedy(
                "Remove kube-proxy and its rules.",
                command=f"kubectl -n kube-system delete daemonset kube-proxy\n{_on_each_node(cluster)}",
            ),
        )


# What kube-proxy writes in each mode.
_DUMPS = {"nftables": ("nft ip", "nft ip6"), "ipvs": ("iptables", "ip6tables", "ipvs")}


def _on_each_node(cluster: Cluster) -> str:
    config = kube_proxy.configuration(cluster)
    return cleanup(_DUMPS.get(config.mode if config else "", ("iptables", "ip6tables")), "on each node")


@check(Area.EBPF, Severity.WARNING, needs=(Need.RULESETS, "DaemonSet", "ConfigMap"), applies=no_ebpf)
def kube_proxy_leftovers(cluster: Cluster) -> Problems:
    """Cilium replaces kube-proxy, and a node still has kube-proxy's rules.

    Looks at the nodes' rulesets where kube-proxy-replacement is on and no kube-proxy runs.

    Why: stale rules still translate packets that Cilium leaves to the stack (host network, NodePort corner cases),
    towards pods that are long gone. A warning: only traffic that Cilium leaves to the stack goes astray.

    Source: https://docs.cilium.io/en/stable/network/kubernetes/kubeproxy-free/
    """
    if not kube_proxy.replaced(cluster) or kube_proxy.daemonset(cluster) is not None:
        return
    for node, ruleset in cluster.rules.parsed.items():
        modes = proxy_modes(ruleset)
        if modes:
            mode, dumps = next(iter(modes.items()))
            yield Problem(
                "it still has rules of kube-proxy",
                ObjectRef("Node", node),
                (on_node(node, f"rules of the {mode} mode in {', '.join(dumps)}", mode, field=dumps[0]),),
                Remedy(
                    "Remove them.",
                    command=cleanup(sorted({d for all_of in modes.values() for d in all_of}), f"on node {sh(node)}"),
                ),
            )


@check(Area.EBPF, Severity.ERROR, needs=("DaemonSet", "NetworkPolicy", "Pod"), applies=no_ebpf)
def vpc_cni_strict(cluster: Cluster) -> Problems:
    """The VPC CNI's policy agent is strict, and a GenAI pod has no policy.

    Looks at NETWORK_POLICY_ENFORCING_MODE of aws-node and asks the policy engine which policies isolate the pods.

    Why: in strict mode a pod starts with everything denied, and opens only to what a policy admits. A pod without a
    policy talks to nobody, although by the API it is open. An error: the pod reaches nobody, and nobody reaches it.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/cni-network-policy-configure.html
    """
    vpc = cluster.cni("Amazon VPC CNI")
    value, field = (
        container_env(vpc.daemonset, "aws-node").get("NETWORK_POLICY_ENFORCING_MODE", ("", "")) if vpc else ("", "")
    )
    if vpc is None or value != "strict" or not vpc.enforces:
        return
    for workload, _ in cluster.genai_workloads:
        live = next((p for p in workload.pods if not p.terminating), None)
        if live is None or workload.template.host_network:
            continue
        key = (live.ref.namespace, live.ref.name)
        without = [d.value for d in Direction if not cluster.policy.isolating(key, d)]
        if len(without) == 2:
            yield Problem(
                "no policy admits anything, and the policy agent is strict",
                workload.ref,
                (
                    seen(vpc.daemonset.ref, field, value, "pods start with everything denied"),
                    derived(workload.ref, workload.label_field("*"), None, f"no policy selects {workload.ref}"),
                ),
                Remedy(
                    "Write its policies first, or use the standard mode.",
                    command="kubectl -n kube-system set env daemonset/aws-node NETWORK_POLICY_ENFORCING_MODE=standard",
                ),
            )


@check(Area.EBPF, Severity.INFO, needs=(Need.PACKETS,))
def drops_at_tc(cluster: Cluster) -> Problems:
    """Packets were dropped by an eBPF program, not by netfilter.

    Looks at recorded drops with the kernel reasons TC_INGRESS, TC_EGRESS, XDP and BPF, per node.

    Why: no iptables or nftables rule explains them: it was Cilium, the VPC CNI's policy agent or another tc
    program; their own tools name the policy. Information: it says where the drops are, not that they are wrong.

    Source: include/net/dropreason-core.h (Linux), https://docs.cilium.io/en/stable/cheatsheet/
    """
    counts = Counter(
        (p.node, p.reason)
        for p in cluster.packets
        if isinstance(p, PacketDropped) and (p.reason.startswith(("TC_", "XDP", "BPF")))
    )
    for (node, reason), count in sorted(counts.items()):
        yield Problem(
            f"{count} recorded drops on node {node} by an eBPF program ({reason})",
            ObjectRef("Node", node),
            (on_node(node, f"{count} packets with reason {reason}", reason, field="reason"),),
            Remedy(
                "Ask the data plane why.",
                command="kubectl -n kube-system exec ds/cilium -- hubble observe --verdict DROPPED"
                if cluster.cni("Cilium")
                else "kubectl -n kube-system logs ds/aws-node -c aws-eks-nodeagent",
            ),
        )
