"""The kinds that make pods: every template is found, with the labels that its controller adds."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.kinds import makes_pods, pod_templates

TEMPLATE = {"metadata": {"labels": {"app": "x"}}, "spec": {"containers": [{"name": "c"}]}}


def made(version: str, kind: str, spec: dict[str, Any]) -> KubeObject:
    return KubeObject({"apiVersion": version, "kind": kind, "metadata": {"name": "w", "namespace": "ai"}, "spec": spec})


def test_a_kind_is_known_by_its_group() -> None:
    assert makes_pods(made("batch/v1", "Job", {"template": TEMPLATE}))
    assert not makes_pods(made("example.org/v1", "Job", {"template": TEMPLATE}))
    assert pod_templates(made("v1", "Service", {"template": TEMPLATE})) == []


def test_each_part_is_a_template_with_its_path_and_replicas() -> None:
    tasks = [{"name": "ps", "template": TEMPLATE}, {"name": "worker", "replicas": 4, "template": TEMPLATE}]
    ps, worker = pod_templates(made("batch.volcano.sh/v1alpha1", "Job", {"tasks": tasks}))
    assert (ps.part, ps.replicas, worker.part, worker.replicas) == ("ps", 1, "worker", 4)
    assert worker.spec_path == ("spec", "tasks", 1, "template", "spec")
    assert worker.labels == {"app": "x", "volcano.sh/job-name": "w", "volcano.sh/task-spec": "worker"}


def test_replica_types_of_a_training_job_are_parts() -> None:
    replicas = {"Launcher": {"template": TEMPLATE}, "Worker": {"replicas": 2, "template": TEMPLATE}}
    found = pod_templates(made("kubeflow.org/v1", "MPIJob", {"mpiReplicaSpecs": replicas}))
    assert [t.labels["training.kubeflow.org/replica-type"] for t in found] == ["launcher", "worker"]


def test_leader_and_workers_share_a_template_where_only_one_is_given() -> None:
    spec = {"leaderWorkerTemplate": {"size": 2, "workerTemplate": TEMPLATE}}
    leader, worker = pod_templates(made("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", spec))
    assert leader.spec == worker.spec == TEMPLATE["spec"]
    assert leader.labels["leaderworkerset.sigs.k8s.io/name"] == "w"


def test_a_ray_service_has_head_and_worker_groups() -> None:
    groups = [{"groupName": "gpu", "replicas": 3, "template": TEMPLATE}]
    spec = {"rayClusterConfig": {"headGroupSpec": {"template": TEMPLATE}, "workerGroupSpecs": groups}}
    head, gpu = pod_templates(made("ray.io/v1", "RayService", spec))
    assert (head.labels["ray.io/node-type"], gpu.labels["ray.io/group"], gpu.replicas) == ("head", "gpu", 3)
    assert "ray.io/cluster" not in head.labels


def test_the_model_of_an_inference_service_is_its_container() -> None:
    spec = {"predictor": {"model": {"modelFormat": {"name": "huggingface"}, "ports": [{"containerPort": 8080}]}}}
    (predictor,) = pod_templates(made("serving.kserve.io/v1beta1", "InferenceService", spec))
    assert predictor.spec["containers"][0]["ports"] == [{"containerPort": 8080}]
    assert predictor.labels["app"] == "isvc.w-predictor"
    assert predictor.spec_path == ("spec", "predictor")


def test_a_rollout_may_take_the_template_of_a_deployment() -> None:
    deployment = made("apps/v1", "Deployment", {"template": TEMPLATE})
    rollout = made("argoproj.io/v1alpha1", "Rollout", {"workloadRef": {"kind": "Deployment", "name": "w"}})
    assert pod_templates(rollout) == []
    assert [t.labels for t in pod_templates(rollout, {"Deployment": (deployment,)})] == [{"app": "x"}]


def test_a_train_job_has_the_pods_of_its_runtime() -> None:
    jobs = [{"name": "node", "template": {"spec": {"template": TEMPLATE}}}]
    raw = made(
        "trainer.kubeflow.org/v1alpha1", "ClusterTrainingRuntime", {"template": {"spec": {"replicatedJobs": jobs}}}
    )
    del raw.raw["metadata"]["namespace"]
    job = made("trainer.kubeflow.org/v1alpha1", "TrainJob", {"runtimeRef": {"name": "w"}})
    assert [t.part for t in pod_templates(job, {"ClusterTrainingRuntime": (raw,)})] == ["node"]
