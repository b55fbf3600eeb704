"""Which flows between workloads a remedy turns: all that its policies may concern are compared, and named by whole names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from kubectl_genainet.doctor import changed_flows as flows
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.doctor.trial import tried
from kubectl_genainet.model.finding import Certainty, Evidence, Finding, ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject
from tests.unit.doctor.worlds.manifests import cluster_of

Object = dict[str, Any]


def workload(name: str, namespace: str, port: int = 8080) -> str:
    return f"""
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec: {{containers: [{{name: c, image: "x:1", ports: [{{containerPort: {port}}}]}}]}}
---"""


def policy(namespace: str, peer: Object | None, name: str = "only") -> Object:
    spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{"from": [peer]}] if peer is not None else []}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def with_objects(cluster: Cluster, *raws: Object) -> Cluster:
    new = tuple(KubeObject(raw, "remedy") for raw in raws)
    kept = tuple(o for o in cluster.snapshot.objects if o.ref not in {n.ref for n in new})
    return replace(cluster, snapshot=replace(cluster.snapshot, objects=kept + new))


def test_a_flow_of_the_last_namespace_is_compared_where_many_come_before_it() -> None:
    many = "".join(workload(f"w{i}", "aaa") for i in range(70))
    before = cluster_of(many + workload("a", "zzz") + workload("b", "zzz"))
    changed = flows.changed_flows(before, with_objects(before, policy("zzz", None)))
    assert flows.FlowKey("Deployment zzz/a", "Deployment zzz/b", "TCP", 8080) in changed.closed
    assert flows.FlowKey("Deployment aaa/w69", "Deployment zzz/b", "TCP", 8080) in changed.closed
    assert not [flow for flow in changed.closed if " aaa/" in flow.server]
    assert changed.complete and changed.opened == ()


def test_labels_of_a_namespace_turn_flows_as_policies_do() -> None:
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: apps, labels: {team: chat}}\n---"
    alone = cluster_of(namespace + workload("a", "apps") + workload("b", "models"))
    before = with_objects(alone, policy("models", {"namespaceSelector": {"matchLabels": {"team": "chat"}}}))
    renamed: Object = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "apps", "labels": {"team": "rag"}}}
    changed = flows.changed_flows(before, with_objects(before, renamed))
    assert changed.closed == (flows.FlowKey("Deployment apps/a", "Deployment models/b", "TCP", 8080),)


ABOUT = ObjectRef("Service", "chatbot-ui", "shop")


def judged(cluster: Cluster) -> Remedy:
    """A remedy that admits everyone to all pods, given for a finding that names chatbot-ui."""
    everyone = adding("Admit it.", policy("shop", {"podSelector": {}}, "all"))
    evidence = (Evidence("the clients of chatbot-ui are not admitted", Certainty.OBSERVED, ABOUT),)
    finding = Finding("x", "x", Severity.WARNING, evidence, ABOUT, remedy=everyone)
    (after,) = tried(cluster, [finding], lambda _: [])
    assert after.remedy is not None
    return after.remedy


def test_a_name_that_is_part_of_another_word_is_not_named() -> None:
    """The finding's text has chatbot-ui, and no workload ui."""
    closed = with_objects(cluster_of(workload("ui", "shop") + workload("client", "shop")), policy("shop", None))
    assert (
        judged(closed).trial
        == "tried: it opens Deployment shop/client → Deployment shop/ui TCP 8080, so no change is given"
    )
    named = with_objects(cluster_of(workload("chatbot-ui", "shop") + workload("client", "shop")), policy("shop", None))
    assert judged(named).trial.startswith("tried: heals it")


def test_what_was_not_compared_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows, "MOST_FLOWS", 1)
    named = with_objects(cluster_of(workload("chatbot-ui", "shop") + workload("client", "shop")), policy("shop", None))
    assert judged(named).trial.endswith("of the flows that it may concern not all were compared")
