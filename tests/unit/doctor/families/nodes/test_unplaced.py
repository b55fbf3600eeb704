"""Jobs without a node: what their templates and node pools say is judged, and the rest is not checked."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.families.nodes.unplaced import jobs_without_nodes
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import cluster_of, findings, unchecked

GPUS = "resources: {limits: {nvidia.com/gpu: 8}}"


def job(spec: str = "", *, notes: str = "", limits: str = GPUS, pods: int = 4, mode: str = "Indexed") -> str:
    return f"""
---
apiVersion: batch/v1
kind: Job
metadata: {{name: sft, namespace: ml, annotations: {{{notes}}}}}
spec:
  parallelism: {pods}
  completions: {pods}
  completionMode: {mode}
  template:
    metadata: {{labels: {{app: sft}}}}
    spec:
      restartPolicy: Never
      containers: [{{name: t, image: "registry.test/t:1", {limits}}}]
      {spec}
"""


def spread(key: str = "topology.kubernetes.io/zone", more: str = "", app: str = "sft") -> str:
    selector = f"labelSelector: {{matchLabels: {{app: {app}}}}}"
    return f"topologySpreadConstraints: [{{maxSkew: 1, topologyKey: {key}, whenUnsatisfiable: DoNotSchedule, {selector}{more}}}]"


def apart(how: str) -> str:
    term = "{topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: sft}}}"
    if how.startswith("preferred"):
        term = f"{{weight: 100, podAffinityTerm: {term}}}"
    return f"affinity: {{podAntiAffinity: {{{how}DuringSchedulingIgnoredDuringExecution: [{term}]}}}}"


@pytest.mark.parametrize(
    ("spec", "severity", "field"),
    [
        (spread(), Severity.WARNING, "topologySpreadConstraints[0]"),
        (spread().replace("DoNotSchedule", "ScheduleAnyway"), Severity.INFO, "topologySpreadConstraints[0]"),
        (
            apart("required"),
            Severity.WARNING,
            "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]",
        ),
        (
            apart("preferred"),
            Severity.INFO,
            "affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0]",
        ),
    ],
)
def test_a_template_that_spreads_its_pods_over_zones(spec: str, severity: Severity, field: str) -> None:
    (found,) = findings(job(spec), "training-zones")
    assert (found.severity, found.evidence[0].field) == (severity, f"spec.template.spec.{field}")


@pytest.mark.parametrize(
    "text",
    [
        job(spread("kubernetes.io/hostname")),
        job(spread(app="other")),
        job(spread().replace("maxSkew: 1", "maxSkew: 4")),
        job(spread(), pods=1),
        job(spread(), mode="NonIndexed"),
        job(spread(), limits="resources: {}"),
    ],
)
def test_what_does_not_part_a_jobs_pods_is_no_finding(text: str) -> None:
    assert findings(text, "training-zones") == []


TOGETHER = {
    "a zone in the selector": job("nodeSelector: {topology.kubernetes.io/zone: us-east-1a}"),
    "a zone in the affinity": job(
        "affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: "
        "[{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [us-east-1a]}]}]}}}"
    ),
    "affinity between its pods": job(
        "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: "
        "[{topologyKey: topology.kubernetes.io/zone, labelSelector: {matchLabels: {app: sft}}}]}}"
    ),
    "Kueue": job().replace("labels: {app: sft}", 'annotations: {kueue.x-k8s.io/podset-required-topology: "rack"}'),
    "JobSet": job(notes="alpha.jobset.sigs.k8s.io/exclusive-topology: rack"),
}


@pytest.mark.parametrize("what", TOGETHER)
def test_what_keeps_a_job_together_is_enough(what: str) -> None:
    assert findings(TOGETHER[what], "training-zones") == []
    assert unchecked(TOGETHER[what], "training-zones") == ""


@pytest.mark.parametrize(
    ("key", "found"), [("node.coreweave.cloud/type", 0), ("ds.coreweave.com/nvlink.domain", 0), ("cloud.test/type", 1)]
)
def test_a_zone_that_is_a_rack_does_not_part_a_job(key: str, found: int) -> None:
    terms = f"nodeSelectorTerms: [{{matchExpressions: [{{key: {key}, operator: In, values: [gb200-4x]}}]}}]"
    affinity = f"affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{{terms}}}}}}}"
    text = job(f"{spread()}\n      {affinity}")
    assert len(findings(text, "training-zones")) == found
    assert ("a zone may be a rack" in unchecked(text, "training-zones")) is (found == 0)


def test_nothing_that_keeps_a_job_together_is_not_checked() -> None:
    assert findings(job(), "training-zones") == []
    assert "nothing in its template keeps its pods in one zone" in unchecked(job(), "training-zones")
    two = job().replace("restartPolicy", "nodeSelector: {disk: fast}\n      restartPolicy")
    assert "nothing in its template" in unchecked(two, "training-zones")


JOBSET = """
---
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: sft, namespace: ml}
spec:
  replicatedJobs:
  - name: w
    replicas: REPLICAS
    template:
      spec:
        parallelism: 1
        template: {spec: {containers: [{name: t, image: "i:1", resources: {limits: {nvidia.com/gpu: 8}}}]}}
"""
PYTORCH = """
---
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: sft, namespace: ml}
spec:
  pytorchReplicaSpecs:
    Master:
      replicas: 1
      template: {spec: {containers: [{name: pytorch, image: "i:1", resources: {limits: {nvidia.com/gpu: 8}}}]}}
    Worker:
      replicas: REPLICAS
      template: {spec: {containers: [{name: pytorch, image: "i:1", resources: {limits: {nvidia.com/gpu: 8}}}]}}
"""
LWS = """
---
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: sft, namespace: ml}
spec:
  replicas: 3
  leaderWorkerTemplate:
    size: REPLICAS
    workerTemplate: {spec: {containers: [{name: t, image: "i:1", resources: {limits: {nvidia.com/gpu: 8}}}]}}
"""


@pytest.mark.parametrize(
    ("text", "replicas", "parts"),
    [(JOBSET, 2, 1), (JOBSET, 1, 0), (PYTORCH, 1, 2), (PYTORCH, 0, 0), (LWS, 2, 2), (LWS, 1, 0)],
)
def test_pods_are_counted_where_a_kind_has_them(text: str, replicas: int, parts: int) -> None:
    assert len(jobs_without_nodes(cluster_of(text.replace("REPLICAS", str(replicas))))) == parts


def pool(name: str = "gpu", types: str = "[p5.48xlarge]") -> str:
    return f"""
---
apiVersion: karpenter.sh/v1
kind: NodePool
metadata: {{name: {name}}}
spec:
  template:
    spec:
      nodeClassRef: {{group: karpenter.k8s.aws, kind: EC2NodeClass, name: gpu}}
      requirements: [{{key: node.kubernetes.io/instance-type, operator: In, values: {types}}}]
"""


def node_class(spec: str) -> str:
    return f"\n---\napiVersion: karpenter.k8s.aws/v1\nkind: EC2NodeClass\nmetadata: {{name: gpu}}\nspec: {{{spec}}}\n"


IN_POOL = "nodeSelector: {karpenter.sh/nodepool: gpu}"


@pytest.mark.parametrize(
    ("spec", "found"),
    [("role: r", 1), ("placementGroupSelector: {name: pg}", 0), ("capacityReservationSelectorTerms: [{id: cr-1}]", 0)],
)
def test_the_node_class_of_the_pool_that_it_names_tells_the_placement_group(spec: str, found: int) -> None:
    text = job(IN_POOL) + pool() + node_class(spec)
    placed = findings(text, "training-placement")
    assert [f.evidence[0].field for f in placed] == ["spec.placementGroupSelector"] * found
    assert unchecked(text, "training-placement") == ""
    assert findings(job() + pool() + node_class(spec), "training-placement") == []
    assert "names no EC2NodeClass" in unchecked(job() + pool() + node_class(spec), "training-placement")


@pytest.mark.parametrize(
    ("spec", "more", "found"),
    [
        ("nodeSelector: {node.kubernetes.io/instance-type: p5.48xlarge}", "", 1),
        (IN_POOL, pool(), 1),
        (IN_POOL, pool(types="[p5.48xlarge, p5.4xlarge]"), 0),
        ("nodeSelector: {node.kubernetes.io/instance-type: g5.xlarge}", "", 0),
        ("nodeSelector: {disk: fast}", "", 0),
    ],
)
def test_a_job_for_nodes_with_efa_requests_it(spec: str, more: str, found: int) -> None:
    text = job(spec) + more
    assert len(findings(text, "efa-requested")) == found
    efa = job(spec, limits="resources: {limits: {nvidia.com/gpu: 8, vpc.amazonaws.com/efa: 32}}")
    assert findings(efa + more, "efa-requested") == []


def test_efa_in_use_elsewhere_makes_a_missing_request_a_warning() -> None:
    text = job("nodeSelector: {node.kubernetes.io/instance-type: p5.48xlarge}")
    other = job(limits="resources: {limits: {nvidia.com/gpu: 8, vpc.amazonaws.com/efa: 32}}").replace(
        "name: sft,", "name: b,"
    )
    assert [f.severity for f in findings(text, "efa-requested")] == [Severity.INFO]
    assert [f.severity for f in findings(text + other, "efa-requested")] == [Severity.WARNING]
