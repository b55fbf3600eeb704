"""How long kube-proxy's work takes, as it says itself."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, on_node
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.predicates.kube_proxy import replaced
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.node import KubeProxyState

SLOW_SYNC_S = 1.0
SLOW_PROGRAMMING_S = 5.0
FEW = 20  # below it, one in a hundred says nothing


def no_kube_proxy(cluster: Cluster) -> str:
    return "Cilium replaces kube-proxy" if replaced(cluster) else ""


@check(Area.KUBE_PROXY, Severity.WARNING, needs=(Need.NODES,), applies=no_kube_proxy)
def kube_proxy_latency(cluster: Cluster) -> Problems:
    """kube-proxy takes long to write its rules.

    Looks at the histograms that kube-proxy serves on its node's loopback (port 10249), since it started: how long a sync of
    the rules takes (from 1 s in one of a hundred), and how long after a change of an endpoint the rules are there (from
    5 s); of at least 20.

    Why: until then connections go to pods that are gone, and none to those that are new: errors in every rollout
    and scale-out. In iptables mode it grows with the number of Services and endpoints. A warning: requests fail for
    seconds after a change.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#performance-optimizations,
    https://github.com/kubernetes/community/blob/master/sig-scalability/slos/network_programming_latency.md
    """
    unknown = []
    for report in cluster.reports:
        state = report.kube_proxy
        if state is None:
            unknown.append(report.node)
        elif problem := _slow(state):
            what, over_s, count, field = problem
            yield Problem(
                f"{what} takes more than {over_s:g} s in one case of a hundred",
                ObjectRef("Node", report.node),
                (
                    on_node(
                        report.node,
                        f"more than {over_s:g} s in 1 % of {count}, mode {state.mode or 'unknown'}",
                        over_s,
                        field=field,
                    ),
                ),
                Remedy(
                    "Change the mode to nftables (Linux 5.13, Kubernetes 1.33) or ipvs where it is iptables; see whether the "
                    "node has CPU to spare.",
                    command="kubectl -n kube-system get configmap kube-proxy -o yaml   # EKS: kube-proxy-config",
                ),
            )
    if unknown:
        shown = ", ".join(sorted(unknown)[:3]) + (f" and {len(unknown) - 3} more" if len(unknown) > 3 else "")
        yield NotChecked("", f"no kube-proxy answered on 127.0.0.1:10249 of {shown}")


def _slow(state: KubeProxyState) -> tuple[str, float, int, str] | None:
    """What is slow, the bound that was exceeded, of how many, and the histogram; the worse for users first."""
    programming, syncs = state.programming, state.syncs
    if programming.count >= FEW and programming.p99_over_s >= SLOW_PROGRAMMING_S:
        field = "kubeproxy_network_programming_duration_seconds"
        return "a change of an endpoint", programming.p99_over_s, programming.count, field
    if syncs.count >= FEW and syncs.p99_over_s >= SLOW_SYNC_S:
        return "a sync of the rules", syncs.p99_over_s, syncs.count, "kubeproxy_sync_proxy_rules_duration_seconds"
    return None
