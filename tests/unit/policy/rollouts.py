"""What controllers write into the labels of the pods that they make, release after release and replica after replica.

Written from the documentation of each controller, for the tests of patches; it shares nothing with the code under test. A
kind says how a pod is named, which labels it gets beside those of its template, and who owns it.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Raw = dict[str, Any]
_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # of apimachinery's random names


def sha(*of: object) -> str:
    return hashlib.sha1(repr(of).encode()).hexdigest()


def uid(*of: object) -> str:
    return str(uuid.UUID(hashlib.md5(repr(of).encode()).hexdigest()))


def random_name(length: int, *of: object) -> str:
    return "".join(_ALPHABET[b % len(_ALPHABET)] for b in hashlib.sha256(repr(of).encode()).digest()[:length])


@dataclass
class Made:
    """One pod as its controller makes it. `owners` lead from the pod's own upwards; `objects` are those that were read."""

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    owners: tuple[tuple[str, str], ...] = ()
    defaults: dict[str, str] = field(default_factory=dict)  # labels that are set where the template has none

    def pod(self, namespace: str, template: dict[str, str], address: str) -> Raw:
        metadata: Raw = {"name": self.name, "namespace": namespace}
        metadata["labels"] = {**self.defaults, **template, **self.labels}
        if self.owners:
            kind, name = self.owners[0]
            metadata["ownerReferences"] = [{"kind": kind, "name": name, "controller": True}]
        spec = {"containers": [{"name": "c"}], "nodeName": "n1"}
        status = {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status}


Kind = Callable[[str, int, int], Made]  # the workload's name, the release, the replica


def deployment(name: str, release: int, replica: int) -> Made:
    hashed = random_name(9, name, release)
    owner = f"{name}-{hashed}"
    labels = {"pod-template-hash": hashed}
    return Made(f"{owner}-{random_name(5, release, replica)}", labels, (("ReplicaSet", owner), ("Deployment", name)))


def rollout(name: str, release: int, replica: int) -> Made:
    made = deployment(name, release, replica)
    hashed = made.labels.pop("pod-template-hash")
    return Made(made.name, {"rollouts-pod-template-hash": hashed}, (made.owners[0], ("Rollout", name)))


def flagger_primary(name: str, release: int, replica: int) -> Made:
    made = deployment(f"{name}-primary", release, replica)
    return Made(made.name, {**made.labels, "app": f"{name}-primary"}, made.owners)


def stateful_set(name: str, release: int, replica: int) -> Made:
    labels = {
        "statefulset.kubernetes.io/pod-name": f"{name}-{replica}",
        "apps.kubernetes.io/pod-index": str(replica),
        "controller-revision-hash": f"{name}-{random_name(10, release)}",
    }
    return Made(f"{name}-{replica}", labels, (("StatefulSet", name),))


def daemon_set(name: str, release: int, replica: int) -> Made:
    labels = {"controller-revision-hash": random_name(9, name, release), "pod-template-generation": str(release)}
    return Made(f"{name}-{random_name(5, release, replica)}", labels, (("DaemonSet", name),))


def _job_labels(job: str, *of: object) -> dict[str, str]:
    own = uid(job, *of)
    prefixed = {"batch.kubernetes.io/controller-uid": own, "batch.kubernetes.io/job-name": job}
    return {**prefixed, "controller-uid": own, "job-name": job}


def cron_job(name: str, release: int, replica: int) -> Made:
    job = f"{name}-{28394857 + 60 * release}"
    labels = _job_labels(job, release)
    return Made(f"{job}-{random_name(5, release, replica)}", labels, (("Job", job), ("CronJob", name)))


def job(name: str, release: int, replica: int) -> Made:
    """A Job of a chart's hook: each release has its own, by the release's number."""
    own = f"{name}-{release}"
    return Made(f"{own}-{random_name(5, release, replica)}", _job_labels(own, release), (("Job", own),))


def deployment_config(name: str, release: int, replica: int) -> Made:
    labels = {"deployment": f"{name}-{release}", "deploymentconfig": name}
    owners = (("ReplicationController", f"{name}-{release}"), ("DeploymentConfig", name))
    return Made(f"{name}-{release}-{random_name(5, release, replica)}", labels, owners)


def _revision_labels(name: str, release: int) -> dict[str, str]:
    return {
        "serving.knative.dev/configuration": name,
        "serving.knative.dev/configurationGeneration": str(release),
        "serving.knative.dev/configurationUID": uid(name, "configuration"),
        "serving.knative.dev/revision": f"{name}-{release:05}",
        "serving.knative.dev/revisionUID": uid(name, release),
        "serving.knative.dev/service": name,
        "serving.knative.dev/serviceUID": uid(name, "service"),
    }


def knative(name: str, release: int, replica: int) -> Made:
    revision = f"{name}-{release:05}"
    below = deployment(f"{revision}-deployment", release, replica)
    owners = (*below.owners, ("Revision", revision), ("Configuration", name))
    labels = {**_revision_labels(name, release), **below.labels}
    return Made(below.name, labels, owners, {"app": revision})


def knative_of_an_operator(name: str, release: int, replica: int) -> Made:
    """Where an admission policy strips the labels of the Service and of the configuration, but for its generation."""
    made = knative(name, release, replica)
    for key in ("service", "serviceUID", "configuration", "configurationUID"):
        del made.labels[f"serving.knative.dev/{key}"]
    return made


def kserve(name: str, release: int, replica: int) -> Made:
    made = knative(f"{name}-predictor", release, replica)
    made.labels |= {"serving.kserve.io/inferenceservice": name, "component": "predictor", "serviceEnvelope": "kserve"}
    return made


def kserve_raw(name: str, release: int, replica: int) -> Made:
    made = deployment(f"{name}-predictor", release, replica)
    labels = {"app": f"isvc.{name}-predictor", "component": "predictor", "serving.kserve.io/inferenceservice": name}
    return Made(made.name, {**made.labels, **labels}, (*made.owners, ("InferenceService", name)))


def leader(name: str, release: int, replica: int) -> Made:
    made = stateful_set(name, release, replica)
    return Made(
        made.name, {**made.labels, **_group(name, release, replica, 0)}, (*made.owners, ("LeaderWorkerSet", name))
    )


def worker(name: str, release: int, replica: int) -> Made:
    made = stateful_set(f"{name}-{replica}", release, 1)
    made.labels["apps.kubernetes.io/pod-index"] = "1"
    return Made(
        made.name, {**made.labels, **_group(name, release, replica, 1)}, (("StatefulSet", f"{name}-{replica}"),)
    )


def _group(name: str, release: int, group: int, index: int) -> dict[str, str]:
    prefix = "leaderworkerset.sigs.k8s.io"
    return {
        f"{prefix}/name": name,
        f"{prefix}/group-index": str(group),
        f"{prefix}/worker-index": str(index),
        f"{prefix}/group-key": sha(name, group),
        f"{prefix}/template-revision-hash": random_name(9, name, release),
    }


def job_set(name: str, release: int, replica: int) -> Made:
    own = f"{name}-workers-{replica}"
    prefix = "jobset.sigs.k8s.io"
    labels = {
        **_job_labels(own, release, replica),
        "batch.kubernetes.io/job-completion-index": "0",
        f"{prefix}/jobset-name": name,
        f"{prefix}/jobset-uid": uid(name, release),
        f"{prefix}/replicatedjob-name": "workers",
        f"{prefix}/replicatedjob-replicas": str(2 + release),
        f"{prefix}/global-replicas": str(2 + release),
        f"{prefix}/job-index": str(replica),
        f"{prefix}/job-global-index": str(replica),
        f"{prefix}/job-key": sha(own),
        f"{prefix}/restart-attempt": str(release),
    }
    return Made(f"{own}-0-{random_name(5, release, replica)}", labels, (("Job", own), ("JobSet", name)))


def _ray(cluster: str) -> dict[str, str]:
    return {
        "app.kubernetes.io/created-by": "kuberay-operator",
        "app.kubernetes.io/name": "kuberay",
        "ray.io/cluster": cluster,
        "ray.io/group": "gpu",
        "ray.io/identifier": f"{cluster}-worker",
        "ray.io/is-ray-node": "yes",
        "ray.io/node-type": "worker",
    }


def ray_cluster(name: str, release: int, replica: int) -> Made:
    return Made(f"{name}-gpu-worker-{random_name(5, release, replica)}", _ray(name), (("RayCluster", name),))


def ray_service(name: str, release: int, replica: int) -> Made:
    cluster = f"{name}-{random_name(5, name, release)}"
    labels = {**_ray(cluster), "ray.io/serve": "true" if replica == 0 else "false"}
    owners = (("RayCluster", cluster), ("RayService", name))
    return Made(f"{cluster}-gpu-worker-{random_name(5, release, replica)}", labels, owners)


def volcano_job(name: str, release: int, replica: int) -> Made:
    labels = {
        "volcano.sh/job-name": name,
        "volcano.sh/job-namespace": "ai",
        "volcano.sh/queue-name": "gpu",
        "volcano.sh/task-index": str(replica),
        "volcano.sh/task-spec": "worker",
        "volcano.sh/job-version": str(release),
    }
    return Made(f"{name}-worker-{replica}", labels, (("Job", name),))


def pytorch_job(name: str, release: int, replica: int) -> Made:
    prefix = "training.kubeflow.org"
    labels = {
        f"{prefix}/job-name": name,
        f"{prefix}/operator-name": "pytorchjob-controller",
        f"{prefix}/replica-index": str(replica),
        f"{prefix}/replica-type": "worker",
    }
    return Made(f"{name}-worker-{replica}", labels, (("PyTorchJob", name),))


def spark_executor(name: str, release: int, replica: int) -> Made:
    app = f"spark-{sha(name, release)[:32]}"
    labels = {
        "spark-app-name": name,
        "spark-app-selector": app,
        "spark-exec-id": str(replica + 1),
        "spark-exec-resourceprofile-id": "0",
        "spark-role": "executor",
        "spark-version": f"3.5.{release}",
        "sparkoperator.k8s.io/app-name": name,
        "sparkoperator.k8s.io/submission-id": uid(name, release, "submission"),
    }
    driver = f"{name}-{sha(release)[:16]}-driver"
    return Made(f"{name}-{sha(release)[:16]}-exec-{replica + 1}", labels, (("Pod", driver),))


def tekton_task(name: str, release: int, replica: int) -> Made:
    run = f"{name}-run-{random_name(5, name, release, replica)}"
    labels = {
        "app.kubernetes.io/managed-by": "tekton-pipelines",
        "tekton.dev/memberOf": "tasks",
        "tekton.dev/pipeline": name,
        "tekton.dev/pipelineRun": run,
        "tekton.dev/pipelineRunUID": uid(run),
        "tekton.dev/pipelineTask": "embed",
        "tekton.dev/taskRun": f"{run}-embed",
        "tekton.dev/taskRunUID": uid(run, "embed"),
    }
    owners = (("TaskRun", f"{run}-embed"), ("PipelineRun", run))
    return Made(f"{run}-embed-pod", labels, owners)


def argo_workflow(name: str, release: int, replica: int) -> Made:
    run = f"{name}-{random_name(5, name, release)}"
    labels = {"workflows.argoproj.io/workflow": run, "workflows.argoproj.io/completed": "false"}
    return Made(f"{run}-embed-{1000000000 + replica * 7919 + release}", labels, (("Workflow", run),))


def airflow_task(name: str, release: int, replica: int) -> Made:
    labels = {
        "dag_id": name,
        "task_id": "embed",
        "run_id": f"scheduled__2026-0{release}-01T0000000000-{sha(release)[:9]}",
        "try_number": str(replica + 1),
        "airflow-worker": str(100 + release),
        "airflow_version": f"2.{release}.0",
        "kubernetes_executor": "True",
    }
    return Made(f"{name}-embed-{random_name(8, release, replica)}", labels)


def pipelines_step(name: str, release: int, replica: int) -> Made:
    made = argo_workflow(name, release, replica)
    more = {"pipeline/runid": uid(name, release), "pipelines.kubeflow.org/v2_component": "true"}
    return Made(made.name, {**made.labels, **more}, made.owners)


def clone_set(name: str, release: int, replica: int) -> Made:
    own = random_name(5, release, replica)
    labels = {
        "apps.kruise.io/cloneset-instance-id": own,
        "controller-revision-hash": f"{name}-{random_name(9, release)}",
        "lifecycle.apps.kruise.io/state": "Normal",
    }
    return Made(f"{name}-{own}", labels, (("CloneSet", name),))


def canonical(name: str, release: int, replica: int) -> Made:
    """A pod that Istio's injector labels."""
    made = deployment(name, release, replica)
    more = {
        "istio.io/rev": f"1-2{release}",
        "security.istio.io/tlsMode": "istio",
        "service.istio.io/canonical-name": name,
        "service.istio.io/canonical-revision": f"v{release}",
    }
    return Made(made.name, {**made.labels, **more}, made.owners)


def zoned(name: str, release: int, replica: int) -> Made:
    """Kubernetes 1.35 copies the topology of the node."""
    made = stateful_set(name, release, replica)
    zone = {"topology.kubernetes.io/zone": "abc"[(release + replica) % 3], "topology.kubernetes.io/region": "eu"}
    return Made(made.name, {**made.labels, **zone}, made.owners)


def storm_service(name: str, release: int, replica: int) -> Made:
    role_set = f"{name}-roleset-{random_name(5, name, release)}"
    labels = {
        "storm-service-name": name,
        "storm-service-revision": f"{name}-{random_name(9, release)}",
        "roleset-name": role_set,
        "roleset-index": str(replica),
        "role-name": "decode",
        "role-template-hash": random_name(9, name, release, "role"),
    }
    owners = (("RoleSet", role_set), ("StormService", name))
    return Made(f"{role_set}-decode-{random_name(5, replica)}", labels, owners)


def postgres(name: str, release: int, replica: int) -> Made:
    """An instance of CloudNativePG; a release begins with a switch-over to another primary."""
    role = "primary" if replica == release % 2 else "replica"
    labels = {
        "cnpg.io/cluster": name,
        "cnpg.io/instanceName": f"{name}-{replica + 1}",
        "cnpg.io/instanceRole": role,
        "cnpg.io/podRole": "instance",
        "role": role,
    }
    return Made(f"{name}-{replica + 1}", labels, (("Cluster", name),))


def runner(name: str, release: int, replica: int) -> Made:
    labels = {
        "actions.github.com/scale-set-name": name,
        "actions.github.com/scale-set-namespace": "ai",
        "actions-ephemeral": "True",
        "pod-template-hash": random_name(9, name, release),
        "runner-template-hash": random_name(10, name, release),
    }
    own = f"{name}-{random_name(5, name)}-runner-{random_name(5, release, replica)}"
    return Made(own, labels, (("EphemeralRunner", own), ("EphemeralRunnerSet", f"{name}-{random_name(5, release)}")))


KINDS: dict[str, Kind] = {
    made.__name__: made
    for made in (
        *(deployment, rollout, flagger_primary, stateful_set, daemon_set, cron_job, job, deployment_config, knative),
        *(knative_of_an_operator, kserve, kserve_raw, leader, worker, job_set, ray_cluster, ray_service, volcano_job),
        *(pytorch_job, spark_executor, tekton_task, argo_workflow, airflow_task, pipelines_step, clone_set, canonical),
        *(zoned, storm_service, postgres, runner),
    )
}
# The kinds above whose pods have nothing that lasts, unless their template has.
WITHOUT_A_NAME = frozenset(
    {
        "deployment",
        "rollout",
        "stateful_set",
        "daemon_set",
        "cron_job",
        "job",
        "knative_of_an_operator",
        "argo_workflow",
    }
    | {"clone_set", "zoned"}
)
