"""What documentation and reports say becomes of connections to Services, through meshes, and on platforms of clouds."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from tests.unit.policy.documented.base import CLUSTER, NAME, NODE1, kind, owned
from tests.unit.policy.documented.clouds import aws_node
from tests.unit.policy.policy_cluster import Raw, daemon_set, labels, namespace, netpol, node, pod

_OUT_FROM_WEB: Raw = {"policyTypes": ["Egress"], "podSelector": labels(app="web")}
_FROM_B = {"from": [{"namespaceSelector": labels(**{NAME: "b"})}]}
CLOSED = netpol("a/closed")


class Way(NamedTuple):
    """One statement: with these objects, this becomes of connections to the target. The objects show the enforcer."""

    says: str
    objects: tuple[Raw, ...]
    source: str
    target: str
    verdict: str


def around(objects: tuple[Raw, ...]) -> tuple[Raw, ...]:
    """The objects in the usual cluster, in place of those of the same name."""
    own = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in objects}
    rest = (o for o in CLUSTER if (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) not in own)
    return (*rest, *objects)


def service(name: str, *, ip: str = "10.96.0.10", port: int = 80, target: int = 80, **more: Any) -> Raw:
    """A Service in front of the pods with the label `app: NAME`; `labels` are its own, `balancer` its address and ipMode."""
    metadata = {"name": name, "namespace": "a", "labels": more.get("labels", {})}
    spec = {"selector": {"app": name}, "clusterIP": ip, "ports": [{"port": port, "targetPort": target}]}
    raw: Raw = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    if "balancer" in more:
        address, mode = more["balancer"]
        raw["status"] = {"loadBalancer": {"ingress": [{"ip": address, "ipMode": mode}]}}
        spec["type"] = "LoadBalancer"
    return raw


def egress(*rules: Raw) -> Raw:
    return netpol("a/out", **_OUT_FROM_WEB, egress=list(rules))


def block(cidr: str, *excepts: str) -> Raw:
    return {"to": [{"ipBlock": {"cidr": cidr, "except": list(excepts)}}]}


def pod_with(name: str, where: Raw, **metadata: Any) -> Raw:
    """A pod of the usual cluster with further metadata or another node."""
    raw = owned(pod(name, "10.0.0.9", node=where["metadata"]["name"]))
    return {**raw, "metadata": {**raw["metadata"], **metadata}}


# amazon-network-policy-controller-k8s, pkg/resolvers/endpoints.go, issues 121 and 146; Amazon EKS user guide.
_FARGATE = node("fargate-1", "10.0.0.9", **{"eks.amazonaws.com/compute-type": "fargate"})
_WINDOWS = node("w1", "192.168.0.9", **{"kubernetes.io/os": "windows"})
_SWITCH = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "amazon-vpc-cni", "namespace": "kube-system"},
    "data": {"enable-network-policy-controller": "true"},
}


def node_class(default: str) -> Raw:
    return kind("eks.amazonaws.com/v1", "NodeClass", networkPolicy=default)


_EKS = (aws_node(), service("db"))
_DB, _EVERY_443 = "svc/a/db", {"ports": [{"port": 443}], **block("0.0.0.0/0")}
EKS_WAYS = [
    Way(
        "a selector of the Service's labels",
        (*_EKS, egress({"to": [{"podSelector": labels(app="db")}]})),
        "web",
        _DB,
        "allow",
    ),
    Way(
        "a selector of other labels of the pods",
        (
            *_EKS,
            egress({"to": [{"podSelector": labels(t="d")}]}),
            owned(pod("a/db", "10.0.0.2", node="n2", labels={"app": "db", "t": "d"})),
        ),
        "web",
        _DB,
        "unknown",
    ),
    Way("a block of pods alone", (*_EKS, egress(block("10.0.0.0/16"))), "web", _DB, "unknown"),
    Way("a block of Services alone", (*_EKS, egress(block("10.96.0.0/12"))), "web", _DB, "unknown"),
    Way("a block of both", (*_EKS, egress(block("10.0.0.0/8"))), "web", _DB, "allow"),
    Way("a block of neither", (*_EKS, egress(block("172.16.0.0/12"))), "web", _DB, "deny"),
    Way(
        "an exception of another rule",
        (aws_node(), egress(_EVERY_443, block("0.0.0.0/0", "10.0.0.0/8"))),
        "web",
        "10.20.0.5:443",
        "unknown",
    ),
    Way(
        "an exception elsewhere",
        (aws_node(), egress(_EVERY_443, block("0.0.0.0/0", "10.0.0.0/8"))),
        "web",
        "203.0.113.5:443",
        "allow",
    ),
    Way(
        "a narrower block goes before an exception",
        (aws_node(), egress(block("10.20.0.0/16"), block("0.0.0.0/0", "10.0.0.0/8"))),
        "web",
        "10.20.0.5:443",
        "allow",
    ),
    Way(
        "Fargate has no policies",
        (aws_node(), _FARGATE, pod_with("a/x", _FARGATE), CLOSED),
        "chat",
        "pod/a/x:80",
        "unknown",
    ),
    Way("nor has Windows", (aws_node(), _WINDOWS, pod_with("a/x", _WINDOWS), CLOSED), "chat", "pod/a/x:80", "unknown"),
    Way("Auto Mode may isolate every pod", (_SWITCH, node_class("DefaultDeny")), "chat", "pod/a/web:80", "unknown"),
    Way("or none", (_SWITCH, node_class("DefaultAllow")), "chat", "pod/a/web:80", "allow"),
    Way(
        "where it does, a policy admits",
        (
            _SWITCH,
            node_class("DefaultDeny"),
            netpol("a/in", ingress=[_FROM_B]),
            netpol("b/out", policyTypes=["Egress"], egress=[{}]),
        ),
        "chat",
        "pod/a/web:80",
        "allow",
    ),
]

# Istio, "Configure waypoint proxies"; Linkerd, "Authorization Policy"; Kuma, "Mutual TLS".
_AMBIENT = {"istio.io/dataplane-mode": "ambient"}
_MESH = (
    namespace("b", **{NAME: "b", **_AMBIENT}),
    namespace("a", **{NAME: "a", **_AMBIENT, "istio.io/use-waypoint": "w"}),
)
_TUNNEL = {"ports": [{"port": 15008}]}
_WEB, _W = labels(app="web"), labels(app="w")
_PROXY = {"gateway.networking.k8s.io/gateway-name": "w", "app": "w"}
_WAYPOINT = owned(pod("a/w", "10.0.0.8", node="n2", labels=_PROXY))
_WEB_FROM_B = netpol("a/web", podSelector=_WEB, ingress=[{**_FROM_B, **_TUNNEL}])
_WEB_FROM_W = netpol("a/web", podSelector=_WEB, ingress=[{"from": [{"podSelector": _W}], **_TUNNEL}])
_LINKERD = {"linkerd.io/inject": "enabled"}
_DEFAULT = "config.linkerd.io/default-inbound-policy"


def in_linkerd(name: str, default: str) -> Raw:
    raw = owned(pod(name, "10.0.0.9", node="n1"))
    return {**raw, "metadata": {**raw["metadata"], "annotations": {**_LINKERD, _DEFAULT: default}}}


PERMISSION = {
    "apiVersion": "kuma.io/v1alpha1",
    "kind": "MeshTrafficPermission",
    "metadata": {"name": "p", "namespace": "kuma-system"},
    "spec": {"targetRef": {"kind": "Mesh"}, "rules": [{"default": {"allow": []}}]},
}


def kuma(**spec: Any) -> tuple[Raw, ...]:
    injected = {"kuma.io/sidecar-injection": "enabled"}
    return kind("kuma.io/v1alpha1", "Mesh", **spec), namespace("a", **{NAME: "a", **injected})


MESH_WAYS = [
    Way("a waypoint hides the client", (*_MESH, service("web"), _WAYPOINT, _WEB_FROM_B), "chat", "svc/a/web", "deny"),
    Way("it is what a policy admits", (*_MESH, service("web"), _WAYPOINT, _WEB_FROM_W), "chat", "svc/a/web", "allow"),
    Way(
        "its own pods have policies too",
        (*_MESH, service("web"), _WAYPOINT, _WEB_FROM_W, netpol("a/w", podSelector=_W)),
        "chat",
        "svc/a/web",
        "deny",
    ),
    Way("a waypoint that is not read", (*_MESH, service("web"), _WEB_FROM_W), "chat", "svc/a/web", "unknown"),
    Way(
        "a Service may leave it out",
        (*_MESH, service("web", labels={"istio.io/use-waypoint": "none"}), _WEB_FROM_B),
        "chat",
        "svc/a/web",
        "allow",
    ),
    Way("a pod's address may lead to it", (*_MESH, _WAYPOINT, _WEB_FROM_B), "chat", "pod/a/web:80", "unknown"),
    Way("deny refuses everybody", (in_linkerd("a/x", "deny"), in_linkerd("b/y", "deny")), "y", "pod/a/x:80", "unknown"),
    Way("but not the pod's own node", (in_linkerd("a/x", "deny"),), NODE1, "pod/a/x:80", "allow"),
    Way("authenticated clients alone", (in_linkerd("a/x", "all-authenticated"),), "chat", "pod/a/x:80", "unknown"),
    Way(
        "those with a proxy",
        (in_linkerd("a/x", "all-authenticated"), in_linkerd("b/y", "deny")),
        "y",
        "pod/a/x:80",
        "allow",
    ),
    Way("without authentication", (in_linkerd("a/x", "all-unauthenticated"),), "chat", "pod/a/x:80", "allow"),
    Way("clients of the cluster", (in_linkerd("a/x", "cluster-unauthenticated"),), "chat", "pod/a/x:80", "allow"),
    Way("and none outside", (in_linkerd("a/x", "cluster-unauthenticated"),), "203.0.113.9", "pod/a/x:80", "unknown"),
    Way("Kuma's mutual TLS needs permissions", kuma(mtls={"enabledBackend": "ca"}), "chat", "pod/a/web:80", "unknown"),
    Way("without it none are needed", kuma(), "chat", "pod/a/web:80", "allow"),
    Way("permissions of the whole mesh", (PERMISSION, kuma()[1]), "chat", "pod/a/web:80", "unknown"),
    Way("are not about pods outside it", (PERMISSION, kuma()[1]), "web", "pod/b/chat:80", "allow"),
    Way("nor by pods outside the mesh", kuma(mtls={"enabledBackend": "ca"}), "web", "pod/b/chat:80", "allow"),
]

# Kubernetes, "Service" (headless Services, ipMode); K3s, "Network Policy Controller"; kube-router, user guide; OVN-Kubernetes.
_ON_8080 = netpol("a/in", ingress=[{"ports": [{"port": 8080}]}])
_BALANCED = "203.0.113.50"


def k3s(*arguments: str) -> Raw:
    raw = node("n1", NODE1)
    annotations = {"k3s.io/node-args": json.dumps(["server", *arguments])}
    return {**raw, "metadata": {**raw["metadata"], "annotations": annotations}}


def router(*arguments: str) -> Raw:
    return daemon_set("docker.io/cloudnativelabs/kube-router:v2.2.0", "kube-router", *arguments)


def stateless(value: str) -> Raw:
    raw = netpol("a/in", ingress=[_FROM_B])
    return {**raw, "metadata": {**raw["metadata"], "annotations": {"k8s.ovn.org/acl-stateless": value}}}


_OVN_NODE = daemon_set("quay.io/openshift/ovn-kubernetes:4.20", "ovnkube")
OTHER_WAYS = [
    Way(
        "a headless Service translates no port",
        (service("web", ip="None", target=8080), _ON_8080),
        "chat",
        "svc/a/web",
        "deny",
    ),
    Way("another one does", (service("web", target=8080), _ON_8080), "chat", "svc/a/web", "allow"),
    Way(
        "a balancer's VIP leads to the pods",
        (service("web", balancer=(_BALANCED, "VIP")), netpol("a/in", ingress=[_FROM_B])),
        "chat",
        f"{_BALANCED}:80",
        "allow",
    ),
    Way(
        "a balancer that proxies hides the client",
        (service("web", balancer=(_BALANCED, "Proxy")), netpol("a/in", ingress=[_FROM_B])),
        "chat",
        f"{_BALANCED}:80",
        "unknown",
    ),
    Way("K3s enforces policies", (k3s(), CLOSED), "chat", "pod/a/web:80", "deny"),
    Way("unless it is told not to", (k3s("--disable-network-policy"), CLOSED), "chat", "pod/a/web:80", "allow"),
    Way("in either spelling", (k3s("--disable-network-policy=true"), CLOSED), "chat", "pod/a/web:80", "allow"),
    Way("and off is off", (k3s("--disable-network-policy", "false"), CLOSED), "chat", "pod/a/web:80", "deny"),
    Way(
        "or another enforcer does", (k3s("--disable-network-policy"), router(), CLOSED), "chat", "pod/a/web:80", "deny"
    ),
    Way("kube-router without its firewall", (router("--run-firewall=false"), CLOSED), "chat", "pod/a/web:80", "allow"),
    Way("stateless rules admit no connections", (_OVN_NODE, stateless("true")), "chat", "pod/a/web:80", "unknown"),
    Way("others do", (_OVN_NODE, stateless("false")), "chat", "pod/a/web:80", "allow"),
    Way(
        "NeuVector's rules may deny",
        (kind("neuvector.com/v1", "NvSecurityRule", where="a", ingress=[]),),
        "chat",
        "pod/a/web:80",
        "unknown",
    ),
    Way(
        "KubeArmor may block protocols",
        (
            kind(
                "security.kubearmor.com/v1",
                "KubeArmorPolicy",
                where="a",
                network={"matchProtocols": [{"protocol": "tcp"}]},
            ),
        ),
        "web",
        "pod/b/chat:80",
        "unknown",
    ),
    Way(
        "and processes",
        (kind("security.kubearmor.com/v1", "KubeArmorPolicy", where="a", process={}),),
        "web",
        "pod/b/chat:80",
        "allow",
    ),
]

# What public issues, distributions and clouds showed beyond these.
AGENTS = {
    "RKE2": ("calico", "rancher/hardened-calico:v3.30.2-build20250731", "calico-node"),
    "Rancher": ("calico", "rancher/mirrored-calico-node:v3.28.1", "calico-node"),
    "Enterprise": ("calico", "quay.io/tigera/cnx-node:v3.20.1", "calico-node"),
    "OpenShift": ("ovn", "quay.io/openshift-release-dev/ocp-v4.0-art-dev@sha256:aaaa", "ovnkube-controller"),
}
_CILIUM = daemon_set("rancher/mirrored-cilium-cilium:v1.17.6", "cilium-agent")
_ONLY_10 = netpol("a/in", ingress=[{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}])
_TWO = (
    owned(pod("a/web", "10.0.0.1,fd00::1", node="n1")),
    owned(pod("b/chat", "10.0.0.3,fd00::3", node="n2")),
    _ONLY_10,
)
_ROCE = json.dumps([{"name": "a/roce", "interface": "net1", "ips": ["192.168.100.5"]}])
_ON_ROCE = pod_with("a/db", node("n2", "192.168.0.2"), annotations={"k8s.v1.cni.cncf.io/network-status": _ROCE})
_MULTI = kind("k8s.cni.cncf.io/v1beta1", "MultiNetworkPolicy", where="a", podSelector={})


def node_config(**options: str) -> Raw:
    raw = kind("cilium.io/v2", "CiliumNodeConfig", where="kube-system", nodeSelector={})
    return {**raw, "spec": {"defaults": {name.replace("_", "-"): value for name, value in options.items()}}}


def mesh(mode: str) -> tuple[Raw, ...]:
    metadata = {"name": "istio", "namespace": "istio-system"}
    data = {"mesh": f"outboundTrafficPolicy:\n  mode: {mode}\n"}
    injected = namespace("a", **{NAME: "a", "istio-injection": "enabled"})
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}, injected


MORE_WAYS = [
    Way("a Service of IPv6 is reached over IPv6", (*_TWO, service("web", ip="fd01::9")), "chat", "svc/a/web", "deny"),
    Way("one of IPv4 over IPv4", (*_TWO, service("web")), "chat", "svc/a/web", "allow"),
    Way(
        "Flannel of a mirror enforces nothing",
        (daemon_set("rancher/mirrored-flannel-flannel:v0.25.1"), CLOSED),
        "chat",
        "pod/a/web:80",
        "allow",
    ),
    Way("a block selects no pods under Cilium of a mirror", (_CILIUM, _ONLY_10), "chat", "pod/a/web:80", "deny"),
    Way(
        "some nodes' agents may only log",
        (_CILIUM, node_config(policy_audit_mode="true"), CLOSED),
        "chat",
        "pod/a/web:80",
        "unknown",
    ),
    Way("or isolate", (_CILIUM, node_config(enable_policy="always")), "chat", "pod/a/web:80", "unknown"),
    Way("other options change nothing", (_CILIUM, node_config(mtu="9000"), CLOSED), "chat", "pod/a/web:80", "deny"),
    Way("a closed registry", mesh("REGISTRY_ONLY"), "web", "203.0.113.9:443", "unknown"),
    Way("is nothing to pods of the cluster", mesh("REGISTRY_ONLY"), "web", "pod/b/chat:80", "allow"),
    Way("and to pods outside the mesh", mesh("REGISTRY_ONLY"), "chat", "203.0.113.9:443", "allow"),
    Way("an open one", mesh("ALLOW_ANY"), "web", "203.0.113.9:443", "allow"),
    Way("policies of a further network", (_ON_ROCE, egress()), "web", "192.168.100.5:4791", "unknown"),
    Way("without policies it is open", (_ON_ROCE,), "web", "192.168.100.5:4791", "allow"),
    Way("its own kind may close it", (_ON_ROCE, _MULTI), "web", "192.168.100.5:4791", "unknown"),
    Way(
        "Gloo's policies say who may call",
        (kind("security.policy.gloo.solo.io/v2", "AccessPolicy", where="a"),),
        "chat",
        "pod/a/web:80",
        "unknown",
    ),
]
WAYS = [*MORE_WAYS, *EKS_WAYS, *MESH_WAYS, *OTHER_WAYS]
