"""Flows are judged as they arrive: through tunnels, nodes and caches."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.policy import PolicyEngine, PolicyFlow
from kubectl_genainet.policy.enforcers import named_enforcer
from kubectl_genainet.policy.flows.arrival import explain_arriving
from kubectl_genainet.policy.flows.dns_way import DnsWays
from tests.unit.policy.policy_cluster import (
    Raw,
    admin,
    end,
    engine,
    labels,
    namespace,
    netpol,
    node,
    pod,
    snapshot,
    verdict,
)

PODS = (
    namespace("ai"),
    namespace("kube-system"),
    node("n1", "192.168.0.1"),
    node("n2", "192.168.0.2"),
    pod("ai/rag", "10.1.0.2", node="n1"),
    pod("ai/llama", "10.1.0.3", node="n2"),
    pod("kube-system/coredns", "10.1.0.9", node="n2", labels={"k8s-app": "kube-dns"}),
)
ONLY_9090 = netpol("ai/in", podSelector=labels(app="llama"), ingress=[{"ports": [{"port": 9090}]}])


def service(name: str, selector: dict[str, str], port: int = 80, **spec: Any) -> Raw:
    where, _, short = name.partition("/")
    full = {"selector": selector, "ports": [{"port": port}], "clusterIP": "10.96.0.5", **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": short, "namespace": where}, "spec": full}


def arriving(e: PolicyEngine, source: str, target: str, port: int, via: str = "", protocol: str = "TCP") -> str:
    return explain_arriving(e, PolicyFlow(end(source), end(target), protocol, port), via).verdict.value


def test_ambient_pods_talk_through_the_tunnel() -> None:
    ambient = namespace("ai", **{"istio.io/dataplane-mode": "ambient"})
    e = engine(ambient, *PODS[1:], ONLY_9090)
    assert arriving(e, "ai/rag", "ai/llama", 9090) == "deny"
    tunnel = netpol("ai/hbone", podSelector=labels(app="llama"), ingress=[{"ports": [{"port": 15008}]}])
    assert arriving(engine(ambient, *PODS[1:], ONLY_9090, tunnel), "ai/rag", "ai/llama", 9090) == "allow"
    assert arriving(e, "203.0.113.7", "ai/llama", 9090) == "allow"  # a client outside the mesh sends plain


def test_a_pod_may_leave_the_mesh_of_its_namespace() -> None:
    ambient = namespace("ai", **{"istio.io/dataplane-mode": "ambient"})
    plain = pod("ai/rag", "10.1.0.2", node="n1", labels={"app": "rag", "istio.io/dataplane-mode": "none"})
    assert arriving(engine(ambient, plain, PODS[5], ONLY_9090), "ai/rag", "ai/llama", 9090) == "allow"


@pytest.mark.parametrize(
    ("probes", "expected"),
    [([], "unknown"), ([{"from": [{"ipBlock": {"cidr": "169.254.7.127/32"}}]}], "allow")],
)
def test_a_node_reaches_its_pods_of_the_ambient_mesh_with_another_address(probes: list[Raw], expected: str) -> None:
    ambient = namespace("ai", **{"istio.io/dataplane-mode": "ambient"})
    tunnel = {"ports": [{"port": 15008}]}
    e = engine(ambient, *PODS[1:], netpol("ai/in", podSelector=labels(app="llama"), ingress=[tunnel, *probes]))
    assert arriving(e, "192.168.0.2", "ai/llama", 9090) == expected
    assert arriving(e, "192.168.0.1", "ai/llama", 9090) == "deny"  # another node keeps its own
    assert arriving(e, "192.168.0.2", "ai/llama", 53, protocol="UDP") == "allow"
    assert arriving(engine(ambient, *PODS[1:]), "192.168.0.2", "ai/llama", 9090) == "allow"


@pytest.mark.parametrize(("policies", "source"), [((), "203.0.113.7"), ((), "ai/rag"), ((ONLY_9090,), "ai/llama")])
def test_what_becomes_of_a_connection_to_a_gateway_of_cilium_is_not_known(
    policies: tuple[Raw, ...], source: str
) -> None:
    gateway = service("ai/cilium-gateway-g", {}, type="LoadBalancer")
    e = engine(*PODS, gateway, *policies, netpol("ai/out", podSelector=labels(app="llama"), policyTypes=["Egress"]))
    flow = PolicyFlow(end(source), end("192.192.192.192"), "TCP", 9999)
    found = explain_arriving(e, flow, "ai/cilium-gateway-g")
    assert found.verdict.value == found.ingress.verdict.value == "unknown"
    assert found.egress.verdict.value == ("unknown" if source == "ai/llama" else "allow")
    assert "Envoy on a node takes the connection" in found.arrival
    assert arriving(e, source, "192.192.192.192", 9999) == ("deny" if source == "ai/llama" else "allow")


def test_a_hairpin_is_known_only_where_nothing_depends_on_it() -> None:
    own = service("ai/llama", {"app": "llama"})
    deny = admin(
        "ClusterNetworkPolicy",
        "d",
        tier="Admin",
        priority=1,
        subject={"namespaces": {}},
        ingress=[{"action": "Deny", "from": [{"namespaces": {}}]}],
    )
    assert arriving(engine(*PODS, own, deny), "ai/llama", "ai/llama", 80, "ai/llama") == "unknown"
    assert arriving(engine(*PODS, own), "ai/llama", "ai/llama", 80, "ai/llama") == "allow"
    assert verdict(engine(*PODS, own, deny), "ai/llama", "ai/llama") == "allow"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"type": "LoadBalancer"}, "unknown"),  # one of the nodes is the pod's own, which always reaches it
        ({"type": "NodePort", "externalTrafficPolicy": "Local"}, "allow"),
        ({}, "unknown"),  # sent to the ClusterIP: a proxy that knows the pods' addresses masquerades it
        ({"clusterIP": "None"}, "allow"),
    ],
)
def test_a_client_outside_comes_as_a_node_where_the_traffic_policy_is_cluster(
    spec: dict[str, Any], expected: str
) -> None:
    clients = [{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]
    policy = netpol("ai/clients", podSelector=labels(app="llama"), ingress=clients)
    e = engine(*PODS, service("ai/llama", {"app": "llama"}, **spec), policy)
    assert arriving(e, "203.0.113.7", "ai/llama", 80, "ai/llama") == expected


def test_what_is_the_same_with_and_without_masquerading_to_a_cluster_ip_is_known() -> None:
    anyone = netpol("ai/anyone", ingress=[{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}])
    flow = PolicyFlow(end("203.0.113.7"), end("ai/llama"), "TCP", 80)
    found = explain_arriving(engine(*PODS, service("ai/llama", {"app": "llama"}), anyone), flow, "ai/llama")
    assert found.verdict.value == "allow" and "is sent to the ClusterIP by way of a node" in found.arrival


def test_the_nodes_that_a_client_may_come_through_are_judged() -> None:
    every_node = netpol("ai/nodes", ingress=[{"from": [{"ipBlock": {"cidr": "192.168.0.0/24"}}]}])
    e = engine(*PODS, service("ai/llama", {"app": "llama"}, type="NodePort"), every_node)
    found = explain_arriving(e, PolicyFlow(end("203.0.113.7"), end("ai/llama"), "TCP", 80), "ai/llama")
    assert found.verdict.value == "allow" and "externalTrafficPolicy is Cluster" in found.arrival


DNS = service("kube-system/kube-dns", {"k8s-app": "kube-dns"}, 53)
CACHE = {
    "apiVersion": "apps/v1",
    "kind": "DaemonSet",
    "metadata": {"name": "node-local-dns", "namespace": "kube-system"},
    "spec": {
        "template": {
            "spec": {
                "containers": [
                    {
                        "image": "registry.k8s.io/dns/k8s-dns-node-cache:1.23",
                        "args": ["-localip", "169.254.20.10,10.96.0.10"],
                    }
                ]
            }
        }
    },
}
ONLY_LLAMA = netpol(
    "ai/out", podSelector=labels(app="rag"), policyTypes=["Egress"], egress=[{"to": [{"podSelector": {}}]}]
)
TO_DNS = {
    "to": [{"namespaceSelector": {}, "podSelector": labels(**{"k8s-app": "kube-dns"})}],
    "ports": [{"port": 53, "protocol": "UDP"}],
}
WITH_DNS = netpol("ai/out", podSelector=labels(app="rag"), policyTypes=["Egress"], egress=[TO_DNS])


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ((*PODS, DNS), "allow"),
        ((*PODS, DNS, ONLY_LLAMA), "deny"),
        ((*PODS, DNS, WITH_DNS), "allow"),
        ((*PODS[:-1], ONLY_LLAMA), "deny"),  # the cluster's DNS is not among the objects: taken as every cluster has it
        ((*PODS[:-1], WITH_DNS), "allow"),
        ((*PODS, DNS, CACHE, WITH_DNS), "unknown"),  # on the pod's own node, on an address of its own
        ((*PODS, DNS, CACHE), "allow"),
        ((*PODS, DNS, netpol("kube-system/closed")), "deny"),
    ],
)
def test_the_way_to_dns_is_judged(objects: tuple[Raw, ...], expected: str) -> None:
    way = DnsWays(engine(*objects)).of(end("ai/rag"))
    assert way is not None and way.verdict.value == expected
    assert ("never start" in way.text) == (expected == "deny")


def test_servers_of_the_pod_itself_are_its_resolver() -> None:
    own = pod("ai/rag", "10.1.0.2")
    own["spec"] |= {"dnsPolicy": "None", "dnsConfig": {"nameservers": ["203.0.113.53"]}}
    block = [{"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}]
    policy = netpol("ai/out", policyTypes=["Egress"], egress=block)
    way = DnsWays(engine(namespace("ai"), own, policy)).of(end("ai/rag"))
    assert way is not None and (way.verdict.value, way.resolver) == ("allow", "203.0.113.53 (dnsConfig)")


def test_blocks_that_hold_every_address_admit_any_name() -> None:
    def out(*cidrs: str) -> Raw:
        rule = {"to": [{"ipBlock": {"cidr": c}} for c in cidrs]}
        return netpol("ai/out", policyTypes=["Egress"], egress=[rule])

    dual = (namespace("ai"), pod("ai/rag", "10.1.0.2,fd00::2"))
    assert verdict(engine(*dual, out("0.0.0.0/0", "::/0")), "ai/rag", "huggingface.co") == "allow"
    assert verdict(engine(*dual, out("0.0.0.0/0")), "ai/rag", "huggingface.co") == "unknown"
    assert verdict(engine(*PODS, out("0.0.0.0/0")), "ai/rag", "huggingface.co") == "allow"  # it has IPv4 only
    assert verdict(engine(*PODS, out("0.0.0.0/1")), "ai/rag", "huggingface.co") == "unknown"


def test_a_local_redirect_leaves_open_where_the_flow_goes() -> None:
    matcher = {"serviceMatcher": {"serviceName": "llama", "namespace": "ai"}}
    redirect = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumLocalRedirectPolicy",
        "metadata": {"name": "r", "namespace": "ai"},
        "spec": {"redirectFrontend": matcher},
    }
    objects = (*PODS, service("ai/llama", {"app": "llama"}), redirect)
    closed = netpol("ai/in", podSelector=labels(app="llama"))
    assert arriving(engine(*objects, closed), "ai/rag", "ai/llama", 80, "ai/llama") == "unknown"
    assert arriving(engine(*objects, closed), "ai/rag", "ai/llama", 80) == "deny"
    assert arriving(engine(*objects), "ai/rag", "ai/llama", 80, "ai/llama") == "allow"


def test_calico_judges_the_way_to_the_nodes_dns_cache() -> None:
    """Its policies apply to what a pod sends to its own node: nothing is open there."""
    container = {"name": "c", "image": "registry.k8s.io/dns/k8s-dns-node-cache:1.23.1"}
    cache: Raw = {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": "node-local-dns", "namespace": "kube-system"},
        "spec": {"template": {"spec": {"containers": [container]}}},
    }
    to_dns = {"to": [{"namespaceSelector": {}}], "ports": [{"port": 53, "protocol": "UDP"}]}
    to_cache = {"to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}], "ports": [{"port": 53, "protocol": "UDP"}]}
    for rule, name, wanted in (
        (to_dns, "calico", "deny"),
        (to_cache, "calico", "allow"),
        (to_dns, "unknown", "unknown"),
        (to_cache, "cilium", "unknown"),
    ):
        policy = netpol("ai/out", policyTypes=["Egress"], egress=[rule])
        way = DnsWays(PolicyEngine(snapshot(*PODS, cache, policy), named_enforcer(name))).of(end("ai/rag"))
        assert way is not None and way.verdict.value == wanted


def test_the_agents_dns_proxy_refuses_names_that_no_dns_rule_admits() -> None:
    to_dns = {
        "toEndpoints": [{"matchLabels": {"k8s:io.kubernetes.pod.namespace": "kube-system", "k8s-app": "kube-dns"}}]
    }
    ports = [{"ports": [{"port": "53", "protocol": "UDP"}], "rules": {"dns": [{"matchPattern": "*.openai.com"}]}}]
    policy = {
        "apiVersion": "cilium.io/v2",
        "kind": "CiliumNetworkPolicy",
        "metadata": {"name": "c", "namespace": "ai"},
        "spec": {
            "endpointSelector": labels(app="rag"),
            "egress": [
                {**to_dns, "toPorts": ports},
                {"toEntities": ["world", "cluster"], "toPorts": [{"ports": HTTPS}]},
            ],
        },
    }
    ways = DnsWays(engine(*PODS, policy))
    names = {
        "api.openai.com": "allow",
        "huggingface.co": "unknown",
        "llama.ai.svc.cluster.local": "unknown",
        "": "allow",
    }
    for name, wanted in names.items():
        way = ways.of(end("ai/rag"), name)
        assert way is not None and way.verdict.value == wanted
    other = ways.of(end("ai/llama"), "huggingface.co")
    assert other is not None and other.verdict.value == "allow"


HTTPS = [{"port": "443", "protocol": "TCP"}]


@pytest.mark.parametrize(
    ("blocks", "excepts", "expected"),
    [
        (("0.0.0.0/1", "128.0.0.0/1"), (), "allow"),
        (("0.0.0.0/0", "10.0.0.0/8"), ("10.0.0.0/8",), "allow"),  # the second holds what the first leaves out
        (("0.0.0.0/0", "10.0.0.0/9"), ("10.0.0.0/8",), "unknown"),
        (("0.0.0.0/1", "192.0.0.0/2"), (), "unknown"),
    ],
)
def test_blocks_that_are_every_address_together_admit_a_name(
    blocks: tuple[str, ...], excepts: tuple[str, ...], expected: str
) -> None:
    first, second = ({"cidr": block} for block in blocks)
    peers: list[Any] = [{"ipBlock": {**first, **({"except": list(excepts)} if excepts else {})}}, {"ipBlock": second}]
    policy = netpol("ai/out", policyTypes=["Egress"], egress=[{"to": peers}])
    assert verdict(engine(namespace("ai"), pod("ai/rag", "10.0.0.1"), policy), "ai/rag", "huggingface.co") == expected
