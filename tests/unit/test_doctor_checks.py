"""Every check: silent on a sound cluster, and exactly the expected finding once one thing is broken."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from doctor_world import (
    NOW,
    NS,
    Builder,
    World,
    change_netns,
    change_report,
    config_map,
    container,
    daemon,
    each,
    egress_policy,
    eks,
    event,
    gke,
    http_probe,
    ingress,
    knowledge,
    kubeadm,
    meta,
    node,
    policy,
    proxy_conf,
    training,
)  # fmt: skip

from kubectl_genainet.doctor.inputs import DnsStats
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import Outcome, Report
from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.model.events import PacketDropped, PacketSeen, Point, TcpFlags
from kubectl_genainet.model.finding import Certainty, Finding, Severity
from kubectl_genainet.model.node import ContainerCpu, KubeProxyState, Latency, Listener, Route, RulesetDump
from kubectl_genainet.model.packet import FiveTuple, Protocol

AWS = "service.beta.kubernetes.io/aws-load-balancer-"
N1 = "ip-10-0-1-10.ec2.internal"
GPU1 = "ip-10-0-1-20.ec2.internal"


@dataclass(frozen=True)
class Case:
    """One fault: the cluster it is made in, and what the finding must name. `also` are checks that follow from it."""

    check: str
    base: Callable[[], World]
    fault: Callable[[World], None]
    object: str
    field: str
    also: frozenset[str] = frozenset()
    severity: Severity | None = None
    name: str = ""


CASES: list[Case] = []


def fault(
    check: str,
    base: Callable[[], World],
    obj: str,
    path: str,
    *,
    also: tuple[str, ...] = (),
    severity: Severity | None = None,
) -> Callable[[Callable[[World], None]], Callable[[World], None]]:
    def decorate(function: Callable[[World], None]) -> Callable[[World], None]:
        CASES.append(Case(check, base, function, obj, path, frozenset(also), severity, function.__name__))
        return function

    return decorate


@functools.cache
def known(base: Callable[[], World], mtu: int = 1500) -> Callable[[], World]:
    def build() -> World:
        world = base()
        knowledge(world, mtu)
        return world

    return build


def eks_training() -> World:
    world = eks()
    training(world)
    return world


def eks_no_policies() -> World:
    world = eks()
    for found in world.of("NetworkPolicy"):
        world.remove("NetworkPolicy", found["metadata"]["name"])
    return world


# CNI and MTU


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


@fault("cni-overlay", kubeadm, "ConfigMap kube-flannel/kube-flannel-cfg", "data[net-conf.json].Backend.Type",
       also=("policy-not-enforced",))  # fmt: skip
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
    tunnel = _device(host.devices[0], name="vxlan0", kind="vxlan", ifindex=60, mtu=1450, addresses=())
    change_netns(world, 1, 0, devices=(*host.devices, tunnel))
    for number, netns in enumerate(world.reports[1].namespaces[1:], start=1):
        small = tuple(_device(d, mtu=1450) if d.name == "eth0" else d for d in netns.devices)
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
    change_netns(world, 0, 0, devices=(_device(eth0, mtu=1500), *rest))


@fault("mtu-mismatch", known(kubeadm), "Node cp1", "vxlan.calico.mtu")
def tunnel_without_room(world: World) -> None:
    host = world.reports[0].namespaces[0]
    tunnel = _device(host.devices[0], name="vxlan.calico", kind="vxlan", ifindex=9, mtu=1500, addresses=())
    change_netns(world, 0, 0, devices=(*host.devices, tunnel))


def _device(device: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(device, **changes)


@fault("mtu-nodes-differ", known(kubeadm), "Node worker2", "eth0.mtu")
def one_node_with_jumbo_frames(world: World) -> None:
    eth0, *rest = world.reports[2].namespaces[0].devices
    change_netns(world, 2, 0, devices=(_device(eth0, mtu=9000), *rest))


@fault("mtu-configured", kubeadm, "ConfigMap kube-system/calico-config", "data[veth_mtu]", also=("cni-overlay",))
def calico_mtu_of_a_bare_network(world: World) -> None:
    world.get("IPPool", "default-ipv4-ippool", "")["spec"]["vxlanMode"] = "Always"
    world.get("ConfigMap", "calico-config", "kube-system")["data"]["veth_mtu"] = "1500"


@fault("mtu-configured", eks, "DaemonSet kube-system/aws-node", "spec.template.spec.containers[0].env[3].value")
def eni_mtu_out_of_range(world: World) -> None:
    aws_env(world, "AWS_VPC_ENI_MTU", "9216")


def aws_env(world: World, name: str, value: str) -> None:
    env = world.spec("DaemonSet", "aws-node", "kube-system")["containers"][0]["env"]
    found = next((e for e in env if e["name"] == name), None)
    if found is None:
        env.append({"name": name, "value": value})
    else:
        found["value"] = value


# Pod IP set-up


@fault("pod-without-ip", eks, "Pod chatbot/rag-app-5d9f7c6b8-a0x2k", "status.podIP")
def pod_stuck_without_address(world: World) -> None:
    pod = world.pods("rag-app")[0]
    pod["status"] = {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T11:00:00Z"}]}  # fmt: skip
    world.add(event("FailedCreatePodSandBox", 'plugin type="aws-cni" failed (add): error', pod))


@fault("pod-ip-twice", eks, "Pod chatbot/rag-app-5d9f7c6b8-a0x2k", "status.podIP")
def two_pods_one_address(world: World) -> None:
    first, second = world.pods("rag-app")
    second["status"]["podIP"] = first["status"]["podIP"]
    second["status"]["podIPs"] = first["status"]["podIPs"]


def _pod_netns(world: World, name: str) -> tuple[int, int]:
    uid = world.pods(name)[0]["metadata"]["uid"]
    return next(
        (r, n) for r, report in enumerate(world.reports) for n, ns in enumerate(report.namespaces) if uid in ns.pod_uids
    )


@fault("pod-netns-mismatch", known(eks), "Pod chatbot/qdrant-0", "status.podIPs")
def address_not_in_the_namespace(world: World) -> None:
    where = _pod_netns(world, "qdrant")
    lo, eth0 = world.reports[where[0]].namespaces[where[1]].devices
    change_netns(world, *where, devices=(lo, _device(eth0, addresses=("10.0.7.250",))))


@fault("pod-device-down", known(eks), "Pod chatbot/qdrant-0", "devices")
def veth_peer_gone(world: World) -> None:
    where = _pod_netns(world, "qdrant")
    lo, eth0 = world.reports[where[0]].namespaces[where[1]].devices
    change_netns(world, *where, devices=(lo, _device(eth0, peer_ifindex=999)))


@fault("pod-route-missing", known(eks), "Pod chatbot/qdrant-0", "routes")
def no_default_route(world: World) -> None:
    change_netns(world, *_pod_netns(world, "qdrant"), routes=())


@fault("node-forwarding-off", known(kubeadm), "Node worker1", "net.ipv4.ip_forward")
def forwarding_switched_off(world: World) -> None:
    change_netns(world, 1, 0, sysctls={"net.ipv4.ip_forward": "0"})


@fault("conntrack-fill", known(kubeadm), "Node worker1", "nf_conntrack_count", severity=Severity.ERROR)
def conntrack_full(world: World) -> None:
    change_netns(world, 1, 0, conntrack_count=262000)


@fault("node-network-unavailable", kubeadm, "Node worker2", "status.conditions[Ready]")
def cni_not_initialised(world: World) -> None:
    world.get("Node", "worker2", "")["status"]["conditions"] = [{
        "type": "Ready", "status": "False",
        "message": "container runtime network not ready: NetworkReady=false reason:NetworkPluginNotReady "
        "message:Network plugin "
        "returns error: cni plugin not initialized"}]  # fmt: skip


# Services and endpoints


@fault("service-selector", eks, "Service chatbot/qdrant", "spec.selector")
def selector_with_a_typo(world: World) -> None:
    world.get("Service", "qdrant")["spec"]["selector"] = {"app.kubernetes.io/name": "qdrnt"}


@fault("service-target-port", eks, "Service chatbot/rag-app", "spec.ports[0].targetPort", severity=Severity.ERROR)
def named_port_unknown(world: World) -> None:
    world.get("Service", "rag-app")["spec"]["ports"][0]["targetPort"] = "web"


@fault("service-target-port", eks, "Service chatbot/my-llama-svc", "spec.ports[0].targetPort",
    severity=Severity.WARNING,
       also=("policy-blocks-call",))  # fmt: skip
def target_port_of_another_server(world: World) -> None:
    world.get("Service", "my-llama-svc")["spec"]["ports"][0]["targetPort"] = 8000


@fault("service-protocol", eks, "Service chatbot/qdrant", "spec.ports[0].protocol", also=("service-endpoints",))
def udp_service_of_a_tcp_port(world: World) -> None:
    world.get("Service", "qdrant")["spec"]["ports"][0]["protocol"] = "UDP"
    world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"][0]["ports"][0]["protocol"] = "UDP"


@fault("service-endpoints", eks, "Service chatbot/my-llama-svc", "spec.ports[0]")
def no_endpoint_is_ready(world: World) -> None:
    for endpoint in world.get("EndpointSlice", "my-llama-svc-x7k2p")["endpoints"]:
        endpoint["conditions"]["ready"] = False
    for pod in world.pods("my-llama-finetuned"):
        pod["status"]["conditions"][1]["status"] = "False"


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


def finding(world: World, check: str) -> Finding:
    return next(f for f in world.report().findings if f.check == check)


def test_the_port_that_all_silent_pods_listen_on_is_the_remedy() -> None:
    world = known(eks)()
    listen(world, "my-llama-finetuned", Listener("0.0.0.0", 8000), Listener("127.0.0.1", 9000))
    found = finding(world, "service-listener")
    assert found.title == "nothing listens on TCP port 8080 in 2 of 2 ready pods"
    assert found.evidence[0].statement.endswith("listens on TCP port 8000")
    assert (found.evidence[0].certainty, found.evidence[0].node) == (Certainty.OBSERVED, GPU1)
    assert found.remedy is not None and '"path": "/spec/ports/0/targetPort", "value": 8000' in found.remedy.command


def test_a_server_that_listens_in_some_pods_only_is_counted() -> None:
    world = known(eks)()
    where = _pod_netns(world, "my-llama-finetuned")
    change_netns(world, *where, tcp_listeners=())
    assert finding(world, "service-listener").title == "nothing listens on TCP port 8080 in 1 of 2 ready pods"


def test_pods_of_which_no_agent_tells_the_sockets_are_not_checked() -> None:
    world = known(eks)()
    for index, report in enumerate(world.reports):
        for number in range(len(report.namespaces)):
            change_netns(world, index, number, tcp_listeners=None, udp_listeners=None)
    results = {r.check: r for r in world.report().checks}
    assert results["service-listener"].outcome is Outcome.NOT_CHECKED
    assert results["service-listener"].reasons[0].startswith("no agent told what listens in chatbot-ui-")


def test_a_server_behind_a_sidecar_may_listen_on_loopback() -> None:
    world = known(kubeadm)()
    listen(world, "my-llama-finetuned", Listener("127.0.0.1", 8080))
    for pod in world.pods("my-llama-finetuned"):
        pod["spec"]["containers"].append(container("linkerd-proxy", "cr.l5d.io/linkerd/proxy:edge-25.1.1"))
    assert "listen-loopback" not in {f.check for f in world.report().findings}


def external_name(world: World, target: str, **spec: Any) -> None:
    world.add({"apiVersion": "v1", "kind": "Service", "metadata": meta("embeddings", NS),
               "spec": {"type": "ExternalName", "externalName": target, **spec}})  # fmt: skip


@fault("external-name-address", eks, "Service chatbot/embeddings", "spec.externalName")
def external_name_is_an_address(world: World) -> None:
    external_name(world, "10.20.30.40")


@fault("external-name-port", eks, "Service chatbot/embeddings", "spec.ports[0].targetPort")
def external_name_maps_a_port(world: World) -> None:
    external_name(world, "embeddings.acme.net", ports=[{"name": "http", "port": 80, "targetPort": 8443}])


@fault("external-policy-local", kubeadm, "Service chatbot/frontend", "spec.externalTrafficPolicy")
def local_policy_on_node_ports(world: World) -> None:
    build = Builder(world, {}, "")
    build.next_service = 40
    world.add({**_plain_pod("frontend", "worker1")})
    build.service("frontend", NS, {"app": "frontend"}, [{"name": "http", "port": 80, "targetPort": 80,
        "nodePort": 30080}],
                  type="NodePort", externalTrafficPolicy="Local")  # fmt: skip


def _plain_pod(name: str, where: str, ip: str = "10.244.7.200") -> dict[str, Any]:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": meta(name, NS, {"app": name}),
        "spec": {"nodeName": where, "containers": [container("web", "nginx:1.27", 80)]},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready",
            "status": "True"}]},
    }  # fmt: skip


@fault("internal-policy-local", eks, "Service chatbot/my-llama-svc", "spec.internalTrafficPolicy")
def model_only_for_its_own_node(world: World) -> None:
    world.get("Service", "my-llama-svc")["spec"]["internalTrafficPolicy"] = "Local"


@fault("service-node-port", kubeadm, "Service chatbot/my-llama-svc", "spec.type")
def model_on_a_node_port(world: World) -> None:
    spec = world.get("Service", "my-llama-svc")["spec"]
    spec["type"] = "NodePort"
    spec["ports"][0]["nodePort"] = 31080


@fault("vector-database-exposed", kubeadm, "Service chatbot/qdrant", "spec.type")
def qdrant_to_the_world(world: World) -> None:
    service = world.get("Service", "qdrant")
    service["spec"]["type"] = "LoadBalancer"
    service["status"]["loadBalancer"] = {"ingress": [{"ip": "192.0.2.10"}]}


@fault("load-balancer-pending", eks, "Service chatbot/chatbot-ui", "status.loadBalancer.ingress")
def nlb_without_an_address(world: World) -> None:
    world.get("Service", "chatbot-ui")["status"]["loadBalancer"] = {}


# NLB and health checks


def notes(world: World) -> dict[str, str]:
    found: dict[str, str] = world.get("Service", "chatbot-ui")["metadata"]["annotations"]
    return found


@fault("nlb-target-type", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}nlb-target-type]")
def target_type_absent(world: World) -> None:
    del notes(world)[AWS + "nlb-target-type"]


@fault("nlb-target-type", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}nlb-target-type]")
def target_type_instance(world: World) -> None:
    notes(world)[AWS + "nlb-target-type"] = "instance"


@fault("nlb-legacy", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}type]")
def in_tree_nlb(world: World) -> None:
    del world.get("Service", "chatbot-ui")["spec"]["loadBalancerClass"]
    notes(world)[AWS + "type"] = "nlb"


@fault("nlb-controller", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}type]")
def controller_not_installed(world: World) -> None:
    world.remove("Deployment", "aws-load-balancer-controller", "kube-system")


@fault("nlb-idle-timeout", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}listener-attributes.TCP-80]")
def idle_timeout_left_at_350_s(world: World) -> None:
    del notes(world)[AWS + "listener-attributes.TCP-80"]


@fault("nlb-cross-zone", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}attributes]")
def targets_in_one_zone(world: World) -> None:
    for endpoint in world.get("EndpointSlice", "chatbot-ui-x7k2p")["endpoints"]:
        endpoint["nodeName"] = N1


MODEL = "Deployment chatbot/my-llama-finetuned"


@fault("readiness-probe", eks, MODEL, "spec.template.spec.containers[0].readinessProbe")
def no_readiness_probe(world: World) -> None:
    del world.spec("Deployment", "my-llama-finetuned")["containers"][0]["readinessProbe"]


@fault("readiness-probe-model", eks, MODEL, "spec.template.spec.containers[0].readinessProbe.tcpSocket")
def readiness_by_tcp(world: World) -> None:
    world.spec("Deployment", "my-llama-finetuned")["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}}


@fault("readiness-probe-model", eks, MODEL, "spec.template.spec.containers[0].readinessProbe.httpGet.path")
def readiness_asks_for_liveness(world: World) -> None:
    for spec in each(world, "Deployment", "my-llama-finetuned"):
        spec["containers"][0] |= {"image": "nvcr.io/nvidia/tritonserver:25.01-py3", "args": [],
                                  "readinessProbe": http_probe("/v2/health/live", 8080)}  # fmt: skip


@fault("startup-budget", eks, MODEL, "spec.template.spec.containers[0].livenessProbe")
def liveness_shorter_than_the_measured_load(world: World) -> None:
    model = world.spec("Deployment", "my-llama-finetuned")["containers"][0]
    del model["startupProbe"]
    model["livenessProbe"] |= {"failureThreshold": 15}  # 150 s; the pods took 150 s


@fault("startup-budget", eks, MODEL, "spec.template.spec.containers[0].startupProbe")
def startup_probe_kills_the_loading_model(world: World) -> None:
    world.spec("Deployment", "my-llama-finetuned")["containers"][0]["startupProbe"]["failureThreshold"] = 3
    for pod in world.pods("my-llama-finetuned"):
        pod["status"]["containerStatuses"][0]["restartCount"] = 4


@fault("nlb-health-check", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}healthcheck-protocol]")
def health_check_left_at_tcp(world: World) -> None:
    for key in ("protocol", "path", "port"):
        del notes(world)[f"{AWS}healthcheck-{key}"]


@fault("nlb-health-check", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}healthcheck-path]")
def health_check_of_another_path(world: World) -> None:
    notes(world)[AWS + "healthcheck-path"] = "/ping"


@fault("nlb-readiness-gate", eks, "Namespace chatbot", "metadata.labels[elbv2.k8s.aws/pod-readiness-gate-inject]")
def no_readiness_gate(world: World) -> None:
    del world.get("Namespace", NS, "")["metadata"]["labels"]["elbv2.k8s.aws/pod-readiness-gate-inject"]


@fault(
    "nlb-health-threshold",
    eks,
    "Service chatbot/chatbot-ui",
    f"metadata.annotations[{AWS}healthcheck-unhealthy-threshold]",
)
def load_balancer_gives_up_early(world: World) -> None:
    notes(world).update({AWS + "healthcheck-unhealthy-threshold": "2", AWS + "healthcheck-interval": "5"})


# Ingress


@fault("ingress-backend", kubeadm, "Ingress chatbot/chat", "spec.rules[0].http.paths[0].backend.service.name")
def ingress_to_no_service(world: World) -> None:
    world.get("Ingress", "chat")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "chat-ui"


@fault("ingress-backend", kubeadm, "Ingress chatbot/chat", "spec.rules[0].http.paths[0].backend.service.port.number")
def ingress_to_no_port(world: World) -> None:
    world.get("Ingress", "chat")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"]["number"] = 8080


@fault("ingress-controller", kubeadm, "Ingress chatbot/chat", "spec.ingressClassName")
def ingress_of_an_unknown_class(world: World) -> None:
    world.get("Ingress", "chat")["spec"]["ingressClassName"] = "haproxy"
    world.get("Ingress", "chat")["metadata"]["annotations"]["haproxy.org/timeout-server"] = "3600s"


@fault("ingress-controller", kubeadm, "Ingress chatbot/chat", "spec.controller")
def ingress_controller_gone(world: World) -> None:
    world.remove("Deployment", "ingress-nginx-controller", "ingress-nginx")


@fault("ingress-tls", kubeadm, "Ingress chatbot/chat", "spec.tls[0].secretName")
def tls_secret_missing(world: World) -> None:
    world.remove("Secret", "chat-tls")


def certificate(world: World, ready: str) -> None:
    """As on a live cluster: Secrets are never read, cert-manager's Certificates are."""
    world.remove("Secret", "chat-tls")
    world.left_out.append(LeftOut("Secret", "never read"))
    world.add({"apiVersion": "cert-manager.io/v1", "kind": "Certificate", "metadata": meta("chat", NS),
               "spec": {"secretName": "chat-tls"},
               "status": {"conditions": [{"type": "Ready", "status": ready, "message": "waiting for it"}]}})  # fmt: skip


@fault("ingress-tls", kubeadm, "Ingress chatbot/chat", "status.conditions[Ready]")
def certificate_not_issued(world: World) -> None:
    certificate(world, "False")


def test_tls_secrets_of_a_live_cluster_are_known_by_their_certificates_only() -> None:
    world = kubeadm()
    certificate(world, "True")
    assert world.report().findings == ()
    world.remove("Certificate", "chat")
    unchecked = {n.what: n.reason for n in world.report().not_checked}
    assert unchecked["ingress-tls"].startswith(
        "Secret chatbot/chat-tls of Ingress chatbot/chat: Secret could not be read"
    )


def test_objects_of_the_namespace_that_is_judged_are_enough_for_checks_of_that_namespace() -> None:
    world = eks()
    world.namespace = NS
    world.get("Service", "qdrant")["spec"]["selector"] = {"app.kubernetes.io/name": "qdrnt"}
    world.left_out += [LeftOut(k, "not listed", NS) for k in ("Service", "Pod", "EndpointSlice", "NetworkPolicy")]
    outcomes = {r.check: r.outcome for r in world.report().checks}
    assert outcomes["service-selector"] is Outcome.FOUND
    assert outcomes["policy-none"] is Outcome.PASSED
    assert outcomes["policy-blocks-call"] is Outcome.NOT_CHECKED  # another namespace's pods may be its callers
    world.namespace = ""
    assert {r.check: r.outcome for r in world.report().checks}["service-selector"] is Outcome.NOT_CHECKED


@fault(
    "ingress-buffering",
    kubeadm,
    "Ingress chatbot/chat",
    "metadata.annotations[nginx.ingress.kubernetes.io/proxy-buffering]",
)
def tokens_are_buffered(world: World) -> None:
    world.get("Ingress", "chat")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] = "on"


@fault("ingress-stream-timeout", kubeadm, "Ingress chatbot/chat",
       "metadata.annotations[nginx.ingress.kubernetes.io/proxy-read-timeout]")  # fmt: skip
def streams_cut_after_a_minute(world: World) -> None:
    world.get("Ingress", "chat")["metadata"]["annotations"] = {}


def alb(world: World) -> None:
    world.add(
        {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": meta("alb"),
         "spec": {"controller": "ingress.k8s.aws/alb"}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("model-tls", NS)},
        ingress("model", "model.acme.test", "my-llama-svc", 80, cls="alb"),
    )  # fmt: skip
    world.get("Ingress", "model")["metadata"]["annotations"] = {
        "alb.ingress.kubernetes.io/target-type": "ip",
        "alb.ingress.kubernetes.io/load-balancer-attributes": "idle_timeout.timeout_seconds=4000",
    }


def eks_alb() -> World:
    world = eks()
    alb(world)
    return world


@fault("ingress-stream-timeout", eks_alb, "Ingress chatbot/model",
       "metadata.annotations[alb.ingress.kubernetes.io/load-balancer-attributes]")  # fmt: skip
def alb_idle_timeout(world: World) -> None:
    del world.get("Ingress", "model")["metadata"]["annotations"]["alb.ingress.kubernetes.io/load-balancer-attributes"]


@fault("alb-target-type", eks_alb, "Ingress chatbot/model",
    "metadata.annotations[alb.ingress.kubernetes.io/target-type]",
       severity=Severity.ERROR)  # fmt: skip
def alb_to_instances(world: World) -> None:
    del world.get("Ingress", "model")["metadata"]["annotations"]["alb.ingress.kubernetes.io/target-type"]


@fault("ingress-path-conflict", kubeadm, "Ingress chatbot/chat-two", "spec.rules[0].http.paths[0].backend.service.name")
def two_ingresses_one_path(world: World) -> None:
    world.add(ingress("chat-two", "chat.acme.test", "rag-app", 80),
              {"apiVersion": "v1", "kind": "Secret", "metadata": meta("chat-two-tls", NS)})  # fmt: skip


@fault("ingress-path-conflict", kubeadm, "Ingress chatbot/chat-canary",
       "metadata.annotations[nginx.ingress.kubernetes.io/canary]")  # fmt: skip
def canary_without_a_main_ingress(world: World) -> None:
    world.add(ingress("chat-canary", "canary.acme.test", "rag-app", 80),
              {"apiVersion": "v1", "kind": "Secret", "metadata": meta("chat-canary-tls", NS)})  # fmt: skip
    world.get("Ingress", "chat-canary")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary"] = "true"


# Gateway API


@fault("gateway-accepted", gke, "Gateway chatbot/inference", "status.conditions[Programmed].status")
def gateway_not_programmed(world: World) -> None:
    world.get("Gateway", "inference")["status"]["conditions"][1] |= {"status": "False", "reason": "AddressNotAssigned"}


@fault("route-accepted", gke, "HTTPRoute chatbot/my-llama", "status.parents[0].conditions[Accepted].status")
def route_refused(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["status"]["parents"][0]["conditions"][0] |= {
        "status": "False", "reason": "NotAllowedByListeners"}  # fmt: skip


@fault("route-accepted", gke, "HTTPRoute chatbot/my-llama", "spec.parentRefs[0].name")
def route_of_no_gateway(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["parentRefs"][0]["name"] = "inferences"


@fault("route-backend", gke, "HTTPRoute chatbot/my-llama", "spec.rules[0].backendRefs[0].name")
def route_to_no_pool(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["rules"][0]["backendRefs"][0]["name"] = "my-lama"


@fault("route-backend", gke, "HTTPRoute chatbot/my-llama", "spec.rules[0].backendRefs[0].port")
def route_to_no_port(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["rules"][0]["backendRefs"] = [{"name": "my-llama-svc", "port": 8080}]


@fault("reference-grant", gke, "HTTPRoute edge/my-llama", "spec.rules[0].backendRefs[0].namespace")
def route_without_a_grant(world: World) -> None:
    world.add({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute", "metadata": meta("my-llama", "edge"),
        "spec": {"parentRefs": [{"name": "inference", "namespace": NS}],
                 "rules": [{"backendRefs": [{"name": "my-llama-svc", "namespace": NS, "port": 80}]}]},
    })  # fmt: skip


@fault("route-stream-timeout", gke, "HTTPRoute chatbot/my-llama", "spec.rules[0].timeouts.request")
def route_cuts_streams(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["rules"][0]["timeouts"] = {"request": "30s"}


@fault("inference-pool", gke, "InferencePool chatbot/my-llama", "spec.selector")
def pool_without_pods(world: World) -> None:
    world.get("InferencePool", "my-llama")["spec"]["selector"] = {"matchLabels": {"app": "vllm"}}


@fault("inference-pool", gke, "InferencePool chatbot/my-llama", "spec.targetPorts[0].number")
def pool_with_a_wrong_port(world: World) -> None:
    world.get("InferencePool", "my-llama")["spec"]["targetPorts"] = [{"number": 8000}]


@fault("inference-pool", gke, "InferencePool chatbot/my-llama", "spec.endpointPickerRef.name")
def pool_without_a_picker(world: World) -> None:
    world.get("InferencePool", "my-llama")["spec"]["endpointPickerRef"]["name"] = "epp"


# Service mesh


def sidecars(world: World, *names: str, proxy: str = "istio-proxy") -> None:
    for name in names:
        for pod in world.pods(name):
            pod["spec"]["containers"].append(container(proxy, "docker.io/istio/proxyv2:1.24.2"))
    build = Builder(world, {n["metadata"]["name"]: "192.168.10.11" for n in world.of("Node")}, "10.244.6")
    if ("Deployment", "istio-system", "istiod") not in world.objects:
        build.controller("Deployment", "istiod", "istio-system", {"app": "istiod"},
                         {"containers": [container("discovery", "docker.io/istio/pilot:1.24.2", 15012)]},
                         [world.of("Node")[0]["metadata"]["name"]])  # fmt: skip


ALL = ("chatbot-ui", "rag-app", "my-llama-finetuned", "qdrant")


def meshed() -> World:
    world = kubeadm()
    sidecars(world, *ALL)
    return world


def ambient() -> World:
    """Ambient with policies that admit HBONE."""
    world = kubeadm()
    world.get("Namespace", NS, "")["metadata"]["labels"]["istio.io/dataplane-mode"] = "ambient"
    names = [n["metadata"]["name"] for n in world.of("Node")]
    build = Builder(world, dict.fromkeys(names, "192.168.10.11"), "10.244.6")
    daemon(build, "ztunnel", "docker.io/istio/ztunnel:1.24.2", names, "istio-system")
    for found in world.of("NetworkPolicy"):
        found["spec"]["ingress"].append({"ports": [{"protocol": "TCP", "port": 15008}]})
    return world


@fault("mesh-sidecar", kubeadm, MODEL, "spec.containers[1].name")
def model_with_a_sidecar(world: World) -> None:
    sidecars(world, "my-llama-finetuned")


@fault("mesh-ambient", kubeadm, MODEL, "spec.template.metadata.labels[istio.io/dataplane-mode]")
def model_in_ambient(world: World) -> None:
    labels = world.get("Deployment", "my-llama-finetuned")["spec"]["template"]["metadata"]["labels"]
    labels["istio.io/dataplane-mode"] = "ambient"


@fault(
    "mesh-sidecar-missing",
    meshed,
    "Deployment chatbot/rag-app",
    "metadata.labels[istio-injection]",
    also=("mesh-sidecar",),
)
def injection_wanted_and_not_done(world: World) -> None:
    world.get("Namespace", NS, "")["metadata"]["labels"]["istio-injection"] = "enabled"
    for pod in world.pods("rag-app"):
        pod["spec"]["containers"].pop()


@fault("mesh-strict", meshed, MODEL, "spec.mtls.mode", also=("mesh-sidecar",))
def strict_mtls_and_a_plain_client(world: World) -> None:
    world.add({"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "metadata": meta("default", NS),
               "spec": {"mtls": {"mode": "STRICT"}}})  # fmt: skip
    for name in ("rag-app", "chatbot-ui"):
        for pod in world.pods(name):
            pod["spec"]["containers"].pop()
    world.get("Service", "rag-app")


@fault("mesh-policy-ports", ambient, "StatefulSet chatbot/qdrant", "spec.ingress", also=("mesh-ambient",))
def policy_forgets_hbone(world: World) -> None:
    world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"].pop()


@fault("mesh-policy-ports", meshed, "Deployment chatbot/rag-app", "spec.egress", also=("mesh-sidecar",))
def policy_forgets_istiod(world: World) -> None:
    dns = {"ports": [{"protocol": "UDP", "port": 53}]}
    world.add(egress_policy("rag-egress", "rag-app", dns, {"to": [{"podSelector": {}}]}))


@fault("mesh-double-balancing", meshed, "Ingress chatbot/chat",
       "metadata.annotations[nginx.ingress.kubernetes.io/service-upstream]", also=("mesh-sidecar",))  # fmt: skip
def nginx_and_mesh_both_balance(world: World) -> None:
    for pod in [p for p in world.of("Pod") if p["metadata"]["name"].startswith("ingress-nginx")]:
        pod["spec"]["containers"].append(container("istio-proxy", "docker.io/istio/proxyv2:1.24.2"))


# NetworkPolicy


@fault("policy-none", eks, "Namespace chatbot", "spec.template.metadata.labels[*]")
def qdrant_without_a_policy(world: World) -> None:
    world.remove("NetworkPolicy", "qdrant-ingress-policy")


@fault("policy-selects-nothing", eks, "NetworkPolicy chatbot/typo", "spec.podSelector")
def policy_for_nobody(world: World) -> None:
    world.add(policy("typo", "rag-apps", 80, "chatbot-ui"))


@fault("egress-without-dns", eks, "Deployment chatbot/rag-app", "spec.egress")
def egress_without_dns(world: World) -> None:
    world.add(egress_policy("rag-egress", "rag-app", {"to": [{"podSelector": {}}]}))


@fault("policy-not-enforced", eks, "DaemonSet kube-system/aws-node", "spec.template.spec.containers")
def policy_agent_off(world: World) -> None:
    world.spec("DaemonSet", "aws-node", "kube-system")["containers"][1]["args"][1] = "--enable-network-policy=false"


@fault("policy-service-port", eks, "NetworkPolicy chatbot/my-llama-ingress-policy", "spec.ingress[0].ports[0].port",
       also=("policy-blocks-call",))  # fmt: skip
def policy_names_the_services_port(world: World) -> None:
    world.get("NetworkPolicy", "my-llama-ingress-policy")["spec"]["ingress"][0]["ports"][0]["port"] = 80


@fault("policy-blocks-call", eks, "StatefulSet chatbot/qdrant", "spec.template.spec.containers[0].env[0].value")
def caller_not_admitted(world: World) -> None:
    rule = world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"][0]
    rule["from"][0]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] = "chatbot-ui"


@fault("policy-peer-nobody", eks, "NetworkPolicy chatbot/my-llama-ingress-policy", "spec.ingress[0].from",
       also=("policy-blocks-call",))  # fmt: skip
def rule_for_a_client_that_does_not_exist(world: World) -> None:
    rule = world.get("NetworkPolicy", "my-llama-ingress-policy")["spec"]["ingress"][0]
    rule["from"] = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "chat-ui"}}}]


@fault("policy-blocks-call", eks, "Deployment chatbot/chatbot-ui", "spec.egress")
def egress_forgets_the_model(world: World) -> None:
    label = "app.kubernetes.io/name"
    dns = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    rag = {"to": [{"podSelector": {"matchLabels": {label: "rag-app"}}}], "ports": [{"protocol": "TCP", "port": 80}]}
    world.add(egress_policy("ui-egress", "chatbot-ui", dns, rag))


@fault("policy-one-sided", eks, "Deployment chatbot/chatbot-ui", "spec.ingress[0].from")
def egress_forgets_a_call_that_only_a_policy_tells_of(world: World) -> None:
    for spec in each(world, "Deployment", "chatbot-ui"):
        env = spec["containers"][0]["env"]
        env[:] = [e for e in env if "my-llama-svc" not in e["value"]]
    egress_forgets_the_model(world)


@fault("external-policy-local", eks, "Service chatbot/chatbot-ui", "spec.externalTrafficPolicy", severity=Severity.INFO)
def load_balancer_keeps_away_from_nodes(world: World) -> None:
    world.get("Service", "chatbot-ui")["spec"] |= {"externalTrafficPolicy": "Local", "healthCheckNodePort": 32001}


def packet(world: World, client: str, server: str, port: int, cls: Any, **more: Any) -> Any:
    source, target = world.pods(client)[0], world.pods(server)[0]
    flow = FiveTuple(source["status"]["podIP"], 40000, target["status"]["podIP"], port, Protocol.TCP)
    seen = {"node": target["spec"]["nodeName"], "t_ns": 1, "netns": 0, "ifindex": 3, "device": "eth0", "skb": 1,
        "flow": flow,
            "length": 60, "payload": 0, "ip_id": 1, "tcp": TcpFlags(1, 0, 2)}  # fmt: skip
    return cls(**{**seen, **more})


@fault("policy-against-traffic", known(eks), "Pod chatbot/qdrant-0", "verdict")
def dropped_although_admitted(world: World) -> None:
    world.packets.append(
        packet(world, "rag-app", "qdrant", 6333, PacketDropped, reason="NETFILTER_DROP", location="nft_do_chain")
    )


@fault("policy-against-traffic", known(eks), "Pod chatbot/qdrant-0", "verdict")
def arrived_although_not_admitted(world: World) -> None:
    report, netns = _pod_netns(world, "qdrant")
    inode = world.reports[report].namespaces[netns].inode
    world.packets.append(packet(world, "chatbot-ui", "qdrant", 6333, PacketSeen, point=Point.RX, netns=inode))


@fault("policy-open-to-all", eks, "NetworkPolicy chatbot/qdrant-ingress-policy", "spec.ingress[0]")
def policy_for_everyone(world: World) -> None:
    world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"] = [{}]


def statements(world: World, check: str) -> list[str]:
    return [e.statement for e in finding(world, check).evidence if e.certainty is Certainty.OBSERVED and e.node]


def test_a_mesh_in_the_path_is_observed_by_its_sockets_and_by_packets() -> None:
    world = known(kubeadm)()
    model_with_a_sidecar(world)
    listen(
        world, "my-llama-finetuned", Listener("0.0.0.0", 8080), Listener("0.0.0.0", 15001), Listener("0.0.0.0", 15006)
    )
    world.packets.append(packet(world, "chatbot-ui", "my-llama-finetuned", 15006, PacketSeen, point=Point.RX))
    listening, redirected = statements(world, "mesh-sidecar")
    assert listening == "a proxy listens on TCP 15001, 15006 inside it"
    assert redirected.startswith("redirect to the local proxy seen: ")
    ambient = known(kubeadm)()
    model_in_ambient(ambient)
    listen(ambient, "my-llama-finetuned", Listener("0.0.0.0", 8080), Listener("::", 15008))
    ambient.packets.append(packet(ambient, "chatbot-ui", "my-llama-finetuned", 15008, PacketSeen, point=Point.RX))
    listening, hop = statements(ambient, "mesh-ambient")
    assert listening == "a proxy listens on TCP 15008 inside it"
    assert hop.startswith("HBONE seen: ")


def test_encapsulation_is_observed_where_a_packet_was_seen_inside_a_tunnel() -> None:
    world = known(kubeadm)()
    flannel(world)
    outer = FiveTuple("192.168.10.12", 50000, "192.168.10.13", 8472, Protocol.UDP)
    world.packets.append(packet(world, "chatbot-ui", "qdrant", 6333, PacketSeen, point=Point.TX, tunnel=outer))
    assert f"was seen inside {outer}" in statements(world, "cni-overlay")[0]


# FQDN and cluster-wide policy


def openai(world: World) -> None:
    for spec in each(world, "Deployment", "rag-app"):
        spec["containers"][0]["env"].append({"name": "FALLBACK_URL", "value": "https://api.openai.com/v1"})
        spec["dnsConfig"] = {"options": [{"name": "ndots", "value": "2"}]}


def cilium_policy(name: str, *egress: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": meta(name, NS),
            "spec": {"endpointSelector": {"matchLabels": {"app.kubernetes.io/name": "rag-app"}},
                "egress": list(egress)}}  # fmt: skip


DNS_RULE = {"toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}}],
            "toPorts": [{"ports": [{"port": "53", "protocol": "ANY"}],
                "rules": {"dns": [{"matchPattern": "*"}]}}]}  # fmt: skip
INSIDE = {"toEntities": ["cluster"]}
NAMED = {"toFQDNs": [{"matchName": "api.openai.com"}], "toPorts": [{"ports": [{"port": "443", "protocol": "TCP"}]}]}


@fault("policy-not-evaluated", gke, "CiliumNetworkPolicy chatbot/rag-egress", "spec.egress[2].toFQDNs")
def names_in_a_policy(world: World) -> None:
    openai(world)
    world.add(cilium_policy("rag-egress", DNS_RULE, INSIDE, NAMED))


@fault(
    "cilium-fqdn-dns",
    gke,
    "CiliumNetworkPolicy chatbot/rag-egress",
    "spec.egress[1].toFQDNs",
    also=("policy-not-evaluated",),
)
def names_without_the_dns_rule(world: World) -> None:
    openai(world)
    world.add(cilium_policy("rag-egress", INSIDE, NAMED))


@fault("policy-kind-unenforced", kubeadm, "CiliumNetworkPolicy chatbot/left", "apiVersion")
def cilium_policy_under_calico(world: World) -> None:
    world.add(cilium_policy("left", DNS_RULE, INSIDE, {"toEntities": ["world"]}))


@fault("fqdn-egress", eks, "Deployment chatbot/rag-app", "spec.template.spec.containers[0].env[2].value")
def api_on_the_internet_not_admitted(world: World) -> None:
    openai(world)
    dns = {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}
    world.add(egress_policy("rag-egress", "rag-app", dns, {"to": [{"podSelector": {}}]}))


@fault(
    "fqdn-pinned", eks, "NetworkPolicy chatbot/rag-egress", "spec.egress[2].to[0].ipBlock.cidr", also=("fqdn-egress",)
)
def api_admitted_by_address(world: World) -> None:
    api_on_the_internet_not_admitted(world)
    rule = {"to": [{"ipBlock": {"cidr": "162.159.140.245/32"}}], "ports": [{"protocol": "TCP", "port": 443}]}
    world.get("NetworkPolicy", "rag-egress")["spec"]["egress"].append(rule)


# kube-proxy


def service_crowd(world: World, count: int) -> None:
    for index in range(count):
        name = f"svc-{index}"
        ip = f"10.101.{index // 250}.{index % 250 + 1}"
        world.add(
            {"apiVersion": "v1", "kind": "Service", "metadata": meta(name, "crowd"),
             "spec": {"type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ports": [{"port": 80}]}},
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
             "metadata": meta(f"{name}-a", "crowd", {"kubernetes.io/service-name": name}), "ports": [{"name": "",
                 "port": 80}],
             "endpoints": [{"addresses": [f"10.102.{index // 250}.{index % 250 + 1}"], "conditions": {"ready": True}}]},
        )  # fmt: skip


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


def kube_proxy_conf(world: World, **changes: str) -> None:
    world.get("ConfigMap", "kube-proxy", "kube-system")["data"]["config.conf"] = proxy_conf(**changes)


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


@fault("kube-proxy-latency", known(kubeadm), "Node worker2", "kubeproxy_sync_proxy_rules_duration_seconds")
def a_sync_takes_seconds(world: World) -> None:
    state = KubeProxyState(mode="iptables", syncs=Latency(5200, 4.096), programming=Latency(7, 15.0))
    change_report(world, 2, kube_proxy=state)


@fault("kube-proxy-latency", known(eks), f"Node {N1}", "kubeproxy_network_programming_duration_seconds")
def endpoints_change_late(world: World) -> None:
    state = KubeProxyState(mode="iptables", syncs=Latency(5200, 0.5), programming=Latency(900, 15.0))
    change_report(world, 0, kube_proxy=state)


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
    text = "\n".join(["*filter", ":INPUT ACCEPT [0:0]", f":FORWARD {policy}", ":OUTPUT ACCEPT [0:0]",
        ":KUBE-FORWARD - [0:0]", "[9:540] -A FORWARD -j KUBE-FORWARD", *rules,
        "[7:420] -A KUBE-FORWARD -m conntrack --ctstate INVALID -m nfacct --nfacct-name x -j DROP", "COMMIT", ""])  # fmt: skip
    world.rulesets.append(RulesetDump(node=node, t_ns=1, source="iptables-legacy", text=text))


@fault("rule-of-nobody", known(kubeadm), "Node worker1", "filter/HARDENING[1]")
def rule_of_a_hardening_script(world: World) -> None:
    filter_table(world, ":HARDENING - [0:0]", "[9:540] -A FORWARD -j HARDENING",
                 "[4:240] -A FORWARD -m conntrack --ctstate INVALID -j DROP",
                 '[12:720] -A HARDENING -d 10.244.7.12/32 -p udp --dport 53 -m comment --comment "no udp" -j DROP')  # fmt: skip


@fault("rule-of-nobody", known(kubeadm), "Node worker1", "filter/FORWARD")
def forward_policy_drops(world: World) -> None:
    filter_table(world, policy="DROP [31:1860]")


@fault("icmp-blocked", known(kubeadm), "Node worker1", "filter/OUTPUT[1]")
def fragmentation_needed_is_not_told(world: World) -> None:
    filter_table(world, "[0:0] -A OUTPUT -p icmp -m icmp --icmp-type 3/4 -j DROP",
                 "[0:0] -A INPUT -p icmp -m icmp --icmp-type 8 -j DROP")  # fmt: skip


def two_uplinks(world: World, strict: str) -> None:
    """worker1 reaches worker2's pods by eth1, and gets their packets by eth0."""
    pods = [p for p in world.of("Pod") if not p["spec"].get("hostNetwork")]
    index = {r.node: i for i, r in enumerate(world.reports)}
    for name, peer in (("worker1", "worker2"), ("worker2", "worker1")):
        host, other = (world.reports[index[n]].namespaces[0] for n in (name, peer))
        way = "eth1" if name == "worker1" else "eth0"
        second = _device(host.devices[0], name="eth1", ifindex=77, addresses=("198.51.100.7",))
        gateway = other.devices[0].addresses[0]
        routes = (
            Route("0.0.0.0/0", "eth0", "192.168.10.1"),
            *(Route(f"{p['status']['podIP']}/32", way, gateway) for p in pods if p["spec"]["nodeName"] == peer),
        )
        values = {"net.ipv4.conf.all.rp_filter": "0", "net.ipv4.conf.eth0.rp_filter": strict}
        change_netns(world, index[name], 0, routes=routes, sysctls={**host.sysctls, **values},
                     devices=(*host.devices, second) if name == "worker1" else host.devices)  # fmt: skip


@fault("reverse-path", known(kubeadm), "Node worker1", "net.ipv4.conf.eth0.rp_filter")
def strict_filter_and_another_way_back(world: World) -> None:
    two_uplinks(world, "1")


def test_another_way_back_is_no_fault_while_the_filter_is_loose() -> None:
    world = known(kubeadm)()
    two_uplinks(world, "2")
    assert world.report().findings == ()


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


@fault("external-policy-local", known(kubeadm), "Service chatbot/chatbot-ui", "spec.externalTrafficPolicy",
       severity=Severity.WARNING)  # fmt: skip
def load_balancer_does_not_keep_away(world: World) -> None:
    world.get("Service", "chatbot-ui")["spec"] |= {
        "type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32001}  # fmt: skip
    world.get("Service", "chatbot-ui")["status"] = {"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}}
    filter_table(world, ":KUBE-EXTERNAL-SERVICES - [0:0]",
                 '[5:300] -A KUBE-EXTERNAL-SERVICES -p tcp -m comment --comment "chatbot/chatbot-ui:http has no local '
                 'endpoints" -m addrtype --dst-type LOCAL -m tcp --dport 30080 -j DROP', node="cp1")  # fmt: skip


# IP exhaustion


@fault("ip-exhausted", eks, "Pod chatbot/rag-app-5d9f7c6b8-a0x2k", "message")
def no_addresses_left(world: World) -> None:
    message = ('Failed to create pod sandbox: plugin type="aws-cni" name="aws-cni" failed (add): add cmd: '
        'failed to assign an IP '
               "address to container")  # fmt: skip
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
    world.add({"apiVersion": "crd.k8s.amazonaws.com/v1alpha1", "kind": "ENIConfig", "metadata": meta("us-east-1b"),
               "spec": {"subnet": "subnet-0b", "securityGroups": ["sg-0a"]}})  # fmt: skip


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
    world.add({"apiVersion": "ec2.services.k8s.aws/v1alpha1", "kind": "Subnet", "metadata": meta("pods-a", "infra"),
               "spec": {"cidrBlock": "10.0.1.0/24"}, "status": {"availableIPAddressCount": 7}})  # fmt: skip


# eBPF data planes


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


# SR-IOV


def sriov(world: World, network: str = "rdma-net", resource: str = "openshift.io/mlx_rdma") -> None:
    template = world.get("Deployment", "my-llama-finetuned")["spec"]["template"]
    template["metadata"]["annotations"] = {"k8s.v1.cni.cncf.io/networks": network}
    for spec in each(world, "Deployment", "my-llama-finetuned"):
        spec["containers"][0]["resources"]["limits"]["openshift.io/mlx_rdma"] = "1"
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


# CoreDNS


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


def throttle(world: World, throttled: int) -> None:
    """A limit, and what its agents read of each replica's cgroup."""
    dns_with_a_cpu_limit(world)
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


@fault("coredns-cpu-limit", known(eks), "Deployment kube-system/coredns", "cpu.stat[nr_throttled]",
       severity=Severity.WARNING)  # fmt: skip
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


# NodeLocal DNSCache


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
        world.add(node(f"ip-10-0-9-{index}.ec2.internal", f"10.0.9.{index}", zone="us-east-1a", kind="m5.xlarge",
                       provider=f"aws:///us-east-1a/i-0fff{index}"))  # fmt: skip


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
        dummy = _device(host.devices[0], name="nodelocaldns", kind="dummy", ifindex=50, addresses=("169.254.20.10",))
        change_netns(world, index, 0, devices=(*host.devices, dummy))


@fault("nodelocal-address", kubeadm_nodelocal, "Node worker1", "listeners")
def cache_that_has_ended(world: World) -> None:
    cache_without_its_address(world)
    host = world.reports[1].namespaces[0]
    dummy = _device(host.devices[0], name="nodelocaldns", kind="dummy", ifindex=50, addresses=("169.254.20.10",))
    change_netns(world, 1, 0, devices=(*host.devices, dummy), udp_listeners=(Listener("10.96.0.10", 53),))


@fault("nodelocal-address", known(kubeadm), "Node worker1", "/etc/resolv.conf")
def kubelet_names_a_cache_that_is_not_there(world: World) -> None:
    asks = "search chatbot.svc.cluster.local\nnameserver 169.254.20.10\n"
    change_netns(world, 1, 1, resolv_conf=asks)


# Lookup habits


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


# Placement, EFA, GPU nodes


@fault("training-zones", eks_training, "StatefulSet chatbot/llama-train", "spec.nodeName", also=("efa-invisible",))
def training_over_zones(world: World) -> None:
    world.get("Node", "ip-10-0-3-11.ec2.internal", "")["metadata"]["labels"]["topology.kubernetes.io/zone"] = (
        "us-east-1b"
    )


@fault("training-placement", eks_training, "StatefulSet chatbot/llama-train",
       "metadata.labels[topology.k8s.aws/network-node-layer-3]", also=("efa-invisible",))  # fmt: skip
def training_over_placements(world: World) -> None:
    labels = world.get("Node", "ip-10-0-3-11.ec2.internal", "")["metadata"]["labels"]
    labels["topology.k8s.aws/network-node-layer-3"] = "nn-0ff"


@fault("cross-zone-calls", eks, "Service chatbot/my-llama-svc", "spec.trafficDistribution")
def any_zone_will_do(world: World) -> None:
    del world.get("Service", "my-llama-svc")["spec"]["trafficDistribution"]


P4D = "Node ip-10-0-3-10.ec2.internal"
TRAIN = "StatefulSet chatbot/llama-train"


@fault("efa-advertised", eks_training, P4D, "status.allocatable[vpc.amazonaws.com/efa]", also=("efa-invisible",))
def node_without_efa(world: World) -> None:
    del world.get("Node", "ip-10-0-3-10.ec2.internal", "")["status"]["allocatable"]["vpc.amazonaws.com/efa"]


@fault(
    "efa-plugin",
    eks_training,
    "DaemonSet kube-system/aws-efa-k8s-device-plugin",
    "status.numberReady",
    also=("efa-invisible",),
)
def efa_plugin_not_ready(world: World) -> None:
    world.get("DaemonSet", "aws-efa-k8s-device-plugin", "kube-system")["status"]["numberReady"] = 1


def train_container(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.spec("StatefulSet", "llama-train")["containers"][0]
    return found


@fault("efa-requested", eks_training, TRAIN, "spec.template.spec.containers[0].resources.limits[vpc.amazonaws.com/efa]")
def efa_not_requested(world: World) -> None:
    train_container(world)["resources"] = {"limits": {"nvidia.com/gpu": "8"}}
    train_container(world)["env"] = []


@fault("efa-hugepages", eks_training, TRAIN, "spec.template.spec.containers[0].resources.limits[hugepages-2Mi]",
       also=("efa-invisible",))  # fmt: skip
def efa_without_huge_pages(world: World) -> None:
    train_container(world)["resources"] = {"limits": {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "4"}}


@fault("nccl-settings", eks_training, TRAIN, "spec.template.spec.containers[0].env[1].value", also=("efa-invisible",))
def nccl_on_a_device_that_pods_lack(world: World) -> None:
    train_container(world)["env"][1]["value"] = "ens5"


@fault("nccl-settings", eks_training, TRAIN, "spec.template.spec.containers[0].env[0].value", also=("efa-invisible",))
def another_provider_than_efa(world: World) -> None:
    train_container(world)["env"][0]["value"] = "tcp"


@fault("efa-invisible", eks, TRAIN, "spec.template.spec.containers[0].resources.limits[vpc.amazonaws.com/efa]")
def efa_in_use(world: World) -> None:
    training(world)


@fault("efa-security-group", eks_training, "SecurityGroup infra/efa", "spec.egressRules", also=("efa-invisible",))
def group_without_itself(world: World) -> None:
    itself = {"ipProtocol": "-1", "userIDGroupPairs": [{"groupID": "sg-0efa"}]}
    world.add({"apiVersion": "ec2.services.k8s.aws/v1alpha1", "kind": "SecurityGroup", "metadata": meta("efa", "infra"),
               "spec": {"ingressRules": [itself], "egressRules": [{"ipProtocol": "-1",
                   "ipRanges": [{"cidrIP": "0.0.0.0/0"}]}]},
               "status": {"id": "sg-0efa"}})  # fmt: skip


@fault("gpu-advertised", eks, f"Node {GPU1}", "status.allocatable[nvidia.com/gpu]")
def device_plugin_missing(world: World) -> None:
    del world.get("Node", GPU1, "")["status"]["allocatable"]["nvidia.com/gpu"]


@fault("gpu-pending", eks, MODEL, "status.conditions[PodScheduled].message")
def no_gpu_left(world: World) -> None:
    pod = world.pods("my-llama-finetuned")[0]
    del pod["spec"]["nodeName"]
    pod["status"] = {"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/4 nodes are "
            "available: 4 Insufficient "
         "nvidia.com/gpu."}]}  # fmt: skip


@fault("gpu-node-taints", eks, "DaemonSet kube-system/kube-proxy", "spec.template.spec.tolerations")
def taint_not_tolerated(world: World) -> None:
    world.spec("DaemonSet", "kube-proxy", "kube-system")["tolerations"] = [
        {"key": "CriticalAddonsOnly", "operator": "Exists"}
    ]


@functools.cache
def sound_checks(base: Callable[[], World]) -> frozenset[str]:
    """The checks that find something before anything is broken."""
    return frozenset(f.check for f in base().report().findings)


@functools.cache
def report_on(case: Case) -> Report:
    world = case.base()
    case.fault(world)
    return world.report()


BASES = (eks, gke, kubeadm, known(eks, 9001), known(gke), known(kubeadm), eks_alb, eks_dns, kubeadm_nodelocal)


@pytest.mark.parametrize("base", BASES, ids=range(len(BASES)))
def test_a_sound_cluster_gives_no_finding(base: Callable[[], World]) -> None:
    assert [(f.check, str(f.object), f.title) for f in base().report().findings] == []


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.check}-{c.name}")
def test_a_fault_is_found_by_its_check_and_by_no_other(case: Case) -> None:
    report = report_on(case)
    found = [f for f in report.findings if f.check == case.check]
    assert {f.check for f in report.findings} == {case.check} | case.also
    assert case.check not in sound_checks(case.base)
    first = next((f for f in found if str(f.object) == case.object), None)
    assert first is not None, [str(f.object) for f in found]
    assert case.field in [e.field for e in first.evidence]
    assert case.severity in (None, first.severity)
    assert first.remedy is None or first.remedy.text


def test_every_check_has_a_fault_that_it_finds() -> None:
    assert {c.name for c in all_checks()} - {c.check for c in CASES} == set()


def test_a_sound_cluster_passes_every_check_that_it_has_the_knowledge_for() -> None:
    report = known(kubeadm)().report()
    unchecked = {r.check: r.reasons for r in report.checks if r.outcome is Outcome.NOT_CHECKED}
    assert {name for name in unchecked if not any("DNS" in r or "packets" in r for r in unchecked[name])} == set()


def test_findings_carry_the_time_of_the_snapshot() -> None:
    assert eks().report().taken_at == NOW


@pytest.mark.parametrize("check", ["dns-failures", "dns-nxdomain", "dns-search-waste"])
def test_a_client_of_few_queries_is_not_judged_by_shares(check: str) -> None:
    world = eks()
    world.dns.append(measured(queries=12, nxdomain=12, servfail=0))
    result = next(r for r in world.report().checks if r.check == check)
    assert (result.outcome, result.reasons) == (
        Outcome.NOT_CHECKED,
        ("fewer than 20 DNS queries by chatbot/rag-app: measure longer",),
    )
