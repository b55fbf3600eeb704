"""GenAI workloads are recognised by images, command lines, labels and devices; who calls them follows."""

from __future__ import annotations

from typing import Any

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.instance_types import max_pods
from kubectl_genainet.doctor.objects.raw import selector_matches
from kubectl_genainet.doctor.objects.stacks import Role
from kubectl_genainet.model.units import quantity, seconds
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm
from tests.unit.doctor.worlds.world import NS, Builder, World, container, node


def recognised(
    kind: str = "Deployment", labels: dict[str, str] | None = None, port: int = 0, **pod: Any
) -> tuple[str, str, tuple[str, ...]]:
    world = World()
    world.add(node("n1", "10.0.0.1", zone="z", kind="m5.large", provider=""))
    spec = {"containers": [container("main", pod.pop("image", "registry.test/app:1"), port, **pod)]}
    Builder(world, {"n1": "10.0.0.1"}, "10.1.0").controller(kind, "x", NS, labels or {"app": "x"}, spec, ["n1"])
    found = [r for _, r in world.cluster().genai_workloads]
    return (found[0].role.value, found[0].stack, found[0].why) if found else ("", "", ())


@pytest.mark.parametrize(
    ("image", "stack"),
    [
        ("vllm/vllm-openai:v0.8.4", "vLLM"),
        ("public.ecr.aws/deep-learning-containers/vllm:0.8", "vLLM"),
        ("ghcr.io/huggingface/text-generation-inference:3.0", "TGI"),
        ("nvcr.io/nvidia/tritonserver:25.01-py3", "Triton"),
        ("lmsysorg/sglang:v0.4.1", "SGLang"),
        ("ollama/ollama:0.5.7", "Ollama"),
        ("docker.io/ollama/ollama", "Ollama"),
        ("pytorch/torchserve:0.12.0-gpu", "TorchServe"),
        ("rayproject/ray-llm:2.44.0", "Ray Serve"),
        ("kserve/huggingfaceserver:v0.14.0", "KServe"),
        ("ghcr.io/llm-d/llm-d:0.0.8", "llm-d"),
        ("nvcr.io/nim/meta/llama-3.1-8b-instruct:1.3", "NIM"),
        ("qdrant/qdrant:v1.13.4", "Qdrant"),
        ("milvusdb/milvus:v2.5.4", "Milvus"),
        ("cr.weaviate.io/semitechnologies/weaviate:1.28.4", "Weaviate"),
        ("pgvector/pgvector:pg17", "pgvector"),
        ("ghcr.io/chroma-core/chroma:0.6.3", "Chroma"),
    ],
)
def test_a_stack_is_recognised_by_its_image(image: str, stack: str) -> None:
    role, name, why = recognised(image=image)
    assert name == stack
    assert role in ("model-server", "vector-database")
    assert why == (f"image {image}",)


def test_a_stack_is_recognised_by_its_command_line() -> None:
    words = ["python", "-m", "vllm.entrypoints.openai.api_server"]
    assert recognised(command=words) == ("model-server", "vLLM", ("command line of container main",))


def test_labels_tell_where_images_do_not() -> None:
    labels = {"app.kubernetes.io/name": "my-llama-finetuned"}
    by_name = ("model-server", "", ("label app.kubernetes.io/name=my-llama-finetuned",))
    assert recognised(labels=labels, port=8080) == by_name
    assert recognised(labels=labels) == ("", "", ())  # a name alone tells nothing
    assert recognised(labels={"serving.kserve.io/inferenceservice": "x"})[1] == "KServe"


@pytest.mark.parametrize("name", ["my-llama-ui", "my-llama-epp", "llm-gateway", "nginx", "rag-app"])
def test_what_is_around_a_model_is_no_model(name: str) -> None:
    assert recognised(labels={"app": name}) == ("", "", ())


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("ghcr.io/llm-d/llm-d-inference-scheduler:v0.4", []),
        ("lmcache/vllm-openai:v0.3", ["lmcache_server", "0.0.0.0", "9000"]),
        ("vllm/vllm-openai:v0.10", ["vllm", "bench", "serve", "--model", "m"]),
        ("vllm/vllm-openai:v0.10", ["sleep infinity"]),
        ("nvcr.io/nvidia/tritonserver:25.01-py3-sdk", []),
        ("registry.test/vllm-exporter:2", []),
        ("registry.test/llm-controller-manager:1", []),
    ],
)
def test_what_runs_beside_models_is_no_model_server(image: str, words: list[str]) -> None:
    assert recognised(image=image, command=words, labels={"app": "llm-x"}, port=8000)[0] != "model-server"


def test_a_job_serves_nobody_whatever_its_image() -> None:
    gpu = {"limits": {"nvidia.com/gpu": "1"}}
    assert recognised("Job", image="vllm/vllm-openai:v0.10", resources=gpu)[0] == "training"


@pytest.mark.parametrize(
    ("image", "role", "stack"),
    [
        ("lmcache/lmstack-router:1.2", "router", "vLLM router"),
        ("ghcr.io/berriai/litellm:main-v1.70", "router", "LiteLLM"),
        ("docker.io/lmcache/standalone:v0.3.9", "kv-cache", "LMCache"),
        ("lmcache/vllm-openai:v0.3.9", "model-server", "vLLM"),
        ("redis/redis-stack-server:7.4", "vector-database", "Redis Stack"),
    ],
)
def test_routers_and_stores_have_roles_of_their_own(image: str, role: str, stack: str) -> None:
    assert recognised(image=image)[:2] == (role, stack)


def test_a_search_engine_counts_where_an_application_calls_it() -> None:
    world = eks()
    build = Builder(world, {"n9": "10.0.9.9"}, "10.0.9")
    spec = {"containers": [container("es", "docker.elastic.co/elasticsearch/elasticsearch:8.15.0", 9200)]}
    build.controller("StatefulSet", "search", NS, {"app": "search"}, spec, ["n9"])
    build.service("search", NS, {"app": "search"}, [{"name": "http", "port": 9200, "targetPort": 9200}])
    assert "search" not in roles(world.cluster())
    rag = world.spec("Deployment", "rag-app")["containers"][0]
    rag["env"].append({"name": "ES_URL", "value": "http://search:9200"})
    assert roles(world.cluster())["search"] is Role.VECTOR_DATABASE


def test_devices_tell_that_a_workload_is_accelerated_or_trains() -> None:
    gpu = {"limits": {"nvidia.com/gpu": "1"}}
    assert recognised(resources=gpu) == ("accelerated", "", ("requests nvidia.com/gpu 1",))
    assert recognised("Job", resources=gpu)[0] == "training"
    assert recognised(resources={"limits": {"aws.amazon.com/neuroncore": "2"}})[0] == "accelerated"
    assert recognised("DaemonSet", resources=gpu)[0] == ""


def roles(cluster: Cluster) -> dict[str, Role]:
    return {found.object.name: found.role for found in cluster.genai.values()}


@pytest.mark.parametrize(
    ("words", "role"),
    [
        (["sh", "-c", "sleep 6000"], ""),
        (["sh", "-c", "ollama pull llama3 && ollama serve"], "model-server"),
        (["vllm", "bench", "serve"], ""),
        (["python3", "-m", "dynamo.frontend"], "router"),
    ],
)
def test_a_command_line_says_whether_an_image_serves(words: list[str], role: str) -> None:
    assert recognised(image="vllm/vllm-openai:v0.10.1", command=words)[0] == role


@pytest.mark.parametrize("base", [eks, gke, kubeadm])
def test_the_chatbot_is_recognised_with_its_callers(base: Any) -> None:
    picker = {"my-llama-epp": Role.ENDPOINT_PICKER} if base is gke else {}
    assert roles(base().cluster()) == picker | {
        "chatbot-ui": Role.APPLICATION,
        "rag-app": Role.APPLICATION,
        "my-llama-finetuned": Role.MODEL_SERVER,
        "qdrant": Role.VECTOR_DATABASE,
    }


def test_calls_are_read_from_variables_arguments_and_config_maps() -> None:
    world = eks()
    world.add(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "urls", "namespace": NS, "labels": {}},
            "data": {"EMBEDDINGS": "https://user:secret@api.openai.com/v1", "NOTE": "see 10.0.0.1"},
        }
    )
    ui = world.spec("Deployment", "chatbot-ui")["containers"][0]
    ui["envFrom"] = [{"configMapRef": {"name": "urls"}}]
    ui["args"] = ["--db=qdrant:6333", "--docs=https://example.com/x"]
    calls = {
        (c.host, c.port, str(c.service.ref) if c.service else "")
        for c in world.cluster().calls
        if c.client.name == "chatbot-ui"
    }
    assert calls == {
        ("rag-app", 80, "Service chatbot/rag-app"),
        ("my-llama-svc", 80, "Service chatbot/my-llama-svc"),
        ("api.openai.com", 443, ""),
        ("qdrant", 6333, "Service chatbot/qdrant"),
    }


def test_credentials_in_a_url_are_not_repeated() -> None:
    world = eks()
    ui = world.spec("Deployment", "chatbot-ui")["containers"][0]
    ui["env"] = [{"name": "URL", "value": "https://user:hunter2@api.openai.com/v1?key=hunter2"}]
    call = next(c for c in world.cluster().calls if c.client.name == "chatbot-ui")
    assert call.evidence.value == "https://api.openai.com"
    assert "hunter2" not in str(call.evidence)


def test_pods_without_their_replica_sets_still_belong_to_the_deployment() -> None:
    world = eks()
    for found in world.of("ReplicaSet"):
        world.remove("ReplicaSet", found["metadata"]["name"], found["metadata"]["namespace"])
    pods = {w.name: len(w.pods) for w in world.cluster().workloads if w.namespace == NS}
    assert pods == {"chatbot-ui": 2, "rag-app": 2, "my-llama-finetuned": 2, "qdrant": 1}


@pytest.mark.parametrize(
    ("text", "value"), [("100m", 0.1), ("2", 2), ("1Gi", 2**30), ("1e3", 1000), ("5k", 5000), ("x", 0), (3, 3)]
)
def test_quantities(text: Any, value: float) -> None:
    assert quantity(text) == pytest.approx(value)


@pytest.mark.parametrize(("text", "value"), [("1m30s", 90), ("250ms", 0.25), ("60", 60), ("1h", 3600), ("soon", None)])
def test_durations(text: str, value: float | None) -> None:
    assert seconds(text) == value


def test_selectors_follow_the_api() -> None:
    labels = {"a": "1", "b": "2"}
    assert selector_matches({}, labels)
    assert selector_matches({"matchExpressions": [{"key": "c", "operator": "NotIn", "values": ["1"]}]}, labels)
    assert not selector_matches({"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}, labels)
    assert not selector_matches({"matchLabels": {"a": "2"}}, labels)


@pytest.mark.parametrize(
    ("kind", "custom", "pods"),
    [
        ("m5.large", False, 29),
        ("m5.xlarge", False, 58),
        ("g5.48xlarge", False, 345),
        ("m5.large", True, 20),
        ("x9.huge", False, None),
    ],
)
def test_pods_per_instance_type(kind: str, custom: bool, pods: int | None) -> None:
    assert max_pods(kind, custom) == pods
