"""Faults that only the nodes know of: who listens, how often a limit stops DNS, how long kube-proxy takes."""

from __future__ import annotations

import msgspec

from kubectl_genainet.model.fabric import Fabric, RdmaDevice, RdmaPort
from kubectl_genainet.model.finding import Severity
from kubectl_genainet.model.node import ContainerCpu, KubeProxyState, Latency, Listener
from tests.unit.doctor.faults.case import N1, fault, known
from tests.unit.doctor.faults.dns import cache_without_its_address, dns_with_a_cpu_limit, kubeadm_nodelocal
from tests.unit.doctor.worlds.clusters import eks, kubeadm
from tests.unit.doctor.worlds.world import World, change_netns, change_report


def listen(world: World, app: str, *listeners: Listener) -> None:
    """What the servers of an application's pods listen on, as their nodes' agents tell."""
    uids = {p["metadata"]["uid"] for p in world.pods(app)}
    for index, report in enumerate(world.reports):
        for number, netns in enumerate(report.namespaces):
            if uids & set(netns.pod_uids):
                change_netns(world, index, number, tcp_listeners=listeners)


@fault("service-listener", known(eks), "Service chatbot/my-llama-svc", "listeners")
def server_on_another_port(world: World) -> None:
    listen(world, "my-llama-finetuned", Listener("0.0.0.0", 8000))


@fault("service-listener", known(kubeadm), "Service chatbot/rag-app", "listeners")
def server_that_crashed_behind_its_shell(world: World) -> None:
    listen(world, "rag-app")


@fault("service-listener", known(kubeadm), "Service chatbot/rag-app", "listeners")
def server_for_ipv6_only(world: World) -> None:
    listen(world, "rag-app", Listener("::", 80, v6only=True))


@fault("listen-loopback", known(eks), "Service chatbot/my-llama-svc", "listeners")
def server_on_loopback(world: World) -> None:
    listen(world, "my-llama-finetuned", Listener("127.0.0.1", 8080), Listener("::1", 8080))


def throttle(world: World, throttled: int) -> None:
    """A limit, and what its agents read of each replica's cgroup."""
    dns_with_a_cpu_limit.fault(world)
    for number, pod in enumerate(world.pods("kube-dns", "kube-system")):
        identity = f"{number:064x}"
        pod["status"]["containerStatuses"][0]["containerID"] = f"containerd://{identity}"
        index = next(i for i, r in enumerate(world.reports) if r.node == pod["spec"]["nodeName"])
        cpu = ContainerCpu(container=identity, periods=4100, throttled=throttled, throttled_us=throttled * 61_000)
        change_report(world, index, containers=(*world.reports[index].containers, cpu))


@fault(
    "coredns-cpu-limit", known(eks), "Deployment kube-system/coredns", "cpu.stat[nr_throttled]", severity=Severity.ERROR
)
def dns_stopped_by_its_limit(world: World) -> None:
    throttle(world, 900)


@fault(
    "coredns-cpu-limit",
    known(eks),
    "Deployment kube-system/coredns",
    "cpu.stat[nr_throttled]",
    severity=Severity.WARNING,
)
def dns_stopped_now_and_then(world: World) -> None:
    throttle(world, 40)


@fault(
    "coredns-cpu-limit", known(eks), "Deployment kube-system/coredns", "cpu.stat[nr_throttled]", severity=Severity.INFO
)
def dns_limit_that_was_never_reached(world: World) -> None:
    throttle(world, 0)


@fault(
    "coredns-cpu-limit", known(eks), "Deployment kube-system/coredns", "cpu.stat[nr_throttled]", severity=Severity.ERROR
)
def dns_stopped_by_a_limit_range(world: World) -> None:
    throttle(world, 900)
    del world.spec("Deployment", "coredns", "kube-system")["containers"][0]["resources"]["limits"]["cpu"]


@fault("nodelocal-address", kubeadm_nodelocal, "Node worker1", "listeners")
def cache_that_has_ended(world: World) -> None:
    cache_without_its_address.fault(world)
    host = world.reports[1].namespaces[0]
    dummy = msgspec.structs.replace(
        host.devices[0], name="nodelocaldns", kind="dummy", ifindex=50, addresses=("169.254.20.10",)
    )
    change_netns(world, 1, 0, devices=(*host.devices, dummy), udp_listeners=(Listener("10.96.0.10", 53),))


@fault("kube-proxy-latency", known(kubeadm), "Node worker2", "kubeproxy_sync_proxy_rules_duration_seconds")
def a_sync_takes_seconds(world: World) -> None:
    state = KubeProxyState(mode="iptables", syncs=Latency(5200, 4.096), programming=Latency(7, 15.0))
    change_report(world, 2, kube_proxy=state)


@fault("kube-proxy-latency", known(eks), f"Node {N1}", "kubeproxy_network_programming_duration_seconds")
def endpoints_change_late(world: World) -> None:
    state = KubeProxyState(mode="iptables", syncs=Latency(5200, 0.5), programming=Latency(900, 15.0))
    change_report(world, 0, kube_proxy=state)


@fault("nic-allowance", known(eks), f"Node {N1}", "eth0.conntrack_allowance_exceeded")
def connections_over_the_instances_allowance(world: World) -> None:
    change_host(world, {"eth0": {"conntrack_allowance_exceeded": 12, "bw_in_allowance_exceeded": 7}})


@fault("nic-allowance", known(eks), f"Node {N1}", "eth0.linklocal_allowance_exceeded")
def dns_over_the_instances_allowance(world: World) -> None:
    change_host(world, {"eth0": {"linklocal_allowance_exceeded": 3}})


def change_host(world: World, counters: dict[str, dict[str, int]]) -> None:
    index = next(i for i, r in enumerate(world.reports) if r.node == N1)
    number = next(i for i, n in enumerate(world.reports[index].namespaces) if n.host)
    change_netns(world, index, number, nic_counters=counters)


@fault("rdma-port-down", known(eks), f"Node {N1}", "rdmap0s6/ports/1/state")
def port_down_under_a_job(world: World) -> None:
    index = next(i for i, r in enumerate(world.reports) if r.node == N1)
    ports = (RdmaPort(number=1, state="DOWN", link_layer="Unspecified"),)
    unused = RdmaDevice(name="rdmap1s6", ports=ports, users=())
    devices = (RdmaDevice(name="rdmap0s6", ports=ports, users=((4026532000, 8),)), unused)
    change_report(world, index, fabric=Fabric(devices=devices))
