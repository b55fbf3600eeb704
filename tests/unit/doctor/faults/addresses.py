"""Faults of CNIs, MTUs, pod addresses and address space."""

from __future__ import annotations

import json

import msgspec

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.faults.case import N1, aws_env, fault, known, pod_netns
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm
from tests.unit.doctor.worlds.world import Builder, World, change_netns, config_map, daemon, event, meta


def flannel(world: World, backend: str = "vxlan") -> None:
    """Flannel with kube-router's policy engine in place of Calico."""
    world.remove("DaemonSet", "calico-node", "kube-system")
    for pod in [p for p in world.of("Pod") if p["metadata"]["name"].startswith("calico-node")]:
        world.remove("Pod", pod["metadata"]["name"], "kube-system")
    world.remove("IPPool", "default-ipv4-ippool", "")
    names = [n["metadata"]["name"] for n in world.of("Node")]
    build = Builder(world, {n: f"192.168.10.{11 + i}" for i, n in enumerate(names)}, "10.244.9")
    daemon(build, "kube-flannel-ds", "docker.io/flannel/flannel:v0.26.2", names, "kube-flannel")
    conf = json.dumps({"Network": "10.244.0.0/16", "Backend": {"Type": backend}})
    world.add(config_map("kube-flannel-cfg", {"net-conf.json": conf}, "kube-flannel"))


@fault(
    "cni-overlay",
    kubeadm,
    "ConfigMap kube-flannel/kube-flannel-cfg",
    "data[net-conf.json].Backend.Type",
    also=("policy-not-enforced",),
)
def flannel_vxlan(world: World) -> None:
    flannel(world)


@fault("cni-overlay", kubeadm, "IPPool default-ipv4-ippool", "spec.ipipMode")
def calico_ipip(world: World) -> None:
    world.get("IPPool", "default-ipv4-ippool", "")["spec"]["ipipMode"] = "Always"


@fault("cni-overlay", known(kubeadm), "Node worker1", "devices", severity=Severity.INFO)
def tunnel_of_a_cni_that_nobody_knows(world: World) -> None:
    for kind, namespace, name in [k for k in world.objects if "calico" in k[2] or k[0] in ("IPPool", "DaemonSet")]:
        world.remove(kind, name, namespace)
    host = world.reports[1].namespaces[0]
    tunnel = msgspec.structs.replace(host.devices[0], name="vxlan0", kind="vxlan", ifindex=60, mtu=1450, addresses=())
    change_netns(world, 1, 0, devices=(*host.devices, tunnel))
    for number, netns in enumerate(world.reports[1].namespaces[1:], start=1):
        small = tuple(msgspec.structs.replace(d, mtu=1450) if d.name == "eth0" else d for d in netns.devices)
        change_netns(world, 1, number, devices=small)


@fault("cni-overlay", gke, "ConfigMap kube-system/cilium-config", "data[routing-mode]")
def cilium_tunnel(world: World) -> None:
    world.get("ConfigMap", "cilium-config", "kube-system")["data"] |= {
        "routing-mode": "tunnel",
        "tunnel-protocol": "geneve",
    }


@fault("cni-overlay", kubeadm, "ConfigMap kube-system/antrea-config", "data[antrea-agent.conf].trafficEncapMode")
def antrea_encap(world: World) -> None:
    flannel(world)
    world.remove("DaemonSet", "kube-flannel-ds", "kube-flannel")
    world.remove("ConfigMap", "kube-flannel-cfg", "kube-flannel")
    build = Builder(world, {"cp1": "192.168.10.11"}, "10.244.8")
    daemon(build, "antrea-agent", "antrea/antrea-agent-ubuntu:v2.2.0", ["cp1"])
    world.add(config_map("antrea-config", {"antrea-agent.conf": "#trafficEncapMode: noEncap\ntunnelType: geneve\n"}))


@fault("cni-overlay", kubeadm, "DaemonSet kube-system/weave-net", "metadata.name")
def weave(world: World) -> None:
    flannel(world)
    world.remove("DaemonSet", "kube-flannel-ds", "kube-flannel")
    build = Builder(world, {"cp1": "192.168.10.11"}, "10.244.8")
    daemon(build, "weave-net", "weaveworks/weave-kube:2.8.1", ["cp1"])


@fault("cni-several", eks, "DaemonSet kube-system/weave-net", "metadata.name", also=("cni-overlay",))
def leftover_weave(world: World) -> None:
    build = Builder(world, {N1: "10.0.1.10"}, "10.0.9")
    daemon(build, "weave-net", "weaveworks/weave-kube:2.8.1", [N1])


@fault("cni-not-ready", eks, "DaemonSet kube-system/aws-node", "status.numberReady")
def aws_node_down(world: World) -> None:
    world.get("DaemonSet", "aws-node", "kube-system")["status"]["numberReady"] = 3


@fault("mtu-mismatch", known(eks, 9001), f"Node {N1}", "eth0.mtu", also=("mtu-nodes-differ",))
def uplink_smaller_than_pods(world: World) -> None:
    host = world.reports[0].namespaces[0]
    eth0, *rest = host.devices
    change_netns(world, 0, 0, devices=(msgspec.structs.replace(eth0, mtu=1500), *rest))


@fault("mtu-mismatch", known(kubeadm), "Node cp1", "vxlan.calico.mtu")
def tunnel_without_room(world: World) -> None:
    host = world.reports[0].namespaces[0]
    tunnel = msgspec.structs.replace(
        host.devices[0], name="vxlan.calico", kind="vxlan", ifindex=9, mtu=1500, addresses=()
    )
    change_netns(world, 0, 0, devices=(*host.devices, tunnel))


@fault("mtu-nodes-differ", known(kubeadm), "Node worker2", "eth0.mtu")
def one_node_with_jumbo_frames(world: World) -> None:
    eth0, *rest = world.reports[2].namespaces[0].devices
    change_netns(world, 2, 0, devices=(msgspec.structs.replace(eth0, mtu=9000), *rest))


@fault("mtu-configured", kubeadm, "ConfigMap kube-system/calico-config", "data[veth_mtu]", also=("cni-overlay",))
def calico_mtu_of_a_bare_network(world: World) -> None:
    world.get("IPPool", "default-ipv4-ippool", "")["spec"]["vxlanMode"] = "Always"
    world.get("ConfigMap", "calico-config", "kube-system")["data"]["veth_mtu"] = "1500"


@fault("mtu-configured", eks, "DaemonSet kube-system/aws-node", "spec.template.spec.containers[0].env[3].value")
def eni_mtu_out_of_range(world: World) -> None:
    aws_env(world, "AWS_VPC_ENI_MTU", "9216")


@fault("pod-without-ip", eks, "Pod chatbot/rag-app-5d9f7c6b8-a0x2k", "status.podIP")
def pod_stuck_without_address(world: World) -> None:
    pod = world.pods("rag-app")[0]
    pod["status"] = {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T11:00:00Z"}],
    }
    world.add(event("FailedCreatePodSandBox", 'plugin type="aws-cni" failed (add): error', pod))


@fault("pod-ip-twice", eks, "Pod chatbot/rag-app-5d9f7c6b8-a0x2k", "status.podIP")
def two_pods_one_address(world: World) -> None:
    first, second = world.pods("rag-app")
    second["status"]["podIP"] = first["status"]["podIP"]
    second["status"]["podIPs"] = first["status"]["podIPs"]


@fault("pod-netns-mismatch", known(eks), "Pod chatbot/qdrant-0", "status.podIPs")
def address_not_in_the_namespace(world: World) -> None:
    where = pod_netns(world, "qdrant")
    lo, eth0 = world.reports[where[0]].namespaces[where[1]].devices
    change_netns(world, *where, devices=(lo, msgspec.structs.replace(eth0, addresses=("10.0.7.250",))))


@fault("pod-device-down", known(eks), "Pod chatbot/qdrant-0", "devices")
def veth_peer_gone(world: World) -> None:
    where = pod_netns(world, "qdrant")
    lo, eth0 = world.reports[where[0]].namespaces[where[1]].devices
    change_netns(world, *where, devices=(lo, msgspec.structs.replace(eth0, peer_ifindex=999)))


@fault("pod-route-missing", known(eks), "Pod chatbot/qdrant-0", "routes")
def no_default_route(world: World) -> None:
    change_netns(world, *pod_netns(world, "qdrant"), routes=())


@fault("node-forwarding-off", known(kubeadm), "Node worker1", "net.ipv4.ip_forward")
def forwarding_switched_off(world: World) -> None:
    change_netns(world, 1, 0, sysctls={"net.ipv4.ip_forward": "0"})


@fault("conntrack-fill", known(kubeadm), "Node worker1", "nf_conntrack_count", severity=Severity.ERROR)
def conntrack_full(world: World) -> None:
    change_netns(world, 1, 0, conntrack_count=262000)


@fault("node-network-unavailable", kubeadm, "Node worker2", "status.conditions[Ready]")
def cni_not_initialised(world: World) -> None:
    world.get("Node", "worker2", "")["status"]["conditions"] = [
        {
            "type": "Ready",
            "status": "False",
            "message": "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
            "message:Network plugin "
            "returns error: cni plugin not initialized",
        }
    ]


@fault("ip-exhausted", eks, "Pod chatbot/rag-app-5d9f7c6b8-a0x2k", "message")
def no_addresses_left(world: World) -> None:
    message = (
        'Failed to create pod sandbox: plugin type="aws-cni" name="aws-cni" failed (add): add cmd: '
        "failed to assign an IP "
        "address to container"
    )
    world.add(event("FailedCreatePodSandBox", message, world.pods("rag-app")[0]))


@fault("prefix-fragmented", eks, f"Node {N1}", "message")
def no_prefix_left(world: World) -> None:
    message = (
        "InsufficientCidrBlocks: The specified subnet does not have enough free cidr blocks to satisfy the request."
    )
    world.add(event("InsufficientCidrBlocks", message, world.get("Node", N1, "")))


@fault("pod-cidr-fill", gke, "Node gke-pool-1", "spec.podCIDR")
def range_smaller_than_the_pod_limit(world: World) -> None:
    world.get("Node", "gke-pool-1", "")["spec"]["podCIDR"] = "10.8.0.0/26"


@fault("node-pod-slots", eks, f"Node {N1}", "status.allocatable.pods")
def node_is_full(world: World) -> None:
    world.get("Node", N1, "")["status"]["allocatable"]["pods"] = "8"


@fault("max-pods-eni", eks, f"Node {N1}", "status.allocatable.pods")
def more_pods_than_addresses(world: World) -> None:
    world.get("Node", N1, "")["status"]["allocatable"]["pods"] = "110"


@fault("warm-targets", eks, "DaemonSet kube-system/aws-node", "spec.template.spec.containers[0].env[0].value")
def no_warm_interface(world: World) -> None:
    aws_env(world, "WARM_ENI_TARGET", "0")


@fault("eniconfig", eks, f"Node {N1}", "metadata.labels[topology.kubernetes.io/zone]")
def zone_without_an_eniconfig(world: World) -> None:
    aws_env(world, "AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG", "true")
    aws_env(world, "ENI_CONFIG_LABEL_DEF", "topology.kubernetes.io/zone")
    for found in world.of("Node"):
        found["status"]["allocatable"]["pods"] = "30"
    world.add(
        {
            "apiVersion": "crd.k8s.amazonaws.com/v1alpha1",
            "kind": "ENIConfig",
            "metadata": meta("us-east-1b"),
            "spec": {"subnet": "subnet-0b", "securityGroups": ["sg-0a"]},
        }
    )


@fault("vpc-cni-ipv6", eks, "DaemonSet kube-system/aws-node", "spec.template.spec.containers[0].env[3].value")
def ipv6_without_prefixes(world: World) -> None:
    aws_env(world, "ENABLE_IPv6", "true")


@fault("ip-family", kubeadm, "Service chatbot/my-llama-svc", "spec.ipFamilies[1]")
def dual_stack_service_with_one_family(world: World) -> None:
    world.get("Service", "my-llama-svc")["spec"] |= {
        "ipFamilies": ["IPv4", "IPv6"],
        "ipFamilyPolicy": "RequireDualStack",
    }


@fault("subnet-free-addresses", eks, "Subnet infra/pods-a", "status.availableIPAddressCount")
def subnet_nearly_used_up(world: World) -> None:
    world.add(
        {
            "apiVersion": "ec2.services.k8s.aws/v1alpha1",
            "kind": "Subnet",
            "metadata": meta("pods-a", "infra"),
            "spec": {"cidrBlock": "10.0.1.0/24"},
            "status": {"availableIPAddressCount": 7},
        }
    )
