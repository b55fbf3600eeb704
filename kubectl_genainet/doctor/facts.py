"""What the cluster is, in a few lines above the findings: no judgement, each with what told so."""

from __future__ import annotations

import msgspec

from kubectl_genainet.doctor.objects import platform
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.installed import ZONE
from kubectl_genainet.doctor.predicates import kube_proxy, mesh


class Fact(msgspec.Struct, frozen=True):
    """A name, a value, and where the value comes from."""

    name: str
    value: str
    source: str = ""


def facts(cluster: Cluster) -> tuple[Fact, ...]:
    """The facts that could be told; what could not is "unknown"."""
    where, why = platform.distribution(cluster.snapshot)
    zones = sorted({n.labels[ZONE] for n in cluster.nodes if ZONE in n.labels})
    out = [Fact("Distribution", where.value, why)]
    if cluster.nodes:
        spread = f" in {len(zones)} zone{'s' if len(zones) != 1 else ''} ({', '.join(zones)})" if zones else ""
        out.append(Fact("Nodes", f"{len(cluster.nodes)}{spread}", "Node objects"))
    if cluster.cnis:
        for cni in cluster.cnis:
            mode = cni.routing.value + (f", {cni.encapsulation}" if cni.encapsulation else "")
            out.append(Fact("CNI", f"{cni.name} ({mode})", f"{cni.evidence.object}: {cni.evidence.statement}"))
    else:
        out.append(Fact("CNI", "unknown", "no DaemonSet of a known CNI was read"))
    proxy = kube_proxy.configuration(cluster)
    if proxy is not None:
        out.append(Fact("kube-proxy", proxy.mode, f"{proxy.ref}: {proxy.field}"))
    elif kube_proxy.replaced(cluster):
        out.append(Fact("kube-proxy", "replaced by Cilium", "cilium-config"))
    else:
        out.append(Fact("kube-proxy", "unknown", "no ConfigMap kube-proxy or kube-proxy-config was read"))
    names = mesh.installed(cluster)
    if names:
        out.append(Fact("Service mesh", ", ".join(names), "installed controllers"))
    nodelocal = cluster.daemonset("node-local-dns")
    if cluster.coredns is not None:
        local = " with NodeLocal DNSCache" if nodelocal else ""
        out.append(Fact("Cluster DNS", f"{cluster.coredns.name}{local}", str(cluster.coredns.ref)))
    out.append(
        Fact(
            "Node knowledge",
            f"{len(cluster.reports)} node{'s' if len(cluster.reports) != 1 else ''}" if cluster.reports else "none",
            "agents" if cluster.reports else "no agent was asked",
        )
    )
    if cluster.dns:
        queries = sum(s.queries for s in cluster.dns)
        time = f" in {cluster.measured.seconds:.0f} s" if cluster.measured.seconds is not None else ""
        clients = f"{len(cluster.dns)} workload{'s' if len(cluster.dns) != 1 else ''}"
        out.append(Fact("DNS measured", f"{queries} queries of {clients}{time}", "agents"))
    return tuple(out)
