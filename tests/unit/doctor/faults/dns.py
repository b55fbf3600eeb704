"""Faults of CoreDNS, NodeLocal DNSCache and lookups."""

from __future__ import annotations

from typing import Any

import msgspec

from kubectl_genainet.doctor.inputs import DnsStats
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.faults.case import N1, fault, known, kube_proxy_conf, openai
from tests.unit.doctor.worlds.clusters import eks, kubeadm
from tests.unit.doctor.worlds.knowledge import knowledge
from tests.unit.doctor.worlds.world import Builder, World, change_netns, daemon, each, node


@fault("coredns-replicas", eks, "Deployment kube-system/coredns", "spec.replicas")
def one_replica(world: World) -> None:
    coredns = world.get("Deployment", "coredns", "kube-system")
    coredns["spec"]["replicas"] = coredns["status"]["readyReplicas"] = 1


@fault("coredns-autoscaler", kubeadm, "Deployment kube-system/coredns", "spec.replicas", severity=Severity.INFO)
def no_autoscaler(world: World) -> None:
    world.remove("Deployment", "dns-autoscaler", "kube-system")


@fault("coredns-spread", eks, "Deployment kube-system/coredns", "spec.nodeName")
def dns_on_one_node(world: World) -> None:
    for pod in world.pods("kube-dns", "kube-system"):
        pod["spec"]["nodeName"] = N1


@fault("coredns-ready", eks, "Deployment kube-system/coredns", "status.readyReplicas")
def dns_not_ready(world: World) -> None:
    world.get("Deployment", "coredns", "kube-system")["status"]["readyReplicas"] = 1


@fault(
    "coredns-cpu-limit", eks, "Deployment kube-system/coredns", "spec.template.spec.containers[0].resources.limits.cpu"
)
def dns_with_a_cpu_limit(world: World) -> None:
    world.spec("Deployment", "coredns", "kube-system")["containers"][0]["resources"]["limits"]["cpu"] = "100m"


@fault("coredns-monitored", eks, "ConfigMap kube-system/coredns", "data[Corefile]")
def corefile_without_metrics(world: World) -> None:
    data = world.get("ConfigMap", "coredns", "kube-system")["data"]
    data["Corefile"] = data["Corefile"].replace("    prometheus :9153\n", "")


def measured(**more: int) -> DnsStats:
    values: dict[str, Any] = {"queries": 400, "p50_ns": 700_000, "p99_ns": 9_000_000, **more}
    return DnsStats(client="chatbot/rag-app", name="", server="10.100.0.10", node=N1, **values)


DNS = "Deployment kube-system/coredns"


def eks_dns() -> World:
    world = eks()
    world.dns.append(measured())
    return world


@fault("dns-failures", eks_dns, DNS, "servfail", severity=Severity.ERROR)
def servfail(world: World) -> None:
    world.dns.append(measured(servfail=80))


@fault("dns-nxdomain", eks_dns, "Deployment chatbot/rag-app", "nxdomain")
def nxdomain_storm(world: World) -> None:
    world.dns.append(measured(nxdomain=300))


@fault("dns-latency", eks_dns, DNS, "p99_ns")
def slow_dns(world: World) -> None:
    world.dns.append(measured(p99_ns=2_100_000_000))


def nodelocal(world: World) -> None:
    names = {n["metadata"]["name"]: n["status"]["addresses"][0]["address"] for n in world.of("Node")}
    daemon(
        Builder(world, names, "10.0.9"), "node-local-dns", "registry.k8s.io/dns/k8s-dns-node-cache:1.25.0", list(names)
    )


def kubeadm_nodelocal() -> World:
    world = kubeadm()
    nodelocal(world)
    return world


@fault("nodelocal-absent", eks, DNS, "", also=("coredns-replicas",))
def sixty_nodes_without_a_cache(world: World) -> None:
    for index in range(60):
        world.add(
            node(
                f"ip-10-0-9-{index}.ec2.internal",
                f"10.0.9.{index}",
                zone="us-east-1a",
                kind="m5.xlarge",
                provider=f"aws:///us-east-1a/i-0fff{index}",
            )
        )


@fault(
    "nodelocal-bypassed", kubeadm_nodelocal, "Deployment chatbot/rag-app", "spec.template.spec.dnsConfig.nameservers"
)
def resolver_of_its_own(world: World) -> None:
    world.spec("Deployment", "rag-app").update({"dnsPolicy": "None", "dnsConfig": {"nameservers": ["8.8.8.8"]}})


@fault("nodelocal-bypassed", kubeadm_nodelocal, "ConfigMap kube-system/kubelet-config", "data[kubelet].clusterDNS")
def ipvs_and_the_services_address(world: World) -> None:
    kube_proxy_conf(world, mode="ipvs", ipvs="scheduler: lc")


@fault("nodelocal-listener", kubeadm, "Deployment chatbot/rag-app", "spec.template.spec.dnsConfig.nameservers")
def cache_asked_and_not_there(world: World) -> None:
    world.spec("Deployment", "rag-app")["dnsConfig"] = {"nameservers": ["169.254.20.10"]}


@fault("nodelocal-address", kubeadm_nodelocal, "Node worker1", "devices")
def cache_without_its_address(world: World) -> None:
    knowledge(world)
    for index in (0, 2):
        host = world.reports[index].namespaces[0]
        dummy = msgspec.structs.replace(
            host.devices[0], name="nodelocaldns", kind="dummy", ifindex=50, addresses=("169.254.20.10",)
        )
        change_netns(world, index, 0, devices=(*host.devices, dummy))


@fault("nodelocal-address", known(kubeadm), "Node worker1", "/etc/resolv.conf")
def kubelet_names_a_cache_that_is_not_there(world: World) -> None:
    asks = "search chatbot.svc.cluster.local\nnameserver 169.254.20.10\n"
    change_netns(world, 1, 1, resolv_conf=asks)


@fault("ndots", eks, "Deployment chatbot/rag-app", "spec.template.spec.dnsConfig.options[ndots].value")
def external_name_with_ndots_5(world: World) -> None:
    openai(world)
    for spec in each(world, "Deployment", "rag-app"):
        del spec["dnsConfig"]


@fault("dns-stalls", eks_dns, "Service kube-system/kube-dns", "stalled")
def five_second_stalls(world: World) -> None:
    world.dns.append(measured(stalled=3))


@fault("dns-search-waste", eks_dns, "Deployment chatbot/rag-app", "searched")
def measured_waste(world: World) -> None:
    world.dns.append(measured(searched=300, nxdomain=300))
