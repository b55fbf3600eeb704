"""Inputs that the parsers of scripts/fuzz_targets.py take, to be damaged."""

from __future__ import annotations

import struct

KUBECONFIG = b"""apiVersion: v1
kind: Config
current-context: a
clusters: [{name: a, cluster: {server: "https://10.0.0.1:6443", insecure-skip-tls-verify: true}}]
contexts: [{name: a, context: {cluster: a, user: a, namespace: x}}]
users: [{name: a, user: {token: abc}}]
"""
# Of no program that there is: it is run.
EXEC_KUBECONFIG = b"""apiVersion: v1
kind: Config
current-context: a
clusters:
- {name: a, cluster: {server: "https://10.0.0.1:6443", extensions: [{name: client.authentication.k8s.io/exec, extension: {}}]}}
contexts: [{name: a, context: {cluster: a, user: a}}]
users:
- name: a
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin-of-any-cloud, args: [a, b],
      interactiveMode: Never, provideClusterInfo: true, env: [{name: A, value: b}]}
"""
EXEC_CREDENTIAL = (
    b'{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "t", '
    b'"expirationTimestamp": "2030-01-01T00:00:00Z", "clientCertificateData": "c", "clientKeyData": "k"}}'
)
POLICIES = [
    b"""apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: a, namespace: b}
spec:
  podSelector: {matchExpressions: [{key: app, operator: In, values: [x, y]}]}
  ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}, {namespaceSelector: {}}], ports: [{port: 80}]}]
""",
    b"""apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: a, namespace: b}
spec:
  endpointSelector: {matchLabels: {app: x}}
  egress: [{toFQDNs: [{matchPattern: "*.a*.example.com"}], toPorts: [{ports: [{port: "443"}]}]}, {toEntities: [world]}]
""",
    b"""apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: a}
spec:
  order: 10
  selector: (app == 'x' || has(y)) && !(z in {'a', 'b'})
  ingress: [{action: Allow, protocol: TCP, source: {nets: [10.0.0.0/8], notPorts: ["80:90", 443]}}]
""",
    b"""apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: a}
spec:
  priority: 5
  subject: {namespaces: {}}
  egress: [{name: r, action: Deny, to: [{domainNames: ["*.example.com"]}], ports: [{portNumber: {protocol: TCP, port: 80}}]}]
""",
]
KUSTOMIZATION = b"""resources: [objects.yaml]
namespace: ai
namePrefix: p-
commonLabels: {a: b}
labels: [{pairs: {c: d}, includeTemplates: true}]
images: [{name: a/b, newTag: "2"}]
replicas: [{name: a, count: 3}]
configMapGenerator: [{name: c, literals: [a=b], files: [x=objects.yaml]}]
patches:
- {target: {kind: Net.*, name: "(a|b)", labelSelector: "x in (y), !z"}, patch: '[{op: add, path: /spec/x, value: 1}]'}
- patch: |
    {apiVersion: v1, kind: NetworkPolicy, metadata: {name: a}, spec: {policyTypes: [Egress]}}"""
ANNOTATED = b"""apiVersion: v1
kind: Pod
metadata:
  name: a
  namespace: b
  labels: {app: vllm}
  annotations:
    k8s.v1.cni.cncf.io/networks: '[{"name": "a"}]'
    networking.gke.io/interfaces: '[{"interfaceName": "eth1"}]'
spec:
  containers:
  - name: c
    image: vllm/vllm-openai
    args: [--port=8000]
    env: [{name: NCCL_SOCKET_IFNAME, value: "=eth0"}]
    resources: {limits: {nvidia.com/gpu: 8, vpc.amazonaws.com/efa: 4}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
      kubernetes cluster.local in-addr.arpa {
        ttl 30
      }
      forward . /etc/resolv.conf
      cache 30
    }
---
apiVersion: v1
kind: ConfigMap
metadata: {name: kube-proxy, namespace: kube-system}
data: {config.conf: "mode: ipvs\nconntrack: {min: 1}\n"}
"""
CONNTRACK = (
    b"tcp      6 86399 ESTABLISHED src=10.0.0.2 dst=10.96.0.1 sport=40000 dport=443 src=10.0.0.9 dst=10.0.0.2 sport=6443 "
    b"dport=40000 [ASSURED] mark=0 use=1\n"
)
IPVSADM = b"""IPVS connection entries
pro expire state       source             virtual            destination
TCP 14:58  ESTABLISHED 10.0.0.2:40000     10.96.0.1:443      10.0.0.9:6443
"""
METRICS = b"""kubeproxy_sync_proxy_rules_duration_seconds_bucket{le="0.512"} 90
kubeproxy_network_programming_duration_seconds_bucket{ip_family="IPv4",le="+Inf"} 12
iptables"""
CGROUP = b"""0::/kubepods-burstable-pod01234567_89ab_cdef_0123_456789abcdef.slice/cri-containerd-aa.scope
nr_periods 4100
nr_throttled 900
throttled_usec 61000
"""
QUERY = (
    struct.pack("!6H", 1, 0x100, 1, 1, 0, 1)
    + b"\3app\7example\3com\0\0\1\0\1"
    + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\n\0\0\1"
)
NFT_TEXT = b"""table ip kube-proxy {
\tchain services {
\t\ttype nat hook prerouting priority dstnat; policy accept;
\t\tip daddr . meta l4proto . th dport vmap @service-ips
\t\tip saddr 10.0.0.0/8 tcp dport { 80, 443 } log prefix "x y" counter packets 1 bytes 2 dnat to 10.0.0.1:80
\t}
}
"""
