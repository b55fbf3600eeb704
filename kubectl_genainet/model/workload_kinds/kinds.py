"""The kinds that make pods: where their pod templates are, and which labels their controllers add.

A kind is its API group and its name: a Job of batch.volcano.sh is not a Job of batch. Sources: the API references of
Kubernetes, Argo Rollouts, LeaderWorkerSet, JobSet, Kubeflow Training Operator and Trainer, KubeRay, KServe, Knative
Serving, Volcano, Kthena, OpenKruise, OpenShift, Grove, AIBrix, KAITO, Seldon Core, Agent Sandbox and Kubeflow Notebooks;
those of kinds without a template are in `composed`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.composed import (
    Compose,
    Composed,
    dynamo_service,
    elasticsearch_nodes,
    kserve_model,
    kubeai_model,
    llm_inference,
    nim_service,
    opensearch_nodes,
)

EACH = "*"  # a step of a path: every item of a list, every value of a mapping
FieldPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class TemplatePlace:
    """Where a kind holds one of its pod templates.

    `bare` is set where the place holds a pod's spec and no metadata; `compose` makes the spec of what else it holds;
    beside that, by its own name, of the object's field that `shared` leads to.
    `inherits`: the pods carry the object's own annotations. `fallback` is read where `path` is absent. `labels` are those
    that the controller adds; "{name}" stands for the object's name and "{part}" for the part's. `part_field` names the
    field with the part's name in a list; in a mapping the part's name is the key. `part_suffix` tells the templates of one
    part apart.
    """

    path: FieldPath
    part: str = ""
    part_field: str = "name"
    part_suffix: str = ""
    bare: bool = False
    compose: Compose | None = None
    shared: FieldPath = ()
    inherits: bool = False
    fallback: FieldPath = ()
    replicas: FieldPath = ()
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """One pod template of one object. `path` leads to it in the object; `spec` is the pod's spec as it is written, or as an
    operator composes it: `container` then leads to what its first container is made of, below `path`."""

    path: FieldPath
    part: str
    spec: Mapping[str, Any]
    metadata: Mapping[str, Any]
    added_labels: Mapping[str, str]
    replicas: int
    bare: bool = False
    container: str | None = None

    @property
    def labels(self) -> dict[str, str]:
        """The labels that its pods carry, as far as they are known before the pods are there."""
        template_labels = self.metadata.get("labels")
        return {**(template_labels if isinstance(template_labels, dict) else {}), **self.added_labels}

    @property
    def spec_path(self) -> FieldPath:
        return self.path if self.bare else (*self.path, "spec")


def _training(replica_specs: str) -> tuple[TemplatePlace, ...]:
    labels = {"training.kubeflow.org/job-name": "{name}", "training.kubeflow.org/replica-type": "{part}"}
    replicas = ("spec", replica_specs, EACH, "replicas")
    return (TemplatePlace(("spec", replica_specs, EACH, "template"), labels=labels, replicas=replicas),)


def _ray(*cluster: str) -> tuple[TemplatePlace, ...]:
    # The name of the cluster that a RayService or a RayJob makes has a random end: it is not known here.
    cluster_label = {"ray.io/cluster": "{name}"} if cluster == ("spec",) else {}
    head = {
        **cluster_label,
        "ray.io/node-type": "head",
        "ray.io/group": "headgroup",
        "ray.io/identifier": "{name}-head",
    }
    if cluster != ("spec",):
        del head["ray.io/identifier"]
    worker = {**cluster_label, "ray.io/node-type": "worker", "ray.io/group": "{part}"}
    groups = (*cluster, "workerGroupSpecs", EACH)
    return (
        TemplatePlace((*cluster, "headGroupSpec", "template"), part="head", labels=head),
        TemplatePlace((*groups, "template"), part_field="groupName", labels=worker, replicas=(*groups, "replicas")),
    )


_LLM_LABELS = {"app.kubernetes.io/name": "{name}", "app.kubernetes.io/part-of": "llminferenceservice"}


def _inference(component: str) -> TemplatePlace:
    labels = {
        "serving.kserve.io/inferenceservice": "{name}",
        "component": component,
        "app": f"isvc.{{name}}-{component}",
    }
    place = ("spec", component)
    return TemplatePlace(place, part=component, bare=True, compose=kserve_model, inherits=True, labels=labels)


def _llm_inference(part: str, *path: str) -> TemplatePlace:
    replicas = ("spec", "replicas") if part == "main" else ()
    main: FieldPath = ("spec",) if part == "main" else ()
    compose = llm_inference if part == "main" else None
    return TemplatePlace(
        ("spec", *path), part, "name", "", True, compose, (), True, fallback=main, labels=_LLM_LABELS, replicas=replicas
    )


def _opensearch(domain: str) -> tuple[TemplatePlace, ...]:
    labels = {f"{domain}/opensearch-cluster": "{name}", f"{domain}/opensearch-nodepool": "{Part}"}
    pools, general = ("spec", "nodePools", EACH), ("spec", "general")
    replicas = (*pools, "replicas")
    return (
        TemplatePlace(pools, "", "component", "", True, opensearch_nodes, general, labels=labels, replicas=replicas),
    )


def _roles(*spec: str, labels: Mapping[str, str]) -> tuple[TemplatePlace, ...]:
    roles = (*spec, "roles", EACH)
    return (TemplatePlace((*roles, "template"), labels=labels, replicas=(*roles, "replicas")),)


_TEMPLATE = (TemplatePlace(("spec", "template"), replicas=("spec", "replicas")),)
_LWS = ("spec", "leaderWorkerTemplate")
_LWS_LABELS = {"leaderworkerset.sigs.k8s.io/name": "{name}"}
_JOBSET_LABELS = {
    "jobset.sigs.k8s.io/jobset-name": "{name}",
    "jobset.sigs.k8s.io/replicatedjob-name": "{part}",
}
_MODEL_SERVING = ("spec", "template", "roles", EACH)
_MODEL_SERVING_LABELS = {"modelserving.volcano.sh/name": "{name}", "modelserving.volcano.sh/role": "{part}"}
_NIM_LABELS = {"app": "{name}", "app.kubernetes.io/name": "{name}", "app.kubernetes.io/part-of": "nim-service"}

TEMPLATE_PLACES: Mapping[tuple[str, str], tuple[TemplatePlace, ...]] = {
    ("apps", "Deployment"): _TEMPLATE,
    ("apps", "StatefulSet"): _TEMPLATE,
    ("apps", "DaemonSet"): _TEMPLATE,
    ("apps", "ReplicaSet"): _TEMPLATE,
    ("", "ReplicationController"): _TEMPLATE,
    ("batch", "Job"): (TemplatePlace(("spec", "template"), labels={"batch.kubernetes.io/job-name": "{name}"}),),
    ("batch", "CronJob"): (TemplatePlace(("spec", "jobTemplate", "spec", "template")),),
    ("argoproj.io", "Rollout"): _TEMPLATE,
    ("apps.openshift.io", "DeploymentConfig"): _TEMPLATE,
    ("apps.kruise.io", "CloneSet"): _TEMPLATE,
    ("apps.kruise.io", "StatefulSet"): _TEMPLATE,
    ("apps.kruise.io", "DaemonSet"): _TEMPLATE,
    ("leaderworkerset.x-k8s.io", "LeaderWorkerSet"): (
        TemplatePlace(
            (*_LWS, "leaderTemplate"),
            part="leader",
            fallback=(*_LWS, "workerTemplate"),
            labels={**_LWS_LABELS, "leaderworkerset.sigs.k8s.io/worker-index": "0"},
            replicas=("spec", "replicas"),
        ),
        TemplatePlace((*_LWS, "workerTemplate"), part="worker", labels=_LWS_LABELS),
    ),
    ("jobset.x-k8s.io", "JobSet"): (
        TemplatePlace(("spec", "replicatedJobs", EACH, "template", "spec", "template"), labels=_JOBSET_LABELS),
    ),
    ("trainer.kubeflow.org", "TrainJob"): (
        TemplatePlace(("spec", "template", "spec", "replicatedJobs", EACH, "template", "spec", "template")),
    ),
    ("kubeflow.org", "PyTorchJob"): _training("pytorchReplicaSpecs"),
    ("kubeflow.org", "MPIJob"): _training("mpiReplicaSpecs"),
    ("kubeflow.org", "TFJob"): _training("tfReplicaSpecs"),
    ("kubeflow.org", "XGBoostJob"): _training("xgbReplicaSpecs"),
    ("kubeflow.org", "PaddleJob"): _training("paddleReplicaSpecs"),
    ("kubeflow.org", "JAXJob"): _training("jaxReplicaSpecs"),
    ("ray.io", "RayCluster"): _ray("spec"),
    ("ray.io", "RayService"): _ray("spec", "rayClusterConfig"),
    ("ray.io", "RayJob"): (
        *_ray("spec", "rayClusterSpec"),
        TemplatePlace(("spec", "submitterPodTemplate"), part="submitter"),
    ),
    ("serving.kserve.io", "InferenceService"): tuple(map(_inference, ("predictor", "transformer", "explainer"))),
    ("serving.kserve.io", "LLMInferenceService"): (
        _llm_inference("main", "template"),
        _llm_inference("worker", "worker"),
        _llm_inference("prefill", "prefill", "template"),
        _llm_inference("prefill-worker", "prefill", "worker"),
    ),
    ("apps.nvidia.com", "NIMService"): (
        TemplatePlace(("spec",), bare=True, compose=nim_service, labels=_NIM_LABELS, replicas=("spec", "replicas")),
    ),
    ("nvidia.com", "DynamoGraphDeployment"): (
        TemplatePlace(
            ("spec", "services", EACH),
            bare=True,
            compose=dynamo_service,
            labels={"nvidia.com/dynamo-component": "{Part}"},
            replicas=("spec", "services", EACH, "replicas"),
        ),
    ),
    ("nvidia.com", "DynamoComponentDeployment"): (
        TemplatePlace(("spec",), bare=True, compose=dynamo_service, replicas=("spec", "replicas")),
    ),
    ("kubeai.org", "Model"): (
        TemplatePlace(("spec",), bare=True, compose=kubeai_model, labels={"model": "{name}", "app": "model"}),
    ),
    ("orchestration.aibrix.ai", "StormService"): _roles(
        *("spec", "template", "spec"), labels={"storm-service-name": "{name}", "role-name": "{Part}"}
    ),
    ("orchestration.aibrix.ai", "RoleSet"): _roles("spec", labels={"roleset-name": "{name}", "role-name": "{Part}"}),
    ("orchestration.aibrix.ai", "RayClusterFleet"): _ray("spec", "template", "spec"),
    ("orchestration.aibrix.ai", "RayClusterReplicaSet"): _ray("spec", "template", "spec"),
    ("elasticsearch.k8s.elastic.co", "Elasticsearch"): (
        TemplatePlace(
            ("spec", "nodeSets", EACH),
            bare=True,
            compose=elasticsearch_nodes,
            labels={
                "common.k8s.elastic.co/type": "elasticsearch",
                "elasticsearch.k8s.elastic.co/cluster-name": "{name}",
                "elasticsearch.k8s.elastic.co/statefulset-name": "{name}-es-{part}",
            },
            replicas=("spec", "nodeSets", EACH, "count"),
        ),
    ),
    ("opensearch.opster.io", "OpenSearchCluster"): _opensearch("opster.io"),
    ("opensearch.org", "OpenSearchCluster"): _opensearch("opensearch.org"),
    ("kaito.sh", "Workspace"): (TemplatePlace(("inference", "template"), labels={"kaito.sh/workspace": "{name}"}),),
    ("llm-d.ai", "ModelService"): tuple(
        TemplatePlace(("spec", part), part, bare=True, replicas=("spec", part, "replicas"))
        for part in ("decode", "prefill", "endpointPicker")
    ),
    ("machinelearning.seldon.io", "SeldonDeployment"): (
        TemplatePlace(("spec", "predictors", EACH, "componentSpecs", EACH, "spec"), bare=True),
    ),
    ("kubeflow.org", "Notebook"): (TemplatePlace(("spec", "template"), labels={"notebook-name": "{name}"}),),
    ("serving.knative.dev", "Service"): (
        TemplatePlace(("spec", "template"), labels={"serving.knative.dev/service": "{name}"}),
    ),
    ("batch.volcano.sh", "Job"): (
        TemplatePlace(
            ("spec", "tasks", EACH, "template"),
            labels={"volcano.sh/job-name": "{name}", "volcano.sh/task-spec": "{part}"},
            replicas=("spec", "tasks", EACH, "replicas"),
        ),
    ),
    ("workload.serving.volcano.sh", "ModelServing"): (
        TemplatePlace(
            (*_MODEL_SERVING, "entryTemplate"),
            labels={**_MODEL_SERVING_LABELS, "modelserving.volcano.sh/entry": "true"},
            replicas=(*_MODEL_SERVING, "replicas"),
        ),
        TemplatePlace(
            (*_MODEL_SERVING, "workerTemplate"),
            part_suffix="-worker",
            labels=_MODEL_SERVING_LABELS,
            replicas=(*_MODEL_SERVING, "workerReplicas"),
        ),
    ),
    ("agents.x-k8s.io", "Sandbox"): (TemplatePlace(("spec", "podTemplate")),),
    ("extensions.agents.x-k8s.io", "SandboxTemplate"): (TemplatePlace(("spec", "podTemplate")),),
    ("workloads.x-k8s.io", "RoleBasedGroup"): (TemplatePlace(("spec", "roles", EACH, "template")),),
    ("grove.io", "PodCliqueSet"): (TemplatePlace(("spec", "template", "cliques", EACH, "spec", "podSpec"), bare=True),),
}
# Kinds that take their pod template from another object: (field with the reference, group and kinds that it may name).
_RUNTIMES = ("ClusterTrainingRuntime", "TrainingRuntime")


def makes_pods(obj: KubeObject) -> bool:
    """Whether the object's controller makes pods."""
    return (obj.group, obj.kind) in TEMPLATE_PLACES


def pod_templates(obj: KubeObject, others: Mapping[str, Sequence[KubeObject]] | None = None) -> list[PodTemplate]:
    """The pod templates of an object, in the order of its fields; none where its kind has none or they are not there.

    `others`, objects by kind, are searched for what the object refers to: a Rollout's Deployment, a TrainJob's runtime.
    """
    templates = [t for place in TEMPLATE_PLACES.get((obj.group, obj.kind), ()) for t in _templates_at(obj, place)]
    return templates if templates or others is None else _referred(obj, others)


def _referred(obj: KubeObject, others: Mapping[str, Sequence[KubeObject]]) -> list[PodTemplate]:
    spec = _at(obj.raw, ("spec",)) or {}
    match obj.group, obj.kind:
        case "argoproj.io", "Rollout":
            reference, kinds = spec.get("workloadRef"), ("Deployment", "ReplicaSet")
        case "trainer.kubeflow.org", "TrainJob":
            reference, kinds = spec.get("runtimeRef"), _RUNTIMES
        case _:
            return []
    if not isinstance(reference, dict):
        return []
    kind = reference.get("kind", kinds[0])
    for candidate in others.get(kind, ()) if kind in kinds else ():
        if candidate.name == reference.get("name") and candidate.namespace in ("", obj.namespace):
            places = TEMPLATE_PLACES.get((candidate.group, candidate.kind)) or TEMPLATE_PLACES[obj.group, obj.kind]
            return [t for place in places for t in _templates_at(candidate, place, owner=obj.name)]
    return []


def _templates_at(obj: KubeObject, place: TemplatePlace, owner: str = "") -> Iterator[PodTemplate]:
    path = place.path if _leads_to_a_template(obj.raw, place.path) else place.fallback
    for concrete, value, part in _walk(obj.raw, path, (), place.part, place.part_field) if path else ():
        if not isinstance(value, dict):
            continue
        names = {"{name}": owner or obj.name, "{part}": part.lower(), "{Part}": part}
        labels = {key: _filled(text, names) for key, text in place.labels.items()}
        replicas = _at(obj.raw, _follow(place.replicas, concrete)) if place.replicas else 1
        shared = {str(place.shared[-1]): _at(obj.raw, place.shared)} if place.shared else {}
        composed = place.compose({**value, **shared}) if place.compose is not None else None
        metadata: Any = value.get("metadata", {})
        spec: Any = composed.spec if composed is not None else value if place.bare else value.get("spec", {})
        if place.bare:
            metadata = _carried(obj, place, composed or Composed({}, "", value.get("labels"), value.get("annotations")))
        yield PodTemplate(
            concrete,
            part + place.part_suffix,
            spec if isinstance(spec, dict) else {},
            metadata if isinstance(metadata, dict) else {},
            labels,
            replicas if isinstance(replicas, int) and not isinstance(replicas, bool) else 1,
            place.bare,
            composed.container if composed is not None else None,
        )


def _carried(obj: KubeObject, place: TemplatePlace, composed: Composed) -> dict[str, Any]:
    """The metadata of pods for which the object has none of their own."""
    inherited = obj.metadata.get("annotations") if place.inherits else None
    pairs = {"labels": (composed.labels,), "annotations": (inherited, composed.annotations)}
    merged = {
        name: {k: v for some in mappings if isinstance(some, dict) for k, v in some.items()}
        for name, mappings in pairs.items()
    }
    return {name: value for name, value in merged.items() if value}


def _filled(text: str, names: Mapping[str, str]) -> str:
    for word, value in names.items():
        text = text.replace(word, value)
    return text


def _leads_to_a_template(value: Any, path: FieldPath) -> bool:
    return any(isinstance(v, dict) for _, v, _ in _walk(value, path, (), "", "name"))


def _walk(
    value: Any, path: FieldPath, before: FieldPath, part: str, part_field: str
) -> Iterator[tuple[FieldPath, Any, str]]:
    """Every value that a path leads to: its concrete path, the value and the name of the part that it is in."""
    if not path:
        yield before, value, part
        return
    step, remaining_path = path[0], path[1:]
    if step != EACH:
        if isinstance(value, dict) and step in value:
            yield from _walk(value[str(step)], remaining_path, (*before, step), part, part_field)
        return
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        name = item.get(part_field, "") if isinstance(item, dict) and isinstance(key, int) else key
        yield from _walk(item, remaining_path, (*before, key), str(name), part_field)


def _follow(path: FieldPath, concrete: FieldPath) -> FieldPath:
    """`path` with the items and keys of `concrete` in the place of EACH."""
    return tuple(concrete[i] if step == EACH else step for i, step in enumerate(path))


def _at(value: Any, path: FieldPath) -> Any:
    for step in path:
        if isinstance(value, dict) and step in value:
            value = value[str(step)]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value
