"""What public reports say becomes of flows: each with the report that tells, by its maintainers' answer or what was seen."""

from __future__ import annotations

from typing import Any

from tests.unit.policy.documented.base import CHAT, DB, NAME, NODE1, NODE2, WEB, WORLD, Documented, anp, kind, owned
from tests.unit.policy.documented.calico import ALLOW, DENY, IN, calico
from tests.unit.policy.policy_cluster import Raw, labels, namespace, netpol, pod

METADATA = "169.254.169.254"
POD_IDENTITY, NODE_DNS = "169.254.170.23", "169.254.20.10"
_FROM_B = {"namespaceSelector": labels(**{NAME: "b"})}
_OF_WEB: Raw = {"podSelector": labels(app="web"), "policyTypes": ["Egress"]}


def to_block(cidr: str, *excepts: str, **more: Any) -> Raw:
    return {"to": [{"ipBlock": {"cidr": cidr, "except": list(excepts)}}], **more}


def on_host(name: str, ip: str, node: str) -> Raw:
    return owned(pod(name, ip, node=node, host_network=True))


def cilium(*, where: str = "a", **spec: Any) -> Raw:
    api, name = "cilium.io/v2", "CiliumNetworkPolicy" if where else "CiliumClusterwideNetworkPolicy"
    return kind(api, name, where=where, **{"endpointSelector": {}, **spec})


def antrea(**spec: Any) -> Raw:
    return kind("crd.antrea.io/v1beta1", "ClusterNetworkPolicy", priority=1, **spec)


def teams(**more: str) -> tuple[Raw, ...]:
    return (namespace("b", **{NAME: "b", **more}),)


_HOST_ON_2, _INGRESS_ON_1 = on_host("b/rgw", NODE2, "n2"), on_host("b/ingress", NODE1, "n1")
_TO_RGW = netpol("a/e", **_OF_WEB, egress=[{"to": [{**_FROM_B, "podSelector": labels(app="rgw")}]}])
_ONLY_B = netpol("a/i", ingress=[{"from": [_FROM_B]}])
_ALL_443 = netpol("a/e", **_OF_WEB, egress=[to_block("0.0.0.0/0", ports=[{"port": 443}])])
_NO_PEERS = netpol("a/e", **_OF_WEB, egress=[{"ports": [{"port": 443}]}])
_NODES_EXCEPTED = netpol("a/e", **_OF_WEB, egress=[to_block("0.0.0.0/0", f"{NODE1}/32", f"{NODE2}/32")])
_TEAM = cilium(ingress=[{"fromEndpoints": [labels(**{"io.cilium.k8s.namespace.labels.team": "x"})]}])
_NO_METADATA = {"egressDeny": [{"toCIDR": [f"{METADATA}/32"]}]}
_OPEN_DENY = cilium(where="", enableDefaultDeny={"egress": False}, **_NO_METADATA)
_LOCKDOWN = cilium(where="", ingress=[{"fromEntities": ["cluster"]}])
_TO_PODS = {**ALLOW, "protocol": "TCP", "destination": {"nets": ["10.0.0.0/8"]}}
_SELECTED = calico("g", "", namespaceSelector="kubernetes.io/metadata.name == 'a'", ingress=[DENY])
_ONLY_DENY = calico(
    "m",
    "",
    namespaceSelector="kubernetes.io/metadata.name != 'b'",
    types=["Egress"],
    egress=[{**DENY, "destination": {"nets": [f"{METADATA}/32"]}}],
)
_LATE = calico("late", "", selector="all()", types=["Egress"], egress=[DENY])
_OPEN_OUT = netpol("a/open", policyTypes=["Egress"], egress=[{}])
_NODES_RULE = {"action": "Allow", "to": [{"nodes": {"matchLabels": {"role": "infra"}}}]}
_NODES_FIRST = anp(10, egress=[_NODES_RULE, {"action": "Deny", "to": [{"networks": ["0.0.0.0/0"]}]}])
_GATES = antrea(appliedTo=[{"nodeSelector": labels(role="infra")}], ingress=[{"action": "Drop"}])
_ROUTER = "policy-group.network.openshift.io/ingress"
_FROM_ROUTERS = netpol("a/i", ingress=[{"from": [{"namespaceSelector": labels(**{_ROUTER: ""})}]}])
_HOST_GROUP = namespace("openshift-host-network", **{_ROUTER: ""})

_EVERY_ADDRESS = netpol("a/e", **_OF_WEB, egress=[to_block("0.0.0.0/0")])
_EVERYBODY = netpol("a/e", **_OF_WEB, egress=[{}])
_DENIED_PORT = cilium(
    egressDeny=[{"toPorts": [{"ports": [{"port": "1025"}]}]}],
    egress=[{"toPorts": [{"ports": [{"port": p, "protocol": "TCP"} for p in ("1025", "1026")]}]}],
)
_ALL_BUT_WORLD = cilium(egress=[{"toEntities": ["cluster"]}])

KUBERNETES_REPORTS = [
    Documented("kube-router 1135: selectors, host network", "kube-router", (_HOST_ON_2, _TO_RGW), WEB, "b/rgw", "deny"),
    Documented("rke2 1227: a controller on its node", "calico", (_INGRESS_ON_1, _ONLY_B), "b/ingress", DB, "deny"),
    Documented("rke2 1227: a pod of the namespace", "calico", (_INGRESS_ON_1, _ONLY_B), CHAT, DB, "allow"),
    Documented("weave 3924: the own node", "weave", (_NODES_EXCEPTED,), WEB, NODE1, "allow"),
    Documented("weave 3924: another", "weave", (_NODES_EXCEPTED,), WEB, NODE2, "deny"),
    Documented(
        "kube-router 1067: egress of a node's pods", "kube-router", (_INGRESS_ON_1,), "b/ingress", WORLD, "allow"
    ),
]
CILIUM_REPORTS = [
    Documented("35212: every address is no pod", "cilium", (_ALL_443,), WEB, DB, "deny", 443),
    Documented("35212: nor a node", "cilium", (_ALL_443,), WEB, NODE2, "deny", 443),
    Documented("35212: but what is outside", "cilium", (_ALL_443,), WEB, WORLD, "allow", 443),
    Documented("35212: no peers are all", "cilium", (_NO_PEERS,), WEB, NODE2, "allow", 443),
    Documented("30149: labels of namespaces", "cilium", (*teams(team="x"), _TEAM), CHAT, DB, "allow"),
    Documented("30149: of another value", "cilium", (*teams(team="y"), _TEAM), CHAT, DB, "deny"),
    Documented("30572: a deny rule isolates", "cilium", (cilium(where="", **_NO_METADATA),), WEB, WORLD, "deny"),
    Documented("30572: unless it is told not to", "cilium", (_OPEN_DENY,), WEB, WORLD, "allow"),
    Documented("30572: it denies in any case", "cilium", (_OPEN_DENY,), WEB, METADATA, "deny"),
    Documented("34387: the node's own link-local address", "cilium", (_EVERY_ADDRESS,), WEB, POD_IDENTITY, "unknown"),
    Documented("34387: everybody is the node too", "cilium", (_EVERYBODY,), WEB, POD_IDENTITY, "allow"),
    Documented("34387: closed to both", "cilium", (netpol("a/e", **_OF_WEB),), WEB, POD_IDENTITY, "deny"),
    Documented("34387: the cloud's own is outside", "cilium", (_EVERY_ADDRESS,), WEB, METADATA, "allow"),
    Documented("34387: others go by the address", "calico", (_EVERY_ADDRESS,), WEB, POD_IDENTITY, "allow"),
    Documented("18644: or the world's", "cilium", (_ALL_BUT_WORLD,), WEB, NODE_DNS, "unknown"),
    Documented("28136: denied before it is allowed", "cilium", (_DENIED_PORT,), WEB, WORLD, "deny", 1025),
    Documented("28136: the other port is not", "cilium", (_DENIED_PORT,), WEB, WORLD, "allow", 1026),
    Documented("31060: lockdown, from outside", "cilium", (_LOCKDOWN,), WORLD, DB, "deny"),
    Documented("31060: lockdown, from pods", "cilium", (_LOCKDOWN,), CHAT, DB, "allow"),
    Documented(
        "25665: Envoy is no pod", "cilium", (cilium(ingress=[{"fromEntities": ["ingress"]}]),), CHAT, DB, "deny"
    ),
]
OTHER_REPORTS = [
    Documented(
        "5129: pods' addresses, out",
        "calico",
        (calico("o", "", types=["Egress"], egress=[_TO_PODS]),),
        WEB,
        DB,
        "allow",
    ),
    Documented("5129: others", "calico", (calico("o", "", types=["Egress"], egress=[_TO_PODS]),), WEB, WORLD, "deny"),
    Documented("4917: pods of selected namespaces", "calico", (_SELECTED,), CHAT, DB, "deny"),
    Documented("4917: others are open", "calico", (_SELECTED,), WORLD, CHAT, "allow"),
    Documented("azimuth 251: Deny alone isolates", "calico", (_ONLY_DENY,), WEB, WORLD, "deny"),
    Documented("azimuth 251: not what it leaves out", "calico", (_ONLY_DENY,), CHAT, METADATA, "allow"),
    Documented("8479: without an order, it comes last", "calico", (_LATE, _OPEN_OUT), WEB, METADATA, "allow"),
    Documented("8479: where nothing else is", "calico", (_LATE, _OPEN_OUT), CHAT, METADATA, "deny"),
    Documented(
        "ICMP alone admits no TCP",
        "calico",
        (calico("p", **IN, ingress=[{**ALLOW, "protocol": "ICMP"}]),),
        CHAT,
        DB,
        "deny",
    ),
    Documented("nodes before networks", "ovn", (_NODES_FIRST,), WEB, NODE2, "allow", 6443),
    Documented("networks hold the rest", "ovn", (_NODES_FIRST,), WEB, WORLD, "deny", 443),
    Documented("enhancements 561: routers", "ovn", (_HOST_GROUP, _FROM_ROUTERS), NODE1, DB, "allow"),
    Documented("enhancements 561: where it is not told", "ovn", (_FROM_ROUTERS,), NODE1, DB, "unknown"),
    Documented("enhancements 561: no pods", "ovn", (_FROM_ROUTERS,), CHAT, DB, "deny"),
    Documented("policies of nodes", "antrea", (_GATES,), WEB, NODE2, "unknown"),
    Documented("policies of other nodes", "antrea", (_GATES,), CHAT, NODE1, "allow"),
    Documented("pods on such nodes", "antrea", (_GATES,), WEB, DB, "allow"),
]
REPORTS = [*KUBERNETES_REPORTS, *CILIUM_REPORTS, *OTHER_REPORTS]
