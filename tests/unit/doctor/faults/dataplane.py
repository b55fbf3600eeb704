"""Faults of kube-proxy, eBPF data planes and SR-IOV."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.events import PacketDropped
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.node import Route, RulesetDump
from tests.unit.doctor.faults.case import MODEL, N1, aws_env, fault, known, kube_proxy_conf, packet
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm
from tests.unit.doctor.worlds.knowledge import knowledge
from tests.unit.doctor.worlds.world import NS, Builder, World, change_netns, daemon, each, meta


def service_crowd(world: World, count: int) -> None:
    for index in range(count):
        name = f"svc-{index}"
        ip = f"10.101.{index // 250}.{index % 250 + 1}"
        world.add(
            {
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": meta(name, "crowd"),
                "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]},
            },
            {
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "addressType": "IPv4",
                "metadata": meta(f"{name}-a", "crowd", {"kubernetes.io/service-name": name}),
                "ports": [{"name": "", "port": 80}],
                "endpoints": [
                    {"addresses": [f"10.102.{index // 250}.{index % 250 + 1}"], "conditions": {"ready": True}}
                ],
            },
        )


@fault("kube-proxy-scale", kubeadm, "ConfigMap kube-system/kube-proxy", "data[config.conf].mode")
def a_thousand_services_in_iptables(world: World) -> None:
    service_crowd(world, 1000)


@fault("kube-proxy-ready", eks, "DaemonSet kube-system/kube-proxy", "status.numberReady")
def kube_proxy_not_ready(world: World) -> None:
    world.get("DaemonSet", "kube-proxy", "kube-system")["status"]["numberReady"] = 2


@fault("kube-proxy-ready", eks, "DaemonSet kube-system/aws-node", "spec.template.spec.containers[1].args[1]")
def kube_proxy_missing(world: World) -> None:
    world.remove("DaemonSet", "kube-proxy", "kube-system")
    for pod in [p for p in world.of("Pod") if p["metadata"]["name"].startswith("kube-proxy")]:
        world.remove("Pod", pod["metadata"]["name"], "kube-system")


@fault(
    "ipvs-scheduler",
    kubeadm,
    "ConfigMap kube-system/kube-proxy",
    "data[config.conf].ipvs.scheduler",
    severity=Severity.ERROR,
)
def unknown_scheduler(world: World) -> None:
    kube_proxy_conf(world, mode="ipvs", ipvs="scheduler: leastconn;strictARP: true")


@fault(
    "ipvs-scheduler",
    kubeadm,
    "ConfigMap kube-system/kube-proxy",
    "data[config.conf].ipvs.scheduler",
    severity=Severity.INFO,
)
def round_robin_for_streams(world: World) -> None:
    kube_proxy_conf(world, mode="ipvs", ipvs="scheduler: rr")


@fault("kube-proxy-sync", kubeadm, "ConfigMap kube-system/kube-proxy", "data[config.conf].iptables.minSyncPeriod")
def rules_lag_for_a_minute(world: World) -> None:
    kube_proxy_conf(world, iptables="minSyncPeriod: 60s")


@fault("kube-proxy-mode", known(kubeadm), "ConfigMap kube-system/kube-proxy", "")
def nodes_use_another_mode(world: World) -> None:
    kube_proxy_conf(world, mode="nftables", nftables="minSyncPeriod: 1s")


@fault("ipvs-modules", kubeadm, "Node worker1", "ipvs", also=("kube-proxy-drift",))
def ipvs_modules_missing(world: World) -> None:
    kube_proxy_conf(world, mode="ipvs", ipvs="scheduler: lc")
    world.rulesets.append(RulesetDump(node="worker1", t_ns=1, source="ipvs", text="", error="Protocol not available"))


@fault("kube-proxy-rule-count", known(kubeadm), "Node cp1", "iptables-nft")
def twenty_thousand_rules(world: World) -> None:
    dump = world.rulesets[0]
    more = "".join(f"-A KUBE-MARK-MASQ -s 10.9.{i // 250}.{i % 250}/32 -j RETURN\n" for i in range(20_000))
    world.rulesets[0] = RulesetDump(
        node=dump.node, t_ns=1, source=dump.source, text=dump.text.replace("COMMIT", more + "COMMIT")
    )


@fault("kube-proxy-drift", known(kubeadm), "Service chatbot/qdrant", "")
def rules_for_an_endpoint_that_is_gone(world: World) -> None:
    old = world.pods("qdrant")[0]["status"]["podIP"]
    dump = world.rulesets[0]
    world.rulesets[0] = RulesetDump(
        node=dump.node, t_ns=1, source=dump.source, text=dump.text.replace(old, "10.244.7.99")
    )


@fault("conntrack-insert-failed", known(kubeadm), "Node worker2", "conntrack-stats")
def conntrack_races(world: World) -> None:
    text = "cpu=0 found=12 invalid=3 insert=0 insert_failed=41 drop=0 early_drop=0 error=0 search_restart=2\n"
    world.rulesets.append(RulesetDump(node="worker2", t_ns=1, source="conntrack-stats", text=text))


def filter_table(world: World, *rules: str, node: str = "worker1", policy: str = "ACCEPT [0:0]") -> None:
    text = "\n".join(
        [
            "*filter",
            ":INPUT ACCEPT [0:0]",
            f":FORWARD {policy}",
            ":OUTPUT ACCEPT [0:0]",
            ":KUBE-FORWARD - [0:0]",
            "[9:540] -A FORWARD -j KUBE-FORWARD",
            *rules,
            "[7:420] -A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name x -j DROP",
            "COMMIT",
            "",
        ]
    )
    world.rulesets.append(RulesetDump(node=node, t_ns=1, source="iptables-legacy", text=text))


@fault("rule-of-nobody", known(kubeadm), "Node worker1", "filter/HARDENING[1]")
def rule_of_a_hardening_script(world: World) -> None:
    filter_table(
        world,
        ":HARDENING - [0:0]",
        "[9:540] -A FORWARD -j HARDENING",
        "[4:240] -A FORWARD -m conntrack --ctstate INVALID -j DROP",
        '[12:720] -A HARDENING -d 10.244.7.12/32 -p udp --dport 53 -m comment --comment "no udp" -j DROP',
    )


@fault("rule-of-nobody", known(kubeadm), "Node worker1", "filter/FORWARD")
def forward_policy_drops(world: World) -> None:
    filter_table(world, policy="DROP [31:1860]")


@fault("icmp-blocked", known(kubeadm), "Node worker1", "filter/OUTPUT[1]")
def fragmentation_needed_is_not_told(world: World) -> None:
    filter_table(
        world,
        "[0:0] -A OUTPUT -p icmp -m icmp --icmp-type 3/4 -j DROP",
        "[0:0] -A INPUT -p icmp -m icmp --icmp-type 8 -j DROP",
    )


def two_uplinks(world: World, strict: str) -> None:
    """worker1 reaches worker2's pods by eth1, and gets their packets by eth0."""
    pods = [p for p in world.of("Pod") if not p["spec"].get("hostNetwork")]
    index = {r.node: i for i, r in enumerate(world.reports)}
    for name, peer in (("worker1", "worker2"), ("worker2", "worker1")):
        host, other = (world.reports[index[n]].namespaces[0] for n in (name, peer))
        way = "eth1" if name == "worker1" else "eth0"
        second = msgspec.structs.replace(host.devices[0], name="eth1", ifindex=77, addresses=("198.51.100.7",))
        gateway = other.devices[0].addresses[0]
        routes = (
            Route("0.0.0.0/0", "eth0", "192.168.10.1"),
            *(Route(f"{p['status']['podIP']}/32", way, gateway) for p in pods if p["spec"]["nodeName"] == peer),
        )
        values = {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.eth0.rp_filter": strict}
        change_netns(
            world,
            index[name],
            0,
            routes=routes,
            sysctls={**host.sysctls, **values},
            devices=(*host.devices, second) if name == "worker1" else host.devices,
        )


@fault("reverse-path", known(kubeadm), "Node worker1", "net.ipv4.conf.eth0.rp_filter")
def strict_filter_and_another_way_back(world: World) -> None:
    two_uplinks(world, "1")


@fault("listen-queue", known(kubeadm), "Pod chatbot/my-llama-finetuned-5d9f7c6b8-a0x2k", "ListenOverflows")
def queue_is_full(world: World) -> None:
    uid = world.pods("my-llama-finetuned")[0]["metadata"]["uid"]
    for index, report in enumerate(world.reports):
        for number, netns in enumerate(report.namespaces):
            if uid in netns.pod_uids:
                change_netns(world, index, number, counters={"ListenOverflows": 31, "ListenDrops": 31})


@fault("conntrack-insert-failed", known(kubeadm), "Node worker2", "conntrack-stats", severity=Severity.INFO)
def conntrack_was_full_once(world: World) -> None:
    text = "cpu=0 found=12 invalid=3 insert=0 insert_failed=0 drop=93 early_drop=0 error=0 search_restart=2\n"
    world.rulesets.append(RulesetDump(node="worker2", t_ns=1, source="conntrack-stats", text=text))


@fault(
    "external-policy-local",
    known(kubeadm),
    "Service chatbot/chatbot-ui",
    "spec.externalTrafficPolicy",
    also=("kube-proxy-drift",),  # the balancer has an address without rules
    severity=Severity.WARNING,
)
def load_balancer_does_not_keep_away(world: World) -> None:
    world.get("Service", "chatbot-ui")["spec"] |= {
        "type": "LoadBalancer",
        "externalTrafficPolicy": "Local",
        "healthCheckNodePort": 32001,
    }
    world.get("Service", "chatbot-ui")["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}
    filter_table(
        world,
        ":KUBE-EXTERNAL-SERVICES - [0:0]",
        '[5:300] -A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "chatbot/chatbot-ui:http has no local '
        'endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j DROP',
        node="cp1",
    )


@fault("kube-proxy-twice", gke, "DaemonSet kube-system/kube-proxy", "data[kube-proxy-replacement]")
def kube_proxy_beside_cilium(world: World) -> None:
    build = Builder(world, {"gke-pool-1": "10.128.0.2"}, "10.8.9")
    daemon(build, "kube-proxy", "registry.k8s.io/kube-proxy:v1.31.4", ["gke-pool-1"])


@fault("kube-proxy-leftovers", gke, "Node gke-pool-1", "iptables-nft")
def rules_left_behind(world: World) -> None:
    other = kubeadm()
    knowledge(other)
    dump = other.rulesets[0]
    world.rulesets.append(RulesetDump(node="gke-pool-1", t_ns=1, source=dump.source, text=dump.text))


@fault("vpc-cni-strict", eks, "Deployment chatbot/chatbot-ui", "spec.template.spec.containers[0].env[3].value")
def strict_agent_and_no_policy(world: World) -> None:
    aws_env(world, "NETWORK_POLICY_ENFORCING_MODE", "strict")


@fault("drops-at-tc", eks, f"Node {N1}", "reason")
def dropped_by_a_tc_program(world: World) -> None:
    drop = packet(
        world, "chatbot-ui", "qdrant", 6333, PacketDropped, reason="TC_INGRESS", location="sch_handle_ingress"
    )
    world.packets.append(drop)


def sriov(world: World, network: str = "rdma-net", resource: str = "openshift.io/mlx_rdma") -> None:
    template = world.get("Deployment", "my-llama-finetuned")["spec"]["template"]
    template["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/networks": network}
    for spec in each(world, "Deployment", "my-llama-finetuned"):
        spec["containers"][0]["resources"]["limits"]["openshift.io/mlx_rdma"] = "1"
        spec["containers"][0]["securityContext"] = {"capabilities": {"add": ["IPC_LOCK"]}}
    definition = meta("rdma-net", NS)
    definition["annotations"]["k8s.v1.cni.cncf.io/resourceName"] = resource
    world.add(
        {"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": definition, "spec": {}}
    )
    for found in world.of("Node"):
        found["status"]["allocatable"] |= {"openshift.io/mlx_rdma": "4"}


@fault("sriov-invisible", kubeadm, MODEL, "spec.template.spec.containers[0].resources.requests[openshift.io/mlx_rdma]")
def traffic_past_the_kernel(world: World) -> None:
    sriov(world)


@fault(
    "sriov-network",
    kubeadm,
    MODEL,
    "spec.template.metadata.annotations[k8s.v1.cni.cncf.io/networks]",
    also=("sriov-invisible",),
)
def network_that_does_not_exist(world: World) -> None:
    sriov(world, network="rdma-nett")


@fault(
    "sriov-network", kubeadm, MODEL, "metadata.annotations[k8s.v1.cni.cncf.io/resourceName]", also=("sriov-invisible",)
)
def network_without_its_device(world: World) -> None:
    sriov(world, resource="openshift.io/other_vf")
