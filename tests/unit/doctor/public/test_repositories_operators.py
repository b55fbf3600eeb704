"""What operators do for their objects is not asked of the manifests: kinds of false findings in public repositories."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import deployment, findings, service, unchecked

SHARDED = "args: [vllm serve m --tensor-parallel-size 2], resources: {limits: {nvidia.com/gpu: 2}}"
RAY = """
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: r, namespace: ml}
spec:
  headGroupSpec:
    template: {spec: {containers: [{name: FIRST, image: 'vllm/vllm-openai:v1'HEAD}, {name: b, image: 'vllm/vllm-openai:v1'SIDE}]}}
"""


def ray(head: str = "", side: str = "") -> str:
    return RAY.replace("HEAD", head and f", {head}").replace("SIDE", side and f", {side}")


def test_kuberay_gives_rays_container_its_shared_memory() -> None:
    assert findings(ray(head=SHARDED), "shared-memory") == []
    assert len(findings(ray(side=SHARDED), "shared-memory")) == 1
    assert len(findings(deployment("v", f"image: 'vllm/vllm-openai:v1', {SHARDED}"), "shared-memory")) == 1


def test_shared_memory_that_is_written_too_small_is_found_in_rays_container_too() -> None:
    small = SHARDED + ", volumeMounts: [{name: shm, mountPath: /dev/shm}]"
    text = ray(head=small).replace("{spec: {", "{spec: {volumes: [{name: shm, emptyDir: {sizeLimit: 64Mi}}], ")
    assert len(findings(text, "shared-memory")) == 1


TRIAL = """
apiVersion: v1
kind: Pod
metadata: {name: try, namespace: ml, labels: {app: try}}
spec: {restartPolicy: POLICY, containers: [{name: v, image: 'vllm/vllm-openai:v1', args: [--model, m]}]}
"""
SELECTS = service("try", "{selector: {app: try}, ports: [{port: 8000}]}")


@pytest.mark.parametrize(
    ("policy", "more", "found"),
    [("Never", "", 0), ("OnFailure", "", 0), ("OnFailure", SELECTS, 1), ("Always", "", 1)],
)
def test_a_pod_that_ends_and_that_no_service_selects_needs_no_readiness(policy: str, more: str, found: int) -> None:
    assert len(findings(TRIAL.replace("POLICY", policy) + more, "readiness-probe")) == found


CROSSING = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat-router, namespace: gateways}
spec: {parentRefs: [{name: g}], rules: [{backendRefs: [{name: chat, namespace: ml, port: 8000}]}]}
"""


def test_a_grant_that_aibrix_makes_is_not_asked_of_the_manifests() -> None:
    model = deployment("chat", "image: 'vllm/vllm-openai:v1'") + service(
        "chat", "{selector: {app: chat}, ports: [{port: 8000}]}"
    )
    of_aibrix = model.replace("labels: {app: chat}", "labels: {app: chat, model.aibrix.ai/name: chat}")
    assert len(findings(model + CROSSING, "reference-grant")) == 1
    assert findings(of_aibrix + CROSSING, "reference-grant") == []
    assert "AIBrix" in unchecked(of_aibrix + CROSSING, "reference-grant")
    assert len(findings(of_aibrix + CROSSING, "reference-grant", complete=True)) == 1


INFERENCE = """
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: chat, namespace: ml, annotations: {serving.kserve.io/deploymentMode: MODE}, labels: {LABEL: exposed}}
spec:
  predictor:
    timeout: 30
    model: {name: "", modelFormat: {name: vLLM}, args: [--tensor-parallel-size=4], resources: {limits: {nvidia.com/gpu: 4}}}
"""


@pytest.mark.parametrize(
    ("mode", "label", "found"),
    [
        ("Standard", "a", 0),
        ("RawDeployment", "a", 0),
        ("RawDeployment", "networking.kserve.io/visibility", 1),
        ("Knative", "a", 1),
    ],
)
def test_a_timeout_that_the_kind_of_ingress_decides_is_not_checked(mode: str, label: str, found: int) -> None:
    text = INFERENCE.replace("MODE", mode).replace("LABEL", label)
    assert len(findings(text, "serving-stream-timeout")) == found
    assert bool(unchecked(text, "serving-stream-timeout")) == (not found)


@pytest.mark.parametrize(
    ("mode", "ended"), [("RawDeployment", "cut after 30 s without a token"), ("Knative", "cut after 30 s")]
)
def test_a_route_of_openshift_ends_silence_and_knative_the_whole_response(mode: str, ended: str) -> None:
    text = INFERENCE.replace("MODE", mode).replace("LABEL", "networking.kserve.io/visibility")
    (found,) = findings(text, "serving-stream-timeout")
    assert found.title.endswith(ended)


def test_a_model_without_a_name_of_its_own_is_kserves_container() -> None:
    (found,) = findings(INFERENCE, "shared-memory")
    assert "container kserve-container works" in found.title


@pytest.mark.parametrize(("model", "found"), [("image_classifier/v1", 0), ("text-classification", 0), ("chat/v1", 1)])
def test_a_classifier_streams_nothing(model: str, found: int) -> None:
    text = INFERENCE.replace("MODE", "Knative").replace("vLLM", "pytorch")
    text = text.replace("args: [--tensor-parallel-size=4]", f"storageUri: 's3://models/{model}'")
    assert len(findings(text, "serving-stream-timeout")) == found
