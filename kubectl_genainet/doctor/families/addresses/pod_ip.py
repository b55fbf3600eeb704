"""Pod IP set-up: from the kubelet to addresses, devices and routes."""

from __future__ import annotations

from collections import defaultdict

from kubectl_genainet.doctor.check import Area, Need, Problem, Problems, check, on_node, seen, shortened
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.nodes import host_of, netns_of, pods_on_reported_nodes
from kubectl_genainet.doctor.objects.raw import condition, event_message, event_object, kubectl, named, sh, text
from kubectl_genainet.doctor.objects.workloads import LivePod
from kubectl_genainet.model.cluster import canonical_ip
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

STUCK_S = 120


@check(Area.POD_IP, Severity.ERROR, needs=("Pod",), own_namespace=True)
def pod_without_ip(cluster: Cluster) -> Problems:
    """A pod was placed on a node and got no address within two minutes.

    Looks at pods with spec.nodeName and an empty status.podIP, PodScheduled for more than two minutes before the
    snapshot, and at their FailedCreatePodSandBox events.

    Why: between the kubelet and the application are CRI, CNI, IPAM, network namespace, routes and rules; a pod that
    stays without an address fails in one of them, and its Service has one endpoint less. An error: the pod serves
    nobody, and a rollout stands still.

    Source: https://kubernetes.io/docs/tasks/debug/debug-application/debug-pods/
    """
    failures: dict[ObjectRef, list[KubeObject]] = defaultdict(list)
    for event in cluster.events("FailedCreatePodSandBox", "FailedCreatePodSandbox"):
        failures[event_object(event)].append(event)
    for live in cluster.live_pods:
        if not live.node or live.pod.ips or live.terminating or not live.pod.status.phase:
            continue
        waited = cluster.age(condition(live.obj.raw, "PodScheduled").get("lastTransitionTime"))
        events = failures.get(live.ref, [])
        if not events and (waited is None or waited < STUCK_S):
            continue
        evidence = [seen(live.ref, "status.podIP", None, f"scheduled to {live.node}, no address")]
        for event in events[-1:]:
            field, message = event_message(event)
            evidence.append(seen(event.ref, field, message, f"FailedCreatePodSandBox: {shortened(message)}"))
        yield Problem(
            f"no address on node {live.node}" + (f" for {waited:.0f} s" if waited else ""),
            live.ref,
            tuple(evidence),
            Remedy(
                "Read the pod's events, then the CNI agent's log on that node.",
                command=f"{kubectl(live.ref, 'describe')}\n"
                f"kubectl -n kube-system get pods -o wide --field-selector spec.nodeName={sh(live.node)}",
            ),
        )


@check(Area.POD_IP, Severity.ERROR, needs=("Pod",))
def pod_ip_twice(cluster: Cluster) -> Problems:
    """Two running pods have the same address.

    Looks at status.podIPs of pods that are not finished, not terminating and not on the host's network.

    Why: whichever answers ARP or owns the route gets the other's traffic; one client in two reaches the wrong pod.
    It comes from an IPAM database that lost its state, or overlapping pod CIDRs. An error: a part of the users get
    another application's answers, or none.

    Source: https://kubernetes.io/docs/concepts/cluster-administration/networking/ (every pod has its own address)
    """
    holders: dict[str, list[LivePod]] = defaultdict(list)
    for workload in cluster.workloads:
        for live in workload.pods:
            if not live.pod.spec.host_network and not live.terminating:
                for ip in live.pod.ips:
                    holders[canonical_ip(ip)].append(live)
    for ip, pods in holders.items():
        if len(pods) > 1 and any(cluster.in_scope(p.ref.namespace) for p in pods):
            yield Problem(
                f"address {ip} is held by {len(pods)} pods",
                pods[0].ref,
                tuple(seen(p.ref, "status.podIP", ip, f"{p.ref} on {p.node} has {ip}") for p in pods),
                Remedy(
                    "Delete all but one of them, and look into the CNI's IPAM.", command=kubectl(pods[1].ref, "delete")
                ),
            )


@check(Area.POD_IP, Severity.ERROR, needs=("Pod", Need.NODES))
def pod_netns_mismatch(cluster: Cluster) -> Problems:
    """A pod's network namespace does not have the address that its status names.

    Looks at the addresses of the pod's network namespace, as the agent found it by the pod's processes, and at
    status.podIPs.

    Why: Services, policies and DNS use the status; packets use the namespace. After a CNI restart or a restored
    node they can differ, and every packet to the pod goes to nobody. An error: every connection to the pod fails
    though it is Ready.

    Source: https://github.com/containernetworking/cni/blob/main/SPEC.md
    """
    for report, live in pods_on_reported_nodes(cluster):
        netns = netns_of(report, live)
        if netns is None:
            continue
        has = {canonical_ip(a) for a in netns.addresses}
        missing = [ip for ip in live.pod.ips if canonical_ip(ip) not in has]
        if missing:
            yield Problem(
                f"its network namespace lacks {', '.join(missing)}",
                live.ref,
                (
                    seen(live.ref, "status.podIPs", list(live.pod.ips), f"the API has {', '.join(live.pod.ips)}"),
                    on_node(
                        report.node,
                        f"namespace {netns.inode} has {', '.join(sorted(has)) or 'no address'}",
                        sorted(has),
                        obj=live.ref,
                    ),
                ),
                Remedy("Delete the pod, so that the CNI sets it up again.", command=kubectl(live.ref, "delete")),
            )


@check(Area.POD_IP, Severity.ERROR, needs=("Pod", Need.NODES))
def pod_device_down(cluster: Cluster) -> Problems:
    """A pod's network device is missing or down, or its peer on the node is.

    Looks, in the pod's network namespace, for a device that is up and has the address; for a veth also at its peer
    in the host's namespace.

    Why: the pod is Running and Ready may even hold (exec probes), but no packet gets in or out. An error: every
    connection to the pod fails though it may be Ready.

    Source: https://man7.org/linux/man-pages/man4/veth.4.html
    """
    for report, live in pods_on_reported_nodes(cluster):
        netns, host = netns_of(report, live), host_of(report)
        if netns is None:
            continue
        devices = [d for d in netns.devices if d.name != "lo"]
        fault = ""
        if not devices:
            fault = "the namespace has no device but lo"
        elif not any(d.up for d in devices):
            fault = f"{devices[0].name} is down"
        else:
            by_index = {d.ifindex: d for d in host.devices} if host else {}
            for device in devices:
                if device.kind == "veth" and device.peer_ifindex and host and device.peer_netns in (0, host.inode):
                    peer = by_index.get(device.peer_ifindex)
                    if peer is None:
                        fault = f"the peer of {device.name} (index {device.peer_ifindex}) is not on the node"
                    elif not peer.up:
                        fault = f"{peer.name}, the peer of {device.name}, is down"
        if fault:
            yield Problem(
                fault,
                live.ref,
                (on_node(report.node, fault, field="devices", obj=live.ref),),
                Remedy("Delete the pod, so that the CNI sets it up again.", command=kubectl(live.ref, "delete")),
            )


@check(Area.POD_IP, Severity.ERROR, needs=("Pod", Need.NODES))
def pod_route_missing(cluster: Cluster) -> Problems:
    """A pod has no default route.

    Looks at the routes of the pod's network namespace.

    Why: without one the pod reaches only its own subnet: no Service address, no DNS, no other node. An error: the
    application reaches neither DNS nor any Service.

    Source: https://github.com/containernetworking/cni/blob/main/SPEC.md (routes of the result)
    """
    for report, live in pods_on_reported_nodes(cluster):
        netns = netns_of(report, live)
        if netns is None or netns.routes is None:
            continue
        if not any(r.dst in ("0.0.0.0/0", "::/0", "default", "") for r in netns.routes):
            yield Problem(
                "its network namespace has no default route",
                live.ref,
                (
                    on_node(
                        report.node,
                        "routes: " + (", ".join(f"{r.dst} dev {r.device}" for r in netns.routes) or "none"),
                        [r.dst for r in netns.routes],
                        field="routes",
                        obj=live.ref,
                    ),
                ),
                Remedy("Delete the pod, so that the CNI sets it up again.", command=kubectl(live.ref, "delete")),
            )


@check(Area.POD_IP, Severity.ERROR, needs=(Need.NODES,))
def node_forwarding_off(cluster: Cluster) -> Problems:
    """A node does not forward packets.

    Looks at the sysctls net.ipv4.ip_forward and net.ipv6.conf.all.forwarding of the host's namespace.

    Why: pods reach nothing beyond their own node. A hardening profile or a sysctl reload switches it off. An error:
    no pod of the node reaches another node.

    Source: https://kubernetes.io/docs/setup/production-environment/container-runtimes/#prerequisite-ipv4-forwarding-optional
    """
    for report in cluster.reports:
        host = host_of(report)
        if host is None:
            continue
        name = "net.ipv4.ip_forward"
        if host.sysctls.get(name) == "0":
            yield Problem(
                f"{name} is 0: it forwards nothing",
                ObjectRef("Node", report.node),
                (on_node(report.node, f"{name} is 0", "0", field=name),),
                Remedy(
                    "Switch it on, and find out what switched it off.",
                    command=f"sysctl -w {sh(name)}=1   # on node {sh(report.node)}; and in /etc/sysctl.d/",
                ),
            )


@check(Area.POD_IP, Severity.WARNING, needs=(Need.NODES,))
def conntrack_fill(cluster: Cluster) -> Problems:
    """A node's connection table is nearly full.

    Looks at nf_conntrack_count and nf_conntrack_max of the host's namespace; from 80 %, an error from 95 %.

    Why: when it is full, the first packet of every new connection is dropped on that node ("nf_conntrack: table
    full"), while old connections go on: one client in some fails. A warning: below 95 % nobody is refused yet.

    Source: https://docs.kernel.org/networking/nf_conntrack-sysctl.html
    """
    for report in cluster.reports:
        host = host_of(report)
        if host is None or host.conntrack_count is None or not host.conntrack_max:
            continue
        share = host.conntrack_count / host.conntrack_max
        if share >= 0.8:
            yield Problem(
                f"{host.conntrack_count} of {host.conntrack_max} connections tracked ({share:.0%})",
                ObjectRef("Node", report.node),
                (
                    on_node(
                        report.node,
                        f"nf_conntrack_count is {host.conntrack_count}",
                        host.conntrack_count,
                        field="nf_conntrack_count",
                    ),
                ),
                Remedy(
                    "Raise the limit in kube-proxy's configuration (conntrack.maxPerCore), or now on the node.",
                    command=f"sysctl -w net.netfilter.nf_conntrack_max={host.conntrack_max * 2}   # on node "
                    f"{sh(report.node)}",
                ),
                severity=Severity.ERROR if share >= 0.95 else None,
            )


@check(Area.POD_IP, Severity.WARNING, needs=("Node",))
def node_network_unavailable(cluster: Cluster) -> Problems:
    """A node reports that its network is not set up.

    Looks at the conditions NetworkUnavailable and Ready (message "cni plugin not initialized") of the nodes.

    Why: no pod starts there; DaemonSets of accelerators and caches stay away as well. A warning: users lose
    capacity, not answers.

    Source: https://kubernetes.io/docs/reference/node/node-status/#condition
    """
    for node in cluster.nodes:
        unavailable, ready = condition(node.raw, "NetworkUnavailable"), condition(node.raw, "Ready")
        message = text(ready, "message")
        if unavailable.get("status") == "True":
            evidence = seen(node.ref, "status.conditions[NetworkUnavailable]", "True", text(unavailable, "message"))
        elif ready.get("status") == "False" and ("cni" in message.lower() or "network plugin" in message.lower()):
            evidence = seen(node.ref, "status.conditions[Ready]", "False", message)
        else:
            continue
        yield Problem(
            f"the network of node {node.name} is not set up",
            node.ref,
            (evidence,),
            Remedy("Look at the CNI's pod on that node.", command=f"kubectl describe {named('node', node.name)}"),
        )
