"""kube-proxy: mode against scale, configuration against nodes, rules against EndpointSlices."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, on_node, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.platform import conf_value
from kubectl_genainet.doctor.objects.raw import kubectl, number, sh
from kubectl_genainet.doctor.predicates.kube_proxy import Configuration, configuration, daemonset, instead, replaced
from kubectl_genainet.model.diagnoses.kube_proxy import SERVICE_NOT_TRACKED
from kubectl_genainet.model.finding import Finding, NotChecked, ObjectRef, Remedy, Severity
from kubectl_genainet.model.units import seconds

MANY_SERVICES = 1000
MANY_ENDPOINTS = 5000
MANY_RULES = 20_000
# net/netfilter/ipvs/ip_vs_*.c
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "fo", "ovf", "mh", "twos")


def _set_mode(config: Configuration, mode: str) -> Remedy:
    if config.ref.name == "kube-proxy-config":
        return Remedy(
            f"Change the mode to {mode} (a managed add-on takes it as configuration values; put in the cluster's name "
            "for CLUSTER) and restart kube-proxy.",
            command="aws eks update-addon --cluster-name CLUSTER --addon-name kube-proxy "
            f"""--configuration-values '{{"mode": "{mode}"}}' --resolve-conflicts OVERWRITE""",
        )
    return Remedy(
        f"Set `mode: {mode}` and restart kube-proxy.",
        command=f"{kubectl(config.ref, 'edit')}\nkubectl -n kube-system rollout restart daemonset/kube-proxy",
    )


def _own_section(conf: str, section: str) -> str:
    """The indented lines below `section:` of a KubeProxyConfiguration."""
    match = re.search(rf"^{section}:[ \t]*\n((?:[ \t]+.*\n?)*)", conf, re.MULTILINE)
    return match[1] if match else ""


@check(Area.KUBE_PROXY, Severity.WARNING, needs=("Service", "EndpointSlice", "ConfigMap"))
def kube_proxy_scale(cluster: Cluster) -> Problems:
    """kube-proxy works with iptables rules, and there are very many Services.

    Looks at `mode` in kube-proxy's ConfigMap (empty means iptables) and the number of Services (1,000) and endpoints
    (5,000).

    Why: the first packet of a connection passes the Services' rules one by one, and programming them takes seconds:
    connections get slower, and rules lag behind the pods. IPVS and nftables look Services up in hash tables. A
    warning: requests are answered, the first packet late.

    Source: https://kubernetes.io/blog/2025/02/28/nftables-kube-proxy/,
    https://docs.aws.amazon.com/eks/latest/best-practices/ipvs.html
    """
    config = configuration(cluster)
    if config is None or config.mode != "iptables":
        return
    services = sum(bool(s.cluster_ips) for s in cluster.snapshot.services)
    endpoints = sum(len(s.endpoints) for s in cluster.snapshot.endpoint_slices)
    if services >= MANY_SERVICES or endpoints >= MANY_ENDPOINTS:
        yield Problem(
            f"iptables mode with {services} Services and {endpoints} endpoints",
            config.ref,
            (seen(config.ref, config.field, config.mode, f"{services} Services, {endpoints} endpoints"),),
            _set_mode(config, "nftables"),
            detail="nftables mode needs Kubernetes 1.31 and Linux 5.13; IPVS mode needs its kernel modules.",
        )


@check(Area.KUBE_PROXY, Severity.ERROR, needs=("DaemonSet",))
def kube_proxy_ready(cluster: Cluster) -> Problems:
    """kube-proxy is missing, or not ready on every node.

    Looks at DaemonSet kube-proxy, and, where there is none, at what does its work: Cilium's or Calico's eBPF data plane,
    kube-router, OVN-Kubernetes, kube-proxy inside k3s's or MicroK8s's own process, static pods. Its absence is reported
    for a whole cluster only: one chart or one application says nothing about it.

    Why: on a node without it Services do not work, or stay as they were when it stopped. An error: Services fail,
    or lead to pods that are gone, on that node.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
    """
    daemonset_ = daemonset(cluster)
    if daemonset_ is not None and (old := cluster.extent.old_status(daemonset_)):
        yield NotChecked(daemonset_.name, old)
        return
    if daemonset_ is not None:
        wanted, ready = (
            number(daemonset_.raw, "status", "desiredNumberScheduled"),
            number(daemonset_.raw, "status", "numberReady"),
        )
        if ready < wanted:
            yield Problem(
                f"kube-proxy is ready on {ready} of {wanted} nodes",
                daemonset_.ref,
                (seen(daemonset_.ref, "status.numberReady", ready, f"{ready} ready of {wanted} desired"),),
                Remedy("See why its pods are not ready.", command=kubectl(daemonset_.ref, "describe")),
            )
        return
    if instead(cluster) or any(w.name.startswith("kube-proxy") for w in cluster.workloads):
        return
    unknown = cluster.partial("DaemonSet")
    if not unknown and not cluster.extent.of_a_cluster:
        unknown = "no node is known"
    if unknown or not cluster.cnis or cluster.cni("kindnet"):
        yield NotChecked("", unknown or "there is no DaemonSet kube-proxy, and what stands in for it is not known")
        return
    cni = cluster.cnis[0]
    yield Problem(
        f"there is no kube-proxy, and {cni.name} does not replace it",
        cni.daemonset.ref,
        (cni.evidence,),
        Remedy(
            "Install kube-proxy, or switch on Cilium's replacement, with the API server's own HOST and PORT."
            if cni.name.startswith("Cilium")
            else "Install kube-proxy.",
            command="helm upgrade cilium cilium/cilium -n kube-system --reuse-values --set kubeProxyReplacement=true "
            "--set k8sServiceHost=HOST --set k8sServicePort=PORT"
            if cni.name.startswith("Cilium")
            else "kubeadm init phase addon kube-proxy --kubeconfig /etc/kubernetes/admin.conf",
        ),
    )


@check(Area.KUBE_PROXY, Severity.WARNING, needs=("ConfigMap",))
def ipvs_scheduler(cluster: Cluster) -> Problems:
    """kube-proxy's IPVS scheduler does not exist, or does not suit long requests.

    Looks at ipvs.scheduler of kube-proxy's configuration: names that the kernel does not have are an error (kube-proxy
    falls back or fails); rr (also the default) in front of model servers is information: lc counts connections.

    Why: token streams last from seconds to minutes; round robin piles them up on one pod while another is idle. A
    warning: requests are answered, unevenly.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-mode-ipvs
    """
    config = configuration(cluster)
    if config is None or config.mode != "ipvs":
        return
    scheduler = conf_value(_own_section(config.conf, "ipvs"), "scheduler")
    field = config.field.replace(".mode", ".ipvs.scheduler")
    if scheduler and scheduler not in SCHEDULERS:
        yield Problem(
            f"IPVS has no scheduler {scheduler!r}",
            config.ref,
            (seen(config.ref, field, scheduler, f"the kernel has {', '.join(SCHEDULERS)}"),),
            Remedy("Use lc, which counts connections.", command=kubectl(config.ref, "edit")),
            severity=Severity.ERROR,
        )
    elif scheduler in ("", "rr") and cluster.model_servers:
        yield Problem(
            "IPVS spreads streams round robin, however long they last",
            config.ref,
            (seen(config.ref, field, scheduler or None, "rr is the default"),),
            Remedy("Use lc, which counts connections.", command=kubectl(config.ref, "edit")),
            severity=Severity.INFO,
        )


@check(Area.KUBE_PROXY, Severity.WARNING, needs=("ConfigMap", "EndpointSlice"))
def kube_proxy_sync(cluster: Cluster) -> Problems:
    """kube-proxy's sync periods do not fit the cluster.

    Looks at minSyncPeriod of the active mode: 0s with more than 1,000 endpoints, or more than 10 s at all.

    Why: with 0s every endpoint change rewrites the rules at once, which keeps a node busy during a rollout; with a
    long period new pods get no traffic, and gone ones still do, for that time. A warning: requests fail for seconds
    after a change.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#minsyncperiod
    """
    config = configuration(cluster)
    if config is None or config.mode not in ("iptables", "ipvs", "nftables"):
        return
    value = conf_value(_own_section(config.conf, config.mode), "minSyncPeriod")
    period = seconds(value) if value else None
    endpoints = sum(len(s.endpoints) for s in cluster.snapshot.endpoint_slices)
    # An explicit 0s is kubeadm's way to write "default" (1s) since v1.26 for iptables; ipvs takes it at its word.
    too_busy = period == 0 and config.mode == "ipvs" and endpoints > 1000
    if period is not None and (period > 10 or too_busy):
        field = config.field.replace(".mode", f".{config.mode}.minSyncPeriod")
        yield Problem(
            f"minSyncPeriod is {value} with {endpoints} endpoints",
            config.ref,
            (
                seen(
                    config.ref,
                    field,
                    value,
                    "rules lag for that long" if period > 10 else "every change rewrites the rules",
                ),
            ),
            Remedy("Use 1s.", command=kubectl(config.ref, "edit")),
        )


MODE_FINDINGS = ("proxy-mode-mismatch", "leftover-proxy-rules")


def _from_engine(finding: Finding) -> Problem:
    return Problem(finding.title, finding.object, finding.evidence, finding.remedy, finding.detail, finding.severity)


@check(Area.KUBE_PROXY, Severity.WARNING, needs=(Need.RULESETS, "ConfigMap"))
def kube_proxy_mode(cluster: Cluster) -> Problems:
    """A node's rules are of another mode than configured, or of two modes.

    Asks the rules engine which modes each node has rules of (IPVS virtual servers, KUBE-SERVICES chains, the nftables
    table kube-proxy; iptables-legacy and iptables-nft apart), and compares with `mode` in the ConfigMap.

    Why: kube-proxy falls back to iptables where IPVS modules are missing, and leaves the rules of the old mode
    behind when it is reconfigured; nodes then treat the same Service differently. A warning: Services work, in
    another way than was chosen.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/#proxy-modes
    """
    yield from (_from_engine(f) for f in cluster.drift if f.check in MODE_FINDINGS)


@check(Area.KUBE_PROXY, Severity.ERROR, needs=(Need.RULESETS, "ConfigMap"))
def ipvs_modules(cluster: Cluster) -> Problems:
    """kube-proxy is to use IPVS, and a node has none.

    Looks at what reading the node's IPVS tables gave, where the configured mode is ipvs.

    Why: without ip_vs and the scheduler's module (ip_vs_lc, …) kube-proxy falls back to iptables or does not start.
    An error: Services of the node fail, or work by other rules than was chosen.

    Source: https://github.com/kubernetes/kubernetes/blob/master/pkg/proxy/ipvs/README.md
    """
    config = configuration(cluster)
    if config is None or config.mode != "ipvs":
        return
    for dump in cluster.rules.dumps:
        if dump.source == "ipvs" and dump.error:
            yield Problem(
                f"IPVS cannot be read on node {dump.node}",
                ObjectRef("Node", dump.node),
                (
                    on_node(dump.node, dump.error, field="ipvs"),
                    seen(config.ref, config.field, "ipvs", "kube-proxy is to use IPVS"),
                ),
                Remedy(
                    "Load the modules, also at start (/etc/modules-load.d/).",
                    command=f"modprobe -a ip_vs ip_vs_rr ip_vs_wrr ip_vs_lc ip_vs_sh nf_conntrack   # on node "
                    f"{sh(dump.node)}",
                ),
            )


@check(Area.KUBE_PROXY, Severity.WARNING, needs=(Need.RULESETS,))
def kube_proxy_rule_count(cluster: Cluster) -> Problems:
    """A node has very many iptables rules.

    Counts the rules (-A lines) of the node's iptables dump; from 20,000.

    Why: each change of an endpoint is a partial or whole rewrite, which holds the xtables lock: policy agents and
    CNIs wait for it, and pods start slowly. A warning: requests fail for seconds after a change.

    Source: https://kubernetes.io/blog/2025/02/28/nftables-kube-proxy/
    """
    for node, dumps in cluster.rules.by_node.items():
        for dump in dumps:
            rules = len(re.findall(r"^(?:\[\d+:\d+\] )?-A ", dump.text, re.MULTILINE)) if "tables" in dump.source else 0
            if rules >= MANY_RULES:
                config = configuration(cluster)
                yield Problem(
                    f"{rules} rules in {dump.source}",
                    ObjectRef("Node", node),
                    (on_node(node, f"{rules} rules in {dump.source}", rules, field=dump.source),),
                    _set_mode(config, "nftables") if config else Remedy("Use kube-proxy's nftables or IPVS mode."),
                )


@check(Area.KUBE_PROXY, Severity.ERROR, needs=(Need.RULESETS, "Service", "EndpointSlice"))
def kube_proxy_drift(cluster: Cluster) -> Problems:
    """A node's rules do not say what the EndpointSlices say.

    Compares, through the rules engine, what each node's rules do for each Service port with the API's endpoints:
    endpoints that are gone, endpoints without rules, Services without rules, nodes that disagree. Not where a cache on the
    node answers for a Service (NodeLocal DNSCache). On live nodes a difference is read again after some seconds.

    Why: on that node part of the connections go to pods that no longer exist (they time out), and new pods get
    none. An error: a part of that node's connections times out.

    Source: https://kubernetes.io/docs/reference/networking/virtual-ips/
    """
    if replaced(cluster):
        return
    for difference in cluster.drift:
        about = difference.object
        if difference.check not in (*MODE_FINDINGS, SERVICE_NOT_TRACKED.name) and (
            about is None or not about.namespace or cluster.in_scope(about.namespace)
        ):
            yield _from_engine(difference)


@check(Area.KUBE_PROXY, Severity.WARNING, needs=(Need.RULESETS,))
def conntrack_insert_failed(cluster: Cluster) -> Problems:
    """A node's connection tracking lost races.

    Looks at insert_failed and drop in the node's conntrack statistics, which count since the node's start. Drops alone
    are information: what a table that is full now drops is conntrack-fill's.

    Why: the A and AAAA queries of one lookup leave from one socket at once; with translation to the DNS Service
    their entries race, one packet is dropped, and the lookup stalls for 5 s. A table that was full shows as drop. A
    warning: the lookup that lost is sent again, after 5 s.

    Source: https://github.com/kubernetes/kubernetes/issues/56903, kernel commits 4e35c1cb9460 and ed07d9a021df
    """
    for dump in cluster.rules.dumps:
        if dump.source != "conntrack-stats":
            continue
        total = {
            name: sum(int(v) for v in re.findall(rf"\b{name}=(\d+)", dump.text)) for name in ("insert_failed", "drop")
        }
        if total["insert_failed"] or total["drop"]:
            counters = f"insert_failed {total['insert_failed']}, drop {total['drop']} since the node's start"
            yield Problem(
                f"conntrack lost packets: {counters}",
                ObjectRef("Node", dump.node),
                (on_node(dump.node, counters, total, field="conntrack-stats"),),
                Remedy("Watch whether the table fills up again.", command=f"conntrack -C   # on node {sh(dump.node)}")
                if not total["insert_failed"]
                else Remedy(
                    "Run NodeLocal DNSCache (its lookups bypass conntrack), or let the resolver ask one after "
                    "the other.",
                    yaml="# in the pod's spec\ndnsConfig:\n  options:\n  - name: single-request-reopen\n",
                ),
                severity=None if total["insert_failed"] else Severity.INFO,
            )
