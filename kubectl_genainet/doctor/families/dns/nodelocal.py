"""NodeLocal DNSCache."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, on_node, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.nodes import host_of, netns_of, pods_on_reported_nodes
from kubectl_genainet.doctor.objects.raw import kubectl, mapping, sh, strings
from kubectl_genainet.doctor.objects.workloads import LivePod, Workload
from kubectl_genainet.doctor.predicates import kube_proxy
from kubectl_genainet.doctor.predicates.edits import edit_spec
from kubectl_genainet.model.finding import NotChecked, ObjectRef, Remedy, Severity

ADDRESS = "169.254.20.10"
# Of NodeLocal DNSCache's own manifest, and of Kubespray (nodelocaldns_ip).
ADDRESSES = (ADDRESS, "169.254.25.10")
LARGE = 50


def _installed(cluster: Cluster) -> bool:
    return cluster.daemonset("node-local-dns", "nodelocaldns") is not None


def _ask_first(workload: Workload, servers: list[str]) -> str:
    """Puts the cache before the servers that are asked now; what else dnsConfig holds is kept."""
    value = {**mapping(workload.template.spec, "dnsConfig"), "nameservers": [ADDRESS, *servers][:3]}
    return edit_spec(workload, "dnsConfig", value)


def _nameservers(workload: Workload) -> list[str]:
    return strings(workload.template.spec, "dnsConfig", "nameservers")


@check(Area.NODELOCAL, Severity.WARNING, needs=("DaemonSet", "Node"))
def nodelocal_absent(cluster: Cluster) -> Problems:
    """A large cluster has no DNS cache on its nodes.

    Looks for DaemonSet node-local-dns where there are 50 nodes or more. Cilium's own redirect policy needs it too.

    Why: every lookup crosses the network to a CoreDNS pod, through conntrack and its races; a cache on the node
    takes the load off and answers in microseconds. A warning: lookups are answered, some after 5 s.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/
    """
    if len(cluster.nodes) >= LARGE and not _installed(cluster):
        yield Problem(
            f"{len(cluster.nodes)} nodes without NodeLocal DNSCache",
            cluster.coredns.ref if cluster.coredns else ObjectRef("Service", "kube-dns", "kube-system"),
            (seen(None, "", len(cluster.nodes), f"no DaemonSet node-local-dns for {len(cluster.nodes)} nodes"),),
            Remedy(
                "Install it (on GKE: an add-on).",
                command="kubectl apply -f nodelocaldns.yaml   # cluster/addons/dns/nodelocaldns of "
                "kubernetes/kubernetes, "
                "with __PILLAR__ values filled in",
            ),
        )


@check(Area.NODELOCAL, Severity.WARNING, needs=("DaemonSet", "Pod"))
def nodelocal_bypassed(cluster: Cluster) -> Problems:
    """A GenAI pod bypasses the node's DNS cache.

    Looks, where NodeLocal DNSCache is installed, at pods whose dnsConfig names other nameservers with dnsPolicy None,
    and at kube-proxy's IPVS mode, in which the cache is only used where the kubelet's clusterDNS (or the pod's
    dnsConfig) names its link-local address.

    Why: those pods still take the long way, with its stalls; the cache is paid for and not used. A warning: lookups
    are answered, some after 5 s.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/#configuration
    """
    if not _installed(cluster):
        return
    config = kube_proxy.configuration(cluster)
    service_ips = set(cluster.dns_service.cluster_ips) if cluster.dns_service else set()
    for workload, _ in cluster.genai_workloads:
        servers = _nameservers(workload)
        none = workload.template.spec.get("dnsPolicy") == "None"
        if none and servers and not set(ADDRESSES) & set(servers):
            through_service = set(servers) & service_ips and not (config and config.mode == "ipvs")
            if through_service:
                continue
            yield Problem(
                f"its resolver asks {', '.join(servers)}, not the node's cache",
                workload.ref,
                (seen(workload.ref, workload.field("dnsConfig.nameservers"), servers, f"asks {', '.join(servers)}"),),
                Remedy("Ask the cache first.", command=_ask_first(workload, servers)),
            )
    if config is not None and config.mode == "ipvs" and not cluster.from_files:
        using = [w for w, _ in cluster.genai_workloads if set(ADDRESSES) & set(_nameservers(w))]
        kubelet = _kubelet_dns(cluster)
        if cluster.genai_workloads and not using and kubelet and not set(ADDRESSES) & set(kubelet[1]):
            yield Problem(
                "with IPVS the pods ask the DNS Service, not the node's cache",
                ObjectRef(*kubelet[0]),
                (
                    seen(
                        ObjectRef(*kubelet[0]),
                        "data[kubelet].clusterDNS",
                        kubelet[1],
                        f"clusterDNS is {', '.join(kubelet[1])}",
                    ),
                    seen(config.ref, config.field, "ipvs", "IPVS holds the Service's address itself"),
                ),
                Remedy(f"Set the kubelets' clusterDNS to {ADDRESS}, and make the pods anew."),
            )


def _kubelet_dns(cluster: Cluster) -> tuple[tuple[str, str, str], list[str]] | None:
    """clusterDNS of kubeadm's kubelet-config, with the ConfigMap's identity; None where it was not read."""
    for obj in cluster.snapshot.of("ConfigMap", ""):
        if obj.namespace == "kube-system" and obj.name.startswith("kubelet-config"):
            lines = str(mapping(obj.raw, "data").get("kubelet", "")).splitlines()
            for index, line in enumerate(lines):
                if line.startswith("clusterDNS:"):
                    addresses = []
                    for below in lines[index + 1 :]:
                        if not below.lstrip().startswith("- "):
                            break
                        addresses.append(below.strip()[2:].strip("\"' "))
                    return ("ConfigMap", obj.name, obj.namespace), addresses
    return None


@check(Area.NODELOCAL, Severity.ERROR, needs=("DaemonSet", "Pod"))
def nodelocal_listener(cluster: Cluster) -> Problems:
    """A pod's resolver asks the node's DNS cache, and none runs there.

    Looks at dnsConfig.nameservers with 169.254.20.10 (Kubespray: 169.254.25.10), and for DaemonSet node-local-dns with a
    ready pod on the nodes of those pods.

    Why: nothing answers on the link-local address: every lookup times out before the next nameserver is asked. An
    error: every lookup of the pod waits for a timeout first.

    Source: https://kubernetes.io/docs/tasks/administer-cluster/nodelocaldns/
    """
    daemonset = cluster.daemonset("node-local-dns", "nodelocaldns")
    cache = cluster.workload(daemonset.ref) if daemonset else None
    ready = {p.node for p in cache.pods if p.pod.ready} if cache else set()
    for workload in cluster.workloads:
        asked = next((a for a in _nameservers(workload) if a in ADDRESSES), "")
        if not cluster.in_scope(workload.namespace) or not asked:
            continue
        field = workload.field("dnsConfig.nameservers")
        without = sorted(workload.nodes - ready) if daemonset else []
        if daemonset is None and cluster.partial("DaemonSet"):
            yield NotChecked(str(workload.ref), cluster.partial("DaemonSet"))
        elif daemonset is None or (without and not cluster.from_files):
            where = f" on {', '.join(without[:5])}" if without else ""
            yield Problem(
                f"its resolver asks {asked}, where nothing listens{where}",
                workload.ref,
                (
                    seen(workload.ref, field, asked, f"asks {asked}"),
                    seen(daemonset.ref if daemonset else None, "", None, f"no ready pod of node-local-dns{where}"),
                ),
                Remedy(
                    "Repair the cache on those nodes, or ask the DNS Service.",
                    command=kubectl(daemonset.ref, "describe")
                    if daemonset
                    else "kubectl get daemonsets -A | grep -i dns",
                ),
            )


@check(Area.NODELOCAL, Severity.ERROR, needs=(Need.NODES, "DaemonSet"))
def nodelocal_address(cluster: Cluster) -> Problems:
    """A node's DNS cache is installed or asked, and has no address or no listener there.

    Looks, on each node, for a device of the host's namespace with 169.254.20.10 (NodeLocal DNSCache makes the dummy
    device nodelocaldns) and for a socket on its UDP port 53, where the cache is installed or a pod of the node has that
    address in its /etc/resolv.conf, as the agent read it: the kubelet may have written it, whatever the pod's spec says.

    Why: pods of that node ask an address that nobody has, or from which nobody answers. An error: every lookup of
    the node's pods waits for a timeout, or fails.

    Source: https://github.com/kubernetes/dns/tree/master/cmd/node-cache
    """
    asking: dict[str, LivePod] = {}
    for report, live in pods_on_reported_nodes(cluster):
        netns = netns_of(report, live)
        lines = [line.split() for line in netns.resolv_conf.splitlines()] if netns is not None else []
        if any(["nameserver", a] in lines for a in ADDRESSES):
            asking.setdefault(report.node, live)
    installed = _installed(cluster)
    for report in cluster.reports:
        host, asker = host_of(report), asking.get(report.node)
        if host is None or not (installed or asker):
            continue
        own = next((a for a in ADDRESSES if a in host.addresses), "")
        if not own:
            title = f"it has no device with {ADDRESS}"
            evidence = [on_node(report.node, f"no device of the host has {ADDRESS}", field="devices")]
        elif host.udp_listeners is not None and not any(
            i.port == 53 and i.ip in (own, "0.0.0.0", "::") for i in host.udp_listeners
        ):
            title = f"nothing listens on UDP port 53 of {own}"
            evidence = [on_node(report.node, "no socket of the host is bound to it", field="listeners")]
        else:
            continue
        if asker is not None:
            evidence.append(
                on_node(report.node, f"{asker.ref} asks {ADDRESS}", ADDRESS, field="/etc/resolv.conf", obj=asker.ref)
            )
        yield Problem(
            title,
            ObjectRef("Node", report.node),
            tuple(evidence),
            Remedy(
                "Restart the cache on that node.",
                command="kubectl -n kube-system delete pod -l k8s-app=node-local-dns "
                f"--field-selector spec.nodeName={sh(report.node)}",
            )
            if installed
            else Remedy(
                "Install the cache, or take its address out of the kubelets' clusterDNS.",
                command="kubectl -n kube-system get configmap kubelet-config -o yaml",
            ),
        )
