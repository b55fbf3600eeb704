"""A name that was probably meant, or the only port: the remedy puts it in place, and was tried."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.changes import changes_something
from kubectl_genainet.model.finding import Remedy
from tests.unit.doctor.faults.cases import CASES
from tests.unit.doctor.worlds.manifests import findings

SERVED = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: llama, namespace: ai}
spec:
  selector: {matchLabels: {app: llama}}
  template:
    metadata: {labels: {app: llama}}
    spec:
      containers:
      - {name: c, image: "registry.test/app:1", ports: [{containerPort: 8000}], envFrom: [{configMapRef: {name: own}}]}
---
apiVersion: v1
kind: Service
metadata: {name: llama, namespace: ai}
spec: {selector: {app: llama}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: ai}
spec: {selector: {app: store}, ports: [{port: 81, targetPort: 8000}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: ingress, namespace: ai}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: [other.example.com]}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: waypoint, namespace: ai}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
---
"""
INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: chat, namespace: ai}
spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: lama, port: {number: 80}}}}]}}]}
"""
ROUTE = """
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: ai}
spec: {rules: [{backendRefs: [{name: lama, port: 80}]}]}
"""
VIRTUAL = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: chat, namespace: ai}
spec: {hosts: [HOST], gateways: [GATEWAY], http: [{route: [{destination: {host: LAMA}}]}]}
"""
POOL = """
apiVersion: inference.networking.k8s.io/v1
kind: InferencePool
metadata: {name: llama, namespace: ai}
spec: {selector: {matchLabels: {app: llama}}, targetPorts: [{number: 8080}]}
"""
NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: ai, labels: {istio.io/dataplane-mode: ambient, istio.io/use-waypoint: waypiont}}
"""
CONFIG = """
apiVersion: v1
kind: ConfigMap
metadata: {name: own, namespace: ai}
data: {OTHER_URL: "http://other:80"}
"""


def virtual(host: str, gateway: str, destination: str) -> str:
    return VIRTUAL.replace("HOST", host).replace("GATEWAY", gateway).replace("LAMA", destination)


@pytest.mark.parametrize(
    ("check", "text", "value"),
    [
        ("ingress-backend", INGRESS, "llama"),
        ("route-backend", ROUTE, "llama"),
        (
            "virtual-service-backend",
            virtual("other.example.com", "ingress", "lama.ai.svc.cluster.local"),
            "llama.ai.svc",
        ),
        ("virtual-service-gateway", virtual("other.example.com", "ingres", "llama"), "ingress"),
        ("virtual-service-gateway", virtual("chat.example.com", "ingress", "llama"), "chat.example.com"),
        ("inference-pool", POOL, "8000"),
        ("mesh-waypoint", NAMESPACE, "use-waypoint=waypoint"),
        ("call-port", CONFIG, "http://other:81"),
    ],
)
def test_what_was_meant_is_put_in_place_and_heals(check: str, text: str, value: str) -> None:
    remedies = [f.remedy for f in findings(SERVED + text, check) if f.remedy is not None]
    (remedy,) = [r for r in remedies if value in r.command]
    assert remedy.trial.startswith("tried: heals it"), remedy


@pytest.mark.parametrize(
    ("command", "changes"),
    [
        ("ethtool -S eth0 | grep allowance   # on the node", False),
        ("conntrack -C   # on node a", False),
        ("conntrack -D -p udp", True),
        ("iptables-legacy -t filter -vnL OUTPUT --line-numbers   # on node a", False),
        ("iptables -P FORWARD ACCEPT", True),
        ("iptables-save | grep -v KUBE | iptables-restore", True),
        ("ip6tables-nft-save | grep -v KUBE- | ip6tables-nft-restore", True),
        ("ip6tables-legacy -P FORWARD ACCEPT", True),
        ("nft delete table ip kube-proxy   # on node a", True),
        ("ipvsadm --clear\nip link delete kube-ipvs0", True),
        ("rdma -p statistic show", False),
        ("aws ec2 describe-subnets --output table", False),
        ("aws ec2 create-placement-group --group-name g", True),
        ("aws ec2 describe-subnets\naws ec2 associate-vpc-cidr-block --vpc-id V", True),
    ],
)
def test_a_command_of_another_program_that_only_shows_changes_nothing(command: str, changes: bool) -> None:
    assert changes_something(Remedy("", command)) is changes


@pytest.mark.parametrize("pool", ["10.42.0.0/16", ""])
def test_cilium_does_not_start_with_native_routing_and_no_range_of_pods(pool: str) -> None:
    case = next(c for c in CASES if c.name == "cilium_tunnel")
    world = case.base()
    case.fault(world)
    world.get("ConfigMap", "cilium-config", "kube-system")["data"]["cluster-pool-ipv4-cidr"] = pool
    (remedy,) = [f.remedy for f in world.report().findings if f.check == case.check and f.remedy is not None]
    assert f"--set routingMode=native --set ipv4NativeRoutingCIDR={pool or 'CIDR'} " in remedy.command
    assert ("CIDR is the range of pod addresses" in remedy.text) is not pool.startswith("10.")
