"""Labels of pods that the next release or the next replica of the same workload does not have, by key and by value.

A label's key tells where a controller is known to set it, or by its words (`build-id`, `imageTag`). Its value tells where it
repeats what a controller made (a revision's name, a hash) or is of such a form (a commit, a version, a time).

Sources: the well-known labels of Kubernetes; the API references and label constants of Knative Serving, Argo Rollouts,
Argo Workflows, Helm, LeaderWorkerSet, JobSet, KubeRay, Volcano, Kthena, Kubeflow Training Operator and Pipelines, Spark and its
operator, Tekton, Airflow, Kueue, Grove, RoleBasedGroup, AIBrix, OpenKruise, OpenShift, Istio, Linkerd, CloudNativePG, Vault,
Prefect, Skaffold, Harness, Cloud Deploy and the Actions Runner Controller.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

# Prefixes of controllers, each with the names below it that last; every other label of the prefix changes.
_LASTING_BELOW: Mapping[str, tuple[str, ...]] = {
    "actions.github.com": ("scale-set-name", "scale-set-namespace", "organization", "repository", "enterprise"),
    "apps.kruise.io": (),
    "apps.kubernetes.io": (),
    "batch.kubernetes.io": (),
    "cnpg.io": ("cluster", "podRole"),
    "deploy.cloud.google.com": ("delivery-pipeline-id", "target-id", "location", "project-id"),
    "failure-domain.beta.kubernetes.io": (),
    "grove.io": (),
    "harness.io": ("release-name",),
    "helm.sh": (),
    "jobset.sigs.k8s.io": ("jobset-name", "replicatedjob-name", "group-name"),
    "karpenter.k8s.aws": (),
    "karpenter.sh": (),
    "kueue.x-k8s.io": ("queue-name", "podset", "managed", "priority-class"),
    "leaderworkerset.sigs.k8s.io": ("name",),
    "lifecycle.apps.kruise.io": (),
    "meta.helm.sh": (),
    "modelserving.volcano.sh": ("name", "role", "entry"),
    "node.kubernetes.io": (),
    "pipeline": (),
    "ray.io": ("node-type", "group", "is-ray-node", "originated-from-crd"),
    "rolebasedgroup.workloads.x-k8s.io": ("name", "role"),
    "service.istio.io": ("canonical-name",),
    "serving.knative.dev": ("service", "configuration"),
    "skaffold.dev": (),
    "sparkoperator.k8s.io": ("app-name", "scheduled-app-name", "launched-by-spark-operator"),
    "statefulset.kubernetes.io": (),
    "tekton.dev": ("pipeline", "pipelineTask", "task", "clusterTask", "memberOf"),
    "topology.istio.io": (),
    "topology.kubernetes.io": (),
    "training.kubeflow.org": ("job-name", "replica-type", "operator-name", "job-role"),
    "volcano.sh": ("job-name", "job-namespace", "queue-name", "task-spec"),
    "workflows.argoproj.io": (
        "workflow-template",
        "cluster-workflow-template",
        "cron-workflow",
        "controller-instanceid",
    ),
}
_CHANGING = frozenset(
    {
        "airflow-worker",
        "already_checked",
        "app.kubernetes.io/managed-by",  # the tool, and with Kustomize its release
        "kubernetes.io/hostname",
        "linkerd.io/proxy-job",
        "linkerd.io/proxy-replicaset",
        "postgres-operator.crunchydata.com/instance",
        "roleset-name",  # AIBrix
        "spark-app-selector",
        "strimzi.io/broker-role",
        "triggers.tekton.dev/triggers-eventid",
        # What a database's pod is at present: the next may be the primary.
        "postgres-operator.crunchydata.com/role",
        "redisfailovers-role",
        "spilo-role",
        "vault-active",
        "vault-initialized",
        "vault-perf-standby",
        "vault-sealed",
    }
)
_LASTING = frozenset({"dag_id", "task_id", "apps.kubernetes.io/name"})

_WORDS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[0-9]+")
# What the last word of a key says, and what a pod made by a controller may repeat in another label's value.
_OF_A_RELEASE = frozenset(
    {
        "hash",
        "version",
        "revision",
        "rev",
        "chart",
        "uid",
        "uuid",
        "sha",
        "commit",
        "build",
        "tag",
        "checksum",
        "digest",
    }
    | {"runid", "buildid", "jobid", "eventid"}
)
_OF_A_REPLICA = frozenset(
    {"index", "ordinal", "generation", "timestamp", "date", "attempt", "epoch", "replicas", "rank"}
)
_NUMBERED = frozenset({"build", "run", "release", "revision", "try", "retry", "deploy", "generation", "attempt"})
_RUNS = frozenset(
    {"build", "run", "exec", "execution", "job", "deploy", "deployment", "release", "commit", "request", "trace", "pod"}
    | {"container", "session", "submission", "step", "attempt", "event", "rollout", "change", "image", "artifact"}
    | {"worker", "replica", "instance", "revision", "replicaset", "node", "host"}
)
_NAMED = frozenset({"pod", "node", "run", "job", "revision", "replicaset", "host"})
_ANYWHERE = frozenset({"sha", "commit", "checksum", "timestamp"})

_NAME_OF_REVISION = frozenset({"serving.knative.dev/revision"})
_GENERATED_NAME = r"[bcdfghjklmnpqrstvwxz2456789]"  # apimachinery, pkg/util/rand
_GENERATED_VALUE = re.compile(
    rf"""
      v?\d+(\.\d+){{0,3}}([-+_](rc|alpha|beta|dev|pre|snapshot|\d).*)?   # nothing but a number or a version
    | (.*[-_.])?v?\d+\.\d+\.\d+([-+_.].*)?     # a version of three parts, as of a chart
    | (.*[-_.])?20\d\d-?[01]\d-?[0-3]\d.*      # a date
    | (.*[-_.])?\d{{8,}}                       # a time, a CronJob's
    | (.*[-_.])?0\d{{4}}                       # a revision of Knative
    | (.*[-_.])?(?=[a-f]*\d)(?=\d*[a-f])[0-9a-f]{{7,64}}    # a commit, a digest
    | (.*[-_.])?[0-9a-f]{{8}}(-[0-9a-f]{{4}}){{3}}-[0-9a-f]{{12}}
    | .*-(?=[a-z]*\d)(?=\d*[a-z]){_GENERATED_NAME}{{8,10}}(-{_GENERATED_NAME}{{5}})?  # a ReplicaSet, its pod
    """,
    re.VERBOSE | re.IGNORECASE,
)
_ONE_OF_MANY = re.compile(rf".+-(\d+|{_GENERATED_NAME}{{5}})")
_LEAST_REPEATED = 5
_LONGEST_VALUE = 63


def changes(key: str) -> bool:
    """Whether a label's value is another one after a release or on the next replica, by its key."""
    if key in _CHANGING or key in _LASTING:
        return key in _CHANGING
    prefix, _, name = key.rpartition("/")
    if prefix in _LASTING_BELOW:
        return name not in _LASTING_BELOW[prefix]
    words = [w.lower() for w in _WORDS.findall(name)]
    while len(words) > 1 and words[-1].isdecimal():
        words.pop()
    last, before = words[-1:], words[-2:-1]
    return bool(
        _ANYWHERE & set(words)
        or (_OF_A_RELEASE | _OF_A_REPLICA) & set(last)
        or (last == ["id"] and _RUNS & set(before))
        or (last == ["number"] and _NUMBERED & set(before))
        or (last == ["name"] and _NAMED & set(before))
    )


def is_generated(value: str) -> bool:
    """Whether a value is of the form of what tools make: a commit, a version, a time, a number, a hash at its end."""
    return len(value) > _LONGEST_VALUE or _GENERATED_VALUE.fullmatch(value) is not None


def is_of_a_replica(name: str) -> bool:
    """Whether a pod's name is one of many that a controller makes: it ends in a number or at random."""
    return _ONE_OF_MANY.fullmatch(name) is not None


def lasting(labels: Mapping[str, str], made: Iterable[str] = (), selected_by: Collection[str] = ()) -> dict[str, str]:
    """The labels that the next pod of the same workload will have too.

    `made` are names that it will not have: the pod's, its ReplicaSet's. The value of a label in `selected_by`, the selector
    of a workload that lasts, does not change.
    """
    names = frozenset(made)
    repeated = [v for k, v in labels.items() if changes(k) and _is_of_a_release(k, v)]
    revisions = {v for k, v in labels.items() if k in _NAME_OF_REVISION}
    return {
        key: value
        for key, value in labels.items()
        if not changes(key)
        and (
            key in selected_by
            or not (value in names or value in revisions or is_generated(value) or any(r in value for r in repeated))
        )
    }


def _is_of_a_release(key: str, value: str) -> bool:
    """Whether a label's value is one that other labels repeat only where they change with it."""
    words = [w.lower() for w in _WORDS.findall(key.rpartition("/")[2])]
    named_by_controller = bool(set(words[-1:]) & _OF_A_RELEASE) or is_generated(value)
    return named_by_controller and len(value) >= _LEAST_REPEATED and any(c.isdigit() for c in value)
