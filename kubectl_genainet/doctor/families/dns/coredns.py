"""CoreDNS: replicas, autoscaling, spread, monitoring, errors and latency. Its CPU limit is in coredns_cpu."""

from __future__ import annotations

import math
import re

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, derived, on_node, seen
from kubectl_genainet.doctor.measured import client_of, judged, too_few
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.platform import Distribution, config_map
from kubectl_genainet.doctor.objects.raw import kubectl, number, patch, sh, text
from kubectl_genainet.doctor.objects.workloads import LivePod, Workload
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

# Defaults of cluster-proportional-autoscaler's linear mode, as kubeadm and GKE ship them for DNS.
NODES_PER_REPLICA, CORES_PER_REPLICA = 16, 256
SLOW_NS = 500_000_000


def no_coredns(cluster: Cluster) -> str:
    if cluster.coredns is None and not cluster.missing("Deployment"):
        return "no Deployment coredns or kube-dns in kube-system"
    return ""


def _workload(cluster: Cluster) -> Workload | None:
    return cluster.workload(cluster.coredns.ref) if cluster.coredns else None


def _pods(cluster: Cluster) -> list[LivePod]:
    workload = _workload(cluster)
    return [p for p in workload.pods if not p.terminating] if workload else []


def autoscaler(cluster: Cluster) -> str:
    """What scales CoreDNS, or an empty string: an HPA for it, or cluster-proportional-autoscaler."""
    if cluster.coredns is None:
        return ""
    for hpa in cluster.snapshot.of("HorizontalPodAutoscaler"):
        if hpa.namespace == "kube-system" and text(hpa.raw, "spec", "scaleTargetRef", "name") == cluster.coredns.name:
            return str(hpa.ref)
    autoscaling = cluster.running("dns-autoscaler", "cluster-proportional-autoscaler")
    return str(autoscaling.ref) if autoscaling else ""


def _scale(coredns: KubeObject, replicas: int) -> str:
    return kubectl(coredns.ref, "scale", f"--replicas={replicas}")


@check(Area.COREDNS, Severity.WARNING, needs=("Deployment", "Node"), applies=no_coredns)
def coredns_replicas(cluster: Cluster) -> Problems:
    """CoreDNS has fewer replicas than the cluster needs.

    Looks at spec.replicas against the larger of nodes ÷ 16 and cores ÷ 256, rounded up, and at least two (the
    defaults of cluster-proportional-autoscaler).

    Why: too few replicas answer slowly or drop queries under load; a single one takes every lookup of the cluster
    with it when its node goes. A warning: lookups are answered until load or a failed node takes them.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/dns-horizontal-autoscaling/
    """
    coredns = cluster.coredns
    if coredns is None:
        return
    wanted = max(2, math.ceil(len(cluster.nodes) / NODES_PER_REPLICA), math.ceil(cluster.cores / CORES_PER_REPLICA))
    replicas = number(coredns.raw, "spec", "replicas", default=1)
    if len(cluster.nodes) > 1 and replicas < wanted:
        yield Problem(
            f"{replicas} replica{'s' if replicas != 1 else ''} for {len(cluster.nodes)} nodes and "
            f"{cluster.cores} cores",
            coredns.ref,
            (
                seen(coredns.ref, "spec.replicas", replicas, f"{replicas} replicas"),
                derived(None, "", wanted, f"{len(cluster.nodes)} nodes and {cluster.cores} cores call for {wanted}"),
            ),
            Remedy(
                f"Run {wanted}; better, let an autoscaler keep them in proportion.", command=_scale(coredns, wanted)
            ),
        )


@check(Area.COREDNS, Severity.WARNING, needs=("Deployment", "Node"), applies=no_coredns)
def coredns_autoscaler(cluster: Cluster) -> Problems:
    """Nothing scales CoreDNS with the cluster.

    Looks for cluster-proportional-autoscaler or an HPA for CoreDNS. The autoscaling of the EKS add-on cannot be seen in
    the cluster: there the check is listed as not checked. GKE's own autoscaler is part of kube-dns. Below 16 nodes it
    is information only.

    Why: a cluster that grows by GPU nodes in minutes keeps the DNS it was born with. A warning: lookups are
    answered until the cluster outgrows its DNS.

    Source: https://docs.aws.amazon.com/eks/latest/userguide/coredns-autoscaling.html,
    https://kubernetes.io/docs/tasks/administer-cluster/dns-horizontal-autoscaling/
    """
    coredns = cluster.coredns
    if coredns is None or autoscaler(cluster):
        return
    if cluster.distribution is Distribution.EKS and coredns.labels.get("eks.amazonaws.com/component"):
        yield NotChecked(
            "",
            "whether the EKS add-on scales CoreDNS is known to the EKS API only: aws eks describe-addon "
            "--cluster-name CLUSTER --addon-name coredns --query addon.configurationValues",
        )
        return
    small = len(cluster.nodes) < NODES_PER_REPLICA
    yield Problem(
        "no autoscaler keeps CoreDNS in proportion to the cluster",
        coredns.ref,
        (seen(coredns.ref, "spec.replicas", number(coredns.raw, "spec", "replicas", default=1), "a fixed number"),),
        Remedy(
            "Install cluster-proportional-autoscaler for it (on EKS: the add-on's autoscaling).",
            command="helm upgrade -i dns-autoscaler cluster-proportional-autoscaler/cluster-proportional-autoscaler "
            "-n kube-system --set options.target=deployment/coredns --set config.linear.nodesPerReplica=16",
        ),
        severity=Severity.INFO if small else None,
    )


@check(Area.COREDNS, Severity.WARNING, needs=("Deployment", "Pod", "Node"), applies=no_coredns)
def coredns_spread(cluster: Cluster) -> Problems:
    """All replicas of CoreDNS are on one node, or in one zone.

    Looks at the nodes of its pods, and at their zones where the nodes span several.

    Why: DNS goes with that node; and every lookup from another zone crosses zones. A warning: lookups are answered
    until that node or zone fails.

    Source: https://docs.aws.amazon.com/eks/latest/best-practices/scale-cluster-services.html
    """
    coredns, pods = cluster.coredns, [p for p in _pods(cluster) if p.node]
    if coredns is None or len(pods) < 2 or len(cluster.nodes) < 2:
        return
    nodes = {p.node for p in pods}
    zones, all_zones = {cluster.zone(n) for n in nodes} - {""}, {cluster.zone(n.name) for n in cluster.nodes} - {""}
    if len(nodes) == 1:
        placement = f"all {len(pods)} replicas are on node {pods[0].node}"
    elif len(zones) == 1 and len(all_zones) > 1:
        placement = f"all {len(pods)} replicas are in zone {next(iter(zones))}"
    else:
        return
    key = "kubernetes.io/hostname" if len(nodes) == 1 else "topology.kubernetes.io/zone"
    constraint = {
        "maxSkew": 1,
        "topologyKey": key,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    }
    yield Problem(
        placement,
        coredns.ref,
        tuple(seen(p.ref, "spec.nodeName", p.node, f"{p.ref.name} on {p.node}") for p in pods[:4]),
        Remedy(
            "Spread them.",
            command=patch(coredns.ref, {"spec": {"template": {"spec": {"topologySpreadConstraints": [constraint]}}}}),
        ),
    )


@check(Area.COREDNS, Severity.WARNING, needs=("Deployment",), applies=no_coredns)
def coredns_ready(cluster: Cluster) -> Problems:
    """CoreDNS is not fully ready.

    Looks at status.readyReplicas against spec.replicas; none ready is an error.

    Why: the others carry the load, or nobody does. A warning: lookups are answered while one replica is ready.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/dns-debugging-resolution/
    """
    coredns = cluster.coredns
    if coredns is None:
        return
    old = cluster.extent.old_status(coredns)
    if old:
        yield NotChecked(coredns.name, old)
        return
    wanted = number(coredns.raw, "spec", "replicas", default=1)
    ready = number(coredns.raw, "status", "readyReplicas")
    if ready < wanted:
        yield Problem(
            f"{ready} of {wanted} replicas are ready",
            coredns.ref,
            (seen(coredns.ref, "status.readyReplicas", ready, f"{ready} of {wanted} ready"),),
            Remedy("See why.", command=kubectl(coredns.ref, "describe")),
            severity=Severity.ERROR if not ready else None,
        )


@check(Area.COREDNS, Severity.WARNING, needs=("ConfigMap",), applies=no_coredns)
def coredns_monitored(cluster: Cluster) -> Problems:
    """CoreDNS's configuration leaves out what operating it needs.

    Looks in the Corefile for the plugins prometheus, ready and cache.

    Why: without prometheus nobody sees SERVFAIL rates and latency before users do; without ready a replica gets
    queries before it can answer; without cache every lookup of an external name goes upstream. A warning: lookups
    are answered; nobody is told when they are not.

    Source: https://coredns.io/plugins/, https://docs.aws.amazon.com/eks/latest/userguide/view-raw-metrics.html
    """
    config = config_map(cluster.snapshot, "coredns")
    corefile = text(config.raw, "data", "Corefile") if config else ""
    if config is None or not corefile:
        yield NotChecked("", "ConfigMap kube-system/coredns with a Corefile was not found")
        return
    for plugin, meaning in (
        ("prometheus", "no metrics"),
        ("ready", "no readiness"),
        ("cache", "every external lookup goes upstream"),
    ):
        if not re.search(rf"^[ \t]*{plugin}\b", corefile, re.MULTILINE):
            yield Problem(
                f"the Corefile has no `{plugin}`: {meaning}",
                config.ref,
                (seen(config.ref, "data[Corefile]", plugin, f"no line `{plugin}`"),),
                Remedy(f"Add `{plugin}` to the server block.", command=kubectl(config.ref, "edit")),
            )


def _dns_ref(cluster: Cluster) -> ObjectRef:
    return cluster.coredns.ref if cluster.coredns else ObjectRef("Service", "kube-dns", "kube-system")


@check(Area.COREDNS, Severity.WARNING, needs=(Need.DNS,))
def dns_failures(cluster: Cluster) -> Problems:
    """Lookups of a workload fail.

    Looks at measured DNS: SERVFAIL answers and queries without an answer, from 1 % of at least 20 queries; from 10 %
    an error. NXDOMAIN is left to ndots and dns-nxdomain.

    Why: each failed lookup is a failed or a late request of the application. A warning: most lookups are answered.

    Source: RFC 1035 section 4.1.1 (RCODE), https://kubernetes.io/docs/tasks/administer-cluster/dns-debugging-resolution/
    """
    yield from too_few(cluster)
    for stats in judged(cluster):
        failed = stats.servfail + stats.timeouts
        if failed >= 0.01 * stats.queries:
            yield Problem(
                f"{failed} of {stats.queries} lookups{f' of {stats.name}' if stats.name else ''} by "
                f"{stats.client} failed",
                _dns_ref(cluster),
                (
                    on_node(
                        stats.node,
                        f"{stats.servfail} SERVFAIL, {stats.timeouts} without an answer, asked {stats.server}",
                        failed,
                        field="servfail" if stats.servfail >= stats.timeouts else "timeouts",
                    ),
                ),
                Remedy(
                    "See at which hop they fail.",
                    command=f"kubectl genainet dns -n {sh(stats.client.partition('/')[0])} --server",
                ),
                severity=Severity.ERROR if failed >= 0.1 * stats.queries else None,
            )


@check(Area.COREDNS, Severity.WARNING, needs=(Need.DNS,))
def dns_nxdomain(cluster: Cluster) -> Problems:
    """Most lookups of a workload ask for names that do not exist.

    Looks at measured DNS: NXDOMAIN for more than half of at least 20 queries that were not search-domain attempts.

    Why: a wrong host name in a retry loop, or a name that only exists in another cluster; it loads CoreDNS and its
    upstream for nothing. A warning: the names that exist are answered.

    Source: RFC 2308 (negative caching)
    """
    yield from too_few(cluster)
    for stats in judged(cluster):
        real = stats.nxdomain - stats.searched
        if real > 0.5 * stats.queries:
            client = client_of(cluster, stats)
            yield Problem(
                f"{real} of {stats.queries} lookups{f' of {stats.name}' if stats.name else ''} by {stats.client} "
                "found no such name",
                client.ref if client else _dns_ref(cluster),
                (on_node(stats.node, f"{real} NXDOMAIN beyond search domains", real, field="nxdomain"),),
                Remedy("See which names.", command=f"kubectl genainet dns -n {sh(stats.client.partition('/')[0])}"),
            )


@check(Area.COREDNS, Severity.WARNING, needs=(Need.DNS,))
def dns_latency(cluster: Cluster) -> Problems:
    """Lookups are slow.

    Looks at the 99th percentile of measured DNS; from 500 ms.

    Why: a lookup comes before every new connection; a slow one is a slow request. Throttled CoreDNS, a slow
    upstream or a far zone. A warning: requests are answered, late.

    Source: https://docs.aws.amazon.com/eks/latest/best-practices/monitoring_eks_workloads_for_network_performance_issues.html
    """
    for stats in cluster.dns:
        if stats.p99_ns is not None and stats.p99_ns >= SLOW_NS:
            yield Problem(
                f"one lookup in a hundred by {stats.client} takes {stats.p99_ns / 1e6:.0f} ms or more",
                _dns_ref(cluster),
                (
                    on_node(
                        stats.node,
                        f"p99 {stats.p99_ns / 1e6:.0f} ms over {stats.queries} queries",
                        stats.p99_ns,
                        field="p99_ns",
                    ),
                ),
                Remedy(
                    "See at which hop the time goes.",
                    command=f"kubectl genainet dns -n {sh(stats.client.partition('/')[0])} --server",
                ),
            )
