"""Targets of scripts/fuzz_targets.py that judge with what they parse, and what nodes, collectors and people write besides."""

from __future__ import annotations

from pathlib import Path

from kubectl_genainet.agent.always.otlp import _rejected
from kubectl_genainet.doctor.accept import accepted_by, read_baseline
from kubectl_genainet.kube.files.charts import policy_kinds_in
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Finding, ObjectRef, Severity
from kubectl_genainet.model.packet import Protocol
from kubectl_genainet.policy.engine import PolicyEngine
from kubectl_genainet.policy.model import PolicyFlow, pod_endpoint
from kubectl_genainet.proxy import Packet, evaluate, service_rules
from kubectl_genainet.proxy.hits import connections_by_backend, parse_conntrack
from kubectl_genainet.proxy.ruleset import parse_ruleset
from kubectl_genainet.run.rules import saved_dumps

LISTING = b"""Chain INPUT (policy ACCEPT 10 packets, 20 bytes)
 pkts bytes target     prot opt in     out     source               destination
    1    60 KUBE-FIREWALL  all  --  *      *       0.0.0.0/0            0.0.0.0/0
Chain KUBE-FIREWALL (2 references)
 pkts bytes target     prot opt in     out     source               destination
    0     0 DROP       tcp  --  eth0   *      !10.0.0.0/8           10.96.0.1            /* a b */ tcp dpt:443 ctstate INVALID
"""
BASELINE = b'{"schema": 1, "accepted": [{"check": "a", "object": "Service/a*b", "reason": "x"}]}'
ANSWER = b'{"partialSuccess": {"rejectedLogRecords": "3", "errorMessage": "x"}}'
CHART = b"apiVersion: v1\n- kind: NetworkPolicy\n  kind: 'CiliumNetworkPolicy'\n"
CILIUM = b"""apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config, namespace: kube-system}
data: {labels: "k8s:app k8s:!x.* !(a|b)", policy-cidr-match-mode: nodes, enable-ipv6: "true"}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: b, labels: {app: x, aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab: y}}
status: {podIP: 10.0.0.2, podIPs: [{ip: 10.0.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: q, namespace: b, labels: {app: y}}
status: {podIP: 10.0.0.3}
"""
_FINDING = Finding("a", "x", Severity.WARNING, (), ObjectRef("Service", "b" * 200, "a" * 200))
_PACKET = Packet(src="10.0.0.2", dst="10.96.0.1", dport=443, protocol=Protocol.TCP)


def judge(path: Path) -> object:
    """Every policy of a file, asked for the flow between each pod and the first ones."""
    engine = PolicyEngine(load_manifests([str(path)]))
    pods = engine.snapshot.pods[:2]
    ends = [pod_endpoint(pod.metadata.namespace, pod.metadata.name) for pod in pods]
    flows = [PolicyFlow(source, target, "TCP", 80) for source in ends for target in ends]
    return [engine.explain(flow) for flow in flows]


def listing(data: bytes) -> object:
    """What somebody pasted, evaluated."""
    rules = parse_ruleset(saved_dumps([("a", data.decode(errors="replace"))])[""])
    return evaluate(rules, _PACKET), service_rules(rules)


def conntrack(data: bytes) -> object:
    entries = parse_conntrack(data.decode(errors="replace"))
    return connections_by_backend(entries), [entry.translated for entry in entries]


def baseline(data: bytes) -> object:
    return [accepted_by(_FINDING, read_baseline(data, "baseline"))]


def collectors_answer(data: bytes) -> int:
    return _rejected(data)


def chart(data: bytes) -> object:
    return policy_kinds_in(data.decode(errors="replace"))
