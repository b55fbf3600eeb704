"""Pods belong to parts of objects: leaders and workers, heads and groups; Services are joined to the pods first."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import cluster_of, findings, unchecked

LWS = """
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: big, namespace: serving}
spec:
  leaderWorkerTemplate:
    size: 4
    leaderTemplate:
      metadata: {labels: {tier: leader}}
      spec: {containers: [{name: main, image: "vllm/vllm-openai:v0.9.2", ports: [{containerPort: 8000}]}]}
    workerTemplate:
      spec: {containers: [{name: main, image: "vllm/vllm-openai:v0.9.2"}]}
"""
CHAIN = """
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: big
  namespace: serving
  ownerReferences: [{apiVersion: leaderworkerset.x-k8s.io/v1, kind: LeaderWorkerSet, name: big, controller: true}]
spec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: "x:1"}]}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: big-0
  namespace: serving
  labels: {leaderworkerset.sigs.k8s.io/name: big, leaderworkerset.sigs.k8s.io/worker-index: "0", tier: leader}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: big, controller: true}]
spec: {nodeName: n1, containers: [{name: main, image: "vllm/vllm-openai:v0.9.2"}]}
status: {phase: Running}
---
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: big-0
  namespace: serving
  ownerReferences: [{apiVersion: v1, kind: Pod, name: big-0, controller: true}]
spec: {template: {metadata: {labels: {a: b}}, spec: {containers: [{name: main, image: "x:1"}]}}}
---
apiVersion: v1
kind: Pod
metadata:
  name: big-0-1
  namespace: serving
  labels: {leaderworkerset.sigs.k8s.io/name: big, leaderworkerset.sigs.k8s.io/worker-index: "1"}
  ownerReferences: [{apiVersion: apps/v1, kind: StatefulSet, name: big-0, controller: true}]
spec: {nodeName: n2, containers: [{name: main, image: "vllm/vllm-openai:v0.9.2"}]}
status: {phase: Running}
"""
SERVICE = """
---
apiVersion: v1
kind: Service
metadata: {name: big-http, namespace: serving}
spec: {selector: {leaderworkerset.sigs.k8s.io/name: big, tier: leader}, ports: [{port: 80, targetPort: 8000}]}
"""


def parts(text: str) -> dict[tuple[str, str], list[str]]:
    return {(str(w.ref), w.part): [p.ref.name for p in w.pods] for w in cluster_of(text).workloads}


def test_leader_and_worker_are_parts_of_one_object() -> None:
    found = parts(LWS + CHAIN)
    assert found == {
        ("LeaderWorkerSet serving/big", "leader"): ["big-0"],
        ("LeaderWorkerSet serving/big", "worker"): ["big-0-1"],
    }


def test_a_service_is_joined_to_the_leader_only() -> None:
    for text in (LWS + CHAIN + SERVICE, LWS + SERVICE):
        cluster = cluster_of(text)
        assert [w.part for w in cluster.workloads_of(cluster.services[0])] == ["leader"]
        assert findings(text, "service-selector") == []


def test_field_paths_lead_into_the_part() -> None:
    leader, worker = cluster_of(LWS).workloads
    assert leader.field("containers[0].image") == "spec.leaderWorkerTemplate.leaderTemplate.spec.containers[0].image"
    assert worker.label_field("x") == "spec.leaderWorkerTemplate.workerTemplate.metadata.labels[x]"


def test_only_the_leader_of_a_group_serves() -> None:
    found = {o: f.evidence[0].field for f in findings(LWS, "readiness-probe") if (o := str(f.object))}
    assert found == {
        "LeaderWorkerSet serving/big": "spec.leaderWorkerTemplate.leaderTemplate.spec.containers[0].readinessProbe"
    }


OWNED = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: embed, namespace: serving}
spec: {predictor: {model: {modelFormat: {name: huggingface}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: embed-predictor
  namespace: serving
  ownerReferences: [{apiVersion: serving.kserve.io/v1beta1, kind: InferenceService, name: embed, controller: true}]
spec:
  template:
    metadata: {labels: {app: isvc.embed-predictor}}
    spec: {containers: [{name: kserve-container, image: "kserve/huggingfaceserver:v0.15.2"}]}
"""


def test_what_an_operator_made_says_more_than_the_object_it_was_made_of() -> None:
    assert set(parts(OWNED)) == {("Deployment serving/embed-predictor", "")}
    alone = OWNED.split("---")[0]
    assert set(parts(alone)) == {("InferenceService serving/embed", "")}


def selecting(labels: str) -> str:
    return (
        LWS
        + f"""
---
apiVersion: v1
kind: Service
metadata: {{name: front, namespace: serving}}
spec: {{selector: {labels}, ports: [{{port: 80}}]}}
"""
    )


def test_a_selector_on_labels_that_a_controller_adds_is_not_checked() -> None:
    for labels in ("{job-name: t}", "{cnpg.io/cluster: db}", "{gateway.networking.k8s.io/gateway-name: edge}"):
        for complete in (False, True):
            assert findings(selecting(labels), "service-selector", complete=complete) == []
        assert "a controller adds the label" in unchecked(selecting(labels), "service-selector")


def test_a_selector_that_matches_nothing_is_a_fault_of_a_whole_cluster() -> None:
    assert "made elsewhere" in unchecked(selecting("{app: other}"), "service-selector")
    found = findings(selecting("{app: other}"), "service-selector", complete=True)
    assert [str(f.object) for f in found] == ["Service serving/front"]


def test_a_selector_that_misses_a_workload_by_one_letter_is_a_fault_anywhere() -> None:
    found = findings(selecting("{tier: leadr}"), "service-selector")
    assert "LeaderWorkerSet serving/big has tier=leader" in found[0].evidence[0].statement


DEPLOYMENT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: op, namespace: serving}
spec:
  template:
    metadata: {labels: {app: op}}
    spec:
      containers:
      - {name: main, image: "registry.test/op:1", ports: [{containerPort: 9443, name: hook}], args: [ARGS]}
---
apiVersion: v1
kind: Service
metadata: {name: op, namespace: serving}
spec: {selector: {app: op}, ports: [{name: http, port: 80, targetPort: 7070}]}
"""


def test_a_port_that_the_command_line_names_needs_no_declaration() -> None:
    assert findings(DEPLOYMENT.replace("ARGS", '"--listen=:7070"'), "service-target-port") == []
    assert len(findings(DEPLOYMENT.replace("ARGS", '"--listen=:17070"'), "service-target-port")) == 1


def of_kind(api: str, kind: str, template_at: str) -> str:
    """An object whose pods' template is at a path; `{}` of it is the template."""
    container = "{name: c, image: 'registry.test/llm:1', ports: [{containerPort: 8000}]}"
    pod = f"{{metadata: {{labels: {{app: chat-server}}}}, spec: {{containers: [{container}]}}}}"
    return f"""
apiVersion: {api}
kind: {kind}
metadata: {{name: llm, namespace: serving}}
spec: {template_at.replace("{}", pod)}
---
apiVersion: v1
kind: Service
metadata: {{name: front, namespace: serving}}
spec: {{selector: {{app: chat-server}}, ports: [{{port: 80, targetPort: 8000}}]}}
"""


KINDS = [
    ("v1", "ReplicationController", "{template: {}}"),
    ("argoproj.io/v1alpha1", "Rollout", "{template: {}}"),
    ("apps.openshift.io/v1", "DeploymentConfig", "{template: {}}"),
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "{leaderWorkerTemplate: {size: 2, workerTemplate: {}}}"),
    ("jobset.x-k8s.io/v1alpha2", "JobSet", "{replicatedJobs: [{name: w, template: {spec: {template: {}}}}]}"),
    ("kubeflow.org/v1", "PyTorchJob", "{pytorchReplicaSpecs: {Master: {template: {}}}}"),
    ("kubeflow.org/v2beta1", "MPIJob", "{mpiReplicaSpecs: {Worker: {template: {}}}}"),
    ("batch.volcano.sh/v1alpha1", "Job", "{tasks: [{name: w, replicas: 2, template: {}}]}"),
    ("ray.io/v1", "RayCluster", "{headGroupSpec: {template: {}}}"),
    ("ray.io/v1", "RayService", "{rayClusterConfig: {headGroupSpec: {template: {}}}}"),
    ("ray.io/v1", "RayJob", "{rayClusterSpec: {headGroupSpec: {template: {}}}}"),
]


@pytest.mark.parametrize(("api", "kind", "template_at"), KINDS, ids=[k[1] + k[0] for k in KINDS])
def test_a_service_is_joined_to_the_pods_of_every_kind(api: str, kind: str, template_at: str) -> None:
    text = of_kind(api, kind, template_at)
    cluster = cluster_of(text)
    assert {w.ref.kind for w in cluster.workloads_of(cluster.services[0])} == {kind}
    assert findings(text, "service-selector", complete=True) == []
    assert len(findings(text.replace("{app: chat-server}, ports", "{app: chat-servr}, ports"), "service-selector")) == 1
