"""Connections that arrive on another port, or from another address, than the client asked for: meshes, ports of nodes."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.target import parse_target
from kubectl_genainet.policy import PolicyEngine
from kubectl_genainet.policy.enforcers import named_enforcer
from kubectl_genainet.policy.flows.arrival import explain_arriving
from kubectl_genainet.policy.flows.targets import flows_between
from kubectl_genainet.policy.flows.tunnels import tunnel_of
from kubectl_genainet.policy.model import PolicyFlow
from kubectl_genainet.policy.reach.arriving import ArrivingMatrices
from tests.unit.policy.policy_cluster import Raw, end, engine, labels, namespace, netpol, node, pod, snapshot

NODES = (node("n1", "192.168.0.1"), node("n2", "192.168.0.2"))
REDIS, PROXY = netpol("ai/redis", ingress=[{"ports": [{"port": 6379}]}]), "cr.l5d.io/linkerd/proxy:"
TUNNEL = netpol("ai/tunnel", ingress=[{"ports": [{"port": 4143}]}])


def meshed(raw: Raw, image: str, **annotations: str) -> Raw:
    proxy = {"name": "linkerd-proxy", "image": image, "ports": [{"name": "linkerd-proxy", "containerPort": 4143}]}
    notes = {f"config.linkerd.io/{key.replace('_', '-')}": value for key, value in annotations.items()}
    metadata = {**raw["metadata"], "annotations": notes}
    spec = {**raw["spec"], "initContainers": [{**proxy, "restartPolicy": "Always"}]}
    return {**raw, "metadata": metadata, "spec": spec}


def mesh(tag: str, *policies: Raw, client: str | None = None, **annotations: str) -> PolicyEngine:
    chat = pod("ai/chat", "10.0.0.1", node="n1")
    store = meshed(pod("ai/store", "10.0.0.2", node="n2"), PROXY + tag, **annotations)
    return engine(namespace("ai"), chat if client == "" else meshed(chat, PROXY + (client or tag)), store, *policies)


def sent(judge: PolicyEngine, port: int, target: str = "ai/store") -> str:
    """The verdict of one flow, with the matrix checked beside it where that is about every port."""
    flow = PolicyFlow(end("ai/chat"), end(target), "TCP", port)
    answer = explain_arriving(judge, flow).verdict
    matrix = ArrivingMatrices(judge).on("TCP", port)
    of_pod = judge.rows.classes.of_pod
    cell = matrix.verdict(of_pod[("ai", "chat")], of_pod[("ai", "store")])
    assert cell in (answer, type(answer).UNKNOWN)
    return answer.value


@pytest.mark.parametrize(
    ("tag", "port", "closed", "opened"),
    [
        ("edge-26.4.1", 6379, "deny", "allow"),
        ("edge-26.4.1", 8081, "deny", "allow"),
        ("2.18.2", 8081, "deny", "allow"),
        ("stable-2.14.0", 6379, "deny", "allow"),  # an opaque port by default
        ("stable-2.14.0", 8081, "deny", "unknown"),
        ("other", 6379, "deny", "allow"),
    ],
)
def test_between_pods_of_linkerd_policies_see_the_proxys_port(tag: str, port: int, closed: str, opened: str) -> None:
    assert sent(mesh(tag, REDIS), port) == closed
    assert sent(mesh(tag, REDIS, TUNNEL) if port == 6379 else mesh(tag, TUNNEL), port) == opened


def test_who_has_no_proxy_or_skips_it_sends_to_the_port_itself() -> None:
    assert sent(mesh("edge-26.4.1", REDIS, client=""), 6379) == "allow"
    assert sent(mesh("edge-26.4.1", REDIS, skip_inbound_ports="25,6000-6400"), 6379) == "allow"
    assert sent(mesh("edge-26.4.1", REDIS, skip_inbound_ports="25,x,6000-"), 6379) == "deny"


def test_a_proxy_that_is_still_to_be_injected_leaves_it_open() -> None:
    asked = {**namespace("ai"), "metadata": {"name": "ai", "annotations": {"linkerd.io/inject": "enabled"}}}
    judge = engine(asked, pod("ai/chat", "10.0.0.1"), pod("ai/store", "10.0.0.2"), REDIS)
    assert sent(judge, 6379) == "unknown"
    assert tunnel_of(judge.snapshot, PolicyFlow(end("ai/chat"), end("ai/store"), "UDP", 6379)) is None


SERVICE: Raw = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "web", "namespace": "b"},
    "spec": {
        "type": "NodePort",
        "selector": {"app": "web"},
        "clusterIP": "10.96.0.9",
        "ports": [{"port": 80, "nodePort": 30080}],
    },
}
PODS = (
    namespace("a"),
    namespace("b"),
    *NODES,
    pod("a/chat", "10.0.0.1", node="n1"),
    pod("b/web", "10.0.0.2", node="n2"),
)
TO_NODES = netpol("a/out", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": {"cidr": "192.168.0.0/24"}}]}])


def through(target: str, *objects: Raw, source: str = "pod/a/chat", enforcer: str = "calico") -> list[str]:
    """The verdicts on what is sent to an address."""
    judge = PolicyEngine(snapshot(*PODS, *objects), named_enforcer(enforcer))
    flows = flows_between(judge.snapshot, parse_target(source), parse_target(target), namespace="a", protocol="")
    return [explain_arriving(judge, flow, service, entry).verdict.value for flow, service, entry in flows]


@pytest.mark.parametrize(
    ("target", "enforcer", "expected"),
    [
        ("192.168.0.2:30080", "calico", "allow"),  # addressed to the node when it leaves the pod
        ("192.168.0.1:30080", "calico", "deny"),  # the pod's own node translates first
        ("192.168.0.2:30080", "cilium", "deny"),  # by identity, and blocks select neither
    ],
)
def test_egress_to_a_node_port(target: str, enforcer: str, expected: str) -> None:
    assert through(target, SERVICE, TO_NODES, enforcer=enforcer) == [expected]


def test_ingress_from_a_node_port_may_come_from_either_node_or_the_pod() -> None:
    closed = netpol("b/in", policyTypes=["Ingress"])
    from_pod = netpol("b/in", ingress=[{"from": [{"namespaceSelector": {}}]}])
    assert through("192.168.0.1:30080", SERVICE, closed) == ["deny"]
    assert through("192.168.0.1:30080", SERVICE, from_pod) == ["unknown"]
    assert through("192.168.0.2:30080", SERVICE) == ["allow"]


def test_a_host_port_leads_to_its_pod() -> None:
    server = pod("b/node-exporter", "10.0.0.7", node="n1")
    port = {"containerPort": 9100, "hostPort": 19100}
    server["spec"]["containers"] = [{"name": "c", "ports": [port, {**port, "hostIP": "192.168.0.1", "hostPort": 7}]}]
    closed = netpol("b/in", ingress=[{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}], "ports": [{"port": 9100}]}])
    assert through("192.168.0.1:19100", server, closed, source="203.0.113.9") == ["allow"]
    assert through("192.168.0.1:19100", server, closed, source="198.51.100.9") == ["deny"]
    assert through("192.168.0.1:7", server, closed, source="198.51.100.9") == ["deny"]
    assert through("192.168.0.1:9100", server, closed, source="198.51.100.9") == ["allow"]  # the node's own
    assert through("192.168.0.2:19100", server, closed, source="198.51.100.9") == ["allow"]


def test_the_vpc_cni_leaves_the_other_ip_version_open() -> None:
    """aws/containers-roadmap issue 2440."""
    owner = {"kind": "ReplicaSet", "name": "r", "apiVersion": "apps/v1", "uid": "1", "controller": True}
    client = pod("a/six", "2001:db8::5", labels={"app": "six"})
    client["metadata"]["ownerReferences"] = [owner]
    closed = netpol("a/closed", podSelector=labels(app="six"), policyTypes=["Egress"])
    asked = {"source": "pod/a/six", "enforcer": "vpc-cni"}
    assert through("169.254.169.254:80", client, closed, **asked) == ["unknown"]
    assert through("[2001:db8:9::1]:80", client, closed, **asked) == ["deny"]
    assert through("169.254.169.254:80", client, **asked) == ["allow"]


FLANNEL = {"flannel.alpha.coreos.com/backend-type": "vxlan"}
IPIP = {"projectcalico.org/IPv4IPIPTunnelAddr": "10.0.9.0"}
FROM_NODES = netpol("b/in", ingress=[{"from": [{"ipBlock": {"cidr": "192.168.0.0/24"}}]}])
FROM_PODS = netpol("b/in", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/16"}}]}])


def from_node(address: str, policy: Raw, annotations: dict[str, str], enforcer: str, service: str = "") -> str:
    first = {**NODES[0], "spec": {"podCIDR": "10.0.9.0/24"}}
    first["metadata"] = {**first["metadata"], "annotations": annotations}
    objects = [first if o is NODES[0] else o for o in PODS]
    judge = PolicyEngine(snapshot(*objects, SERVICE, policy), named_enforcer(enforcer))
    return explain_arriving(judge, PolicyFlow(end(address), end("b/web"), "TCP", 80), service).verdict.value


@pytest.mark.parametrize("annotations", [FLANNEL, IPIP])
def test_in_an_overlay_other_nodes_send_from_their_ends_of_tunnels(annotations: dict[str, str]) -> None:
    """rancher/rke2 issue 1227, kube-router issue 332."""
    assert from_node("192.168.0.1", FROM_NODES, annotations, "calico") == "unknown"
    assert from_node("192.168.0.1", FROM_PODS, annotations, "calico") == "unknown"
    assert from_node("192.168.0.2", FROM_NODES, annotations, "calico") == "allow"  # the pod's own node
    assert from_node("192.168.0.1", FROM_NODES, {}, "calico") == "allow"
    assert from_node("203.0.113.9", FROM_NODES, annotations, "calico", "b/web") == "unknown"
    assert from_node("192.168.0.1", FROM_PODS, annotations, "cilium") == "deny"  # blocks select no nodes there


def test_calicos_ebpf_keeps_the_clients_address() -> None:
    felix: Raw = {
        "apiVersion": "projectcalico.org/v3",
        "kind": "FelixConfiguration",
        "metadata": {"name": "default"},
        "spec": {"bpfEnabled": True},
    }
    only = netpol("b/in", ingress=[{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}])
    judge = PolicyEngine(snapshot(*PODS, SERVICE, only, felix), named_enforcer("calico"))
    asked = {ip: PolicyFlow(end(ip), end("b/web"), "TCP", 80) for ip in ("203.0.113.9", "198.51.100.9")}
    answers = {ip: explain_arriving(judge, flow, "b/web").verdict.value for ip, flow in asked.items()}
    assert answers == {"203.0.113.9": "allow", "198.51.100.9": "deny"}
