"""The stacks that GenAI workloads run: how their images and command lines look, and what is true when they are ready."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache


class Role(Enum):
    """What a workload is in a GenAI application."""

    MODEL_SERVER = "model-server"
    VECTOR_DATABASE = "vector-database"
    TRAINING = "training"
    APPLICATION = "application"  # calls one of the above: a RAG application, a chat front end
    ROUTER = "router"  # passes requests and tokens on to model servers
    ENDPOINT_PICKER = "endpoint-picker"  # tells a gateway which pod to send a request to; tokens don't pass it
    KV_CACHE = "kv-cache"  # keeps the attention keys and values of prompts for model servers
    ACCELERATED = "accelerated"  # asks for GPUs or Neuron devices; what it runs is not known
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Stack:
    """A serving stack or database.

    `ready` are HTTP paths that answer 200 only when the model is loaded (or the database serves). `called`: it is also
    used for other things, so that it counts only where a GenAI workload calls it. `streams`: its answers come token by token;
    those of embeddings and classic models come at once. `any_model`: it serves models of every kind, so that its answers
    come token by token only where something names a language model.
    """

    name: str
    role: Role
    image: str
    words: str = ""
    ready: tuple[str, ...] = ()
    port: int = 0
    called: bool = False
    streams: bool = True
    any_model: bool = False


def _last(name: str) -> str:
    """An image whose last path component is a name, or the name with a variant ("vllm-cpu", "llm-d-cuda")."""
    around = (
        "router|routing|scheduler|inference|modelservice|infra|async|simulator|sim|mock|operator|controller|manager|autoscaler|"
        "exporter|bench|benchmark|ui|webui|client|proxy|gateway|sidecar|cache|frontend|dashboard|console|portal|monitor|"
        "collector|optimizer|tuner|advisor|planner|analyzer|tester|loader|downloader|chatbot|agent"
    )
    return rf"(^|/){name}(?!-.*({around}))(-[a-z0-9.-]+)?($|[:@])"


# The image pattern is matched against repository and tag without the registry host; the first stack that fits counts.
# Readiness paths and ports: the projects' own documentation (docs.vllm.ai, docs.sglang.ai, pytorch.org/serve,
# huggingface.co/docs/text-generation-inference, docs.nvidia.com/deeplearning/triton-inference-server,
# docs.nvidia.com/nim, qdrant.tech, milvus.io, weaviate.io, docs.trychroma.com, docs.litellm.ai).
STACKS = (
    Stack(
        "vLLM router",
        Role.ROUTER,
        r"lmstack-router|(^|/)production-stack(/|-)router|" + r"(^|/)vllm-router($|[:@])",
        r"\bvllm-router\b|vllm_router\.app",
        ("/health",),
        8000,
    ),
    Stack(
        "SGLang router",
        Role.ROUTER,
        r"(^|/)sgl(ang)?-(router|model-gateway)",
        r"sglang_router|sglang-router|sgl-model-gateway",
        ("/health",),
        30000,
    ),
    Stack("Dynamo frontend", Role.ROUTER, "", r"\bdynamo\.frontend\b|\bdynamo run\b.*\bin=http\b", ("/health",), 8000),
    Stack(
        "Dynamo worker",
        Role.MODEL_SERVER,
        "",
        r"\bdynamo\.(vllm|sglang|trtllm|mocker)\b|\bdynamo run\b.*\bin=dyn:",
        ("/health",),
        9090,
    ),
    Stack(
        "endpoint picker",
        Role.ENDPOINT_PICKER,
        r"(^|/)(epp|llm-d-inference-scheduler|inference-(extension-)?scheduler|endpoint-picker)($|[:@])"
        r"|gateway-api-inference-extension/epp|(^|/)aibrix/gateway-plugins|(^|/)gateway-plugins($|[:@])",
        r"--?pool-?name\b.*--?(pool-?namespace|grpc-?port|grpc-?health-?port)\b",
    ),
    Stack(
        "LiteLLM",
        Role.ROUTER,
        r"(^|/)litellm(-[a-z_-]+)?($|[:@])",
        r"(^|[/ ])litellm( |$)",
        ("/health/readiness",),
        4000,
    ),
    Stack(
        "LMCache",
        Role.KV_CACHE,
        r"(^|/)lmcache(-server)?($|[:@])|(^|/)lmcache/standalone($|[:@])",
        r"\blmcache(_experimental)?_server\b|\blmcache server\b|lmcache\.\S*server",
    ),
    Stack(
        "Mooncake",
        Role.KV_CACHE,
        r"(^|/)mooncake(-master|-store)?($|[:@])",
        r"\bmooncake_master\b|\bmooncake\S*store_service\b",
    ),
    Stack("InfiniStore", Role.KV_CACHE, r"(^|/)infinistore($|[:@])", r"\binfinistore\b"),
    Stack("NIM", Role.MODEL_SERVER, r"(^|/)nim/", ready=("/v1/health/ready",), port=8000),
    Stack(
        "llm-d",
        Role.MODEL_SERVER,
        _last("llm-d"),
        "",
        ("/health", "/v1/models"),
        8000,
    ),
    Stack(
        "vLLM",
        Role.MODEL_SERVER,
        _last("vllm"),
        r"\bvllm serve\b|vllm\.entrypoints|multi-node-serving\.sh leader",
        ("/health", "/v1/models"),
        8000,
    ),
    Stack(
        "SGLang",
        Role.MODEL_SERVER,
        _last("sglang"),
        r"sglang(\.|_)launch_server",
        ("/health", "/health_generate"),
        30000,
    ),
    Stack(
        "TGI",
        Role.MODEL_SERVER,
        r"text-generation-inference|(^|/)tgi($|[:-])",
        r"\btext-generation-launcher\b",
        ("/health", "/info"),
        80,
    ),
    Stack(
        "TEI",
        Role.MODEL_SERVER,
        r"text-embeddings-inference",
        r"\btext-embeddings-router\b",
        ("/health",),
        80,
        streams=False,
    ),
    Stack(
        "Triton",
        Role.MODEL_SERVER,
        r"(^|/)tritonserver(?!.*-sdk)",
        r"\btritonserver\b",
        ("/v2/health/ready",),
        8000,
        any_model=True,
    ),
    Stack(
        "Ollama",
        Role.MODEL_SERVER,
        r"(^|/)ollama(/ollama)?($|:|@)",
        r"\bollama serve\b",
        ("/", "/api/version", "/api/tags"),
        11434,
    ),
    Stack(
        "TorchServe",
        Role.MODEL_SERVER,
        r"(^|/)(pytorch/)?torchserve",
        r"\btorchserve\b",
        ("/ping",),
        8080,
        streams=False,
    ),
    Stack(
        "llama.cpp",
        Role.MODEL_SERVER,
        r"llama\.cpp|llama-cpp",
        r"\bllama-server\b|llama_cpp\.server",
        ("/health",),
        8080,
    ),
    Stack(
        "KServe",
        Role.MODEL_SERVER,
        r"(^|/)kserve/(hugging|.*server|sklearn|lgb|xgb|pmml)",
        r"\bhuggingfaceserver\b",
        ("/v2/health/ready",),
        8080,
    ),
    Stack("DJL Serving", Role.MODEL_SERVER, r"djl-(inference|serving)", "", ("/ping", "/health"), 8080, any_model=True),
    Stack("TensorRT-LLM", Role.MODEL_SERVER, r"", r"\btrtllm-serve\b", ("/health",), 8000),
    Stack("LMDeploy", Role.MODEL_SERVER, r"(^|/)lmdeploy", r"\blmdeploy serve\b", ("/health",), 23333),
    Stack(
        "Ray Serve",
        Role.MODEL_SERVER,
        r"(^|/)(ray-llm|rayservice)",
        r"\bserve (run|start)\b|ray\.serve",
        ("/-/healthz",),
        8000,
        any_model=True,
    ),
    Stack(
        "TensorFlow Serving",
        Role.MODEL_SERVER,
        r"(^|/)tensorflow/serving",
        r"\btensorflow_model_server\b",
        port=8501,
        streams=False,
    ),
    Stack(
        "OpenVINO Model Server",
        Role.MODEL_SERVER,
        r"(^|/)openvino/model_server",
        r"(^|[/ ])ovms( |$)",
        ("/v2/health/ready",),
        8000,
    ),
    Stack(
        "MLServer",
        Role.MODEL_SERVER,
        r"(^|/)mlserver",
        r"\bmlserver start\b",
        ("/v2/health/ready",),
        8080,
        streams=False,
    ),
    Stack(
        "BentoML",
        Role.MODEL_SERVER,
        "",
        r"\bbentoml serve|\bopenllm (serve|start)\b",
        ("/readyz",),
        3000,
        any_model=True,
    ),
    Stack("LocalAI", Role.MODEL_SERVER, r"(^|/)localai($|[:@])", r"\blocal-ai run\b", ("/readyz",), 8080),
    Stack(
        "Infinity",
        Role.MODEL_SERVER,
        r"(^|/)michaelf34/infinity",
        r"\binfinity_emb\b",
        ("/health",),
        7997,
        streams=False,
    ),
    Stack("faster-whisper", Role.MODEL_SERVER, r"faster-whisper-server|(^|/)speaches", "", ("/health",), 8000),
    Stack("Qdrant", Role.VECTOR_DATABASE, r"(^|/)qdrant($|[:@])", "", ("/readyz", "/healthz"), 6333),
    Stack("Milvus", Role.VECTOR_DATABASE, r"(^|/)milvus($|[:@])", r"\bmilvus run\b", ("/healthz",), 19530),
    Stack("Weaviate", Role.VECTOR_DATABASE, r"(^|/)weaviate($|[:@])", "", ("/v1/.well-known/ready",), 8080),
    Stack("pgvector", Role.VECTOR_DATABASE, r"(^|/)pgvector", "", (), 5432),
    Stack(
        "Chroma",
        Role.VECTOR_DATABASE,
        r"(^|/)chroma(db)?($|[:@])",
        r"\bchroma run\b",
        ("/api/v2/heartbeat", "/api/v1/heartbeat"),
        8000,
    ),
    Stack("Redis Stack", Role.VECTOR_DATABASE, r"(^|/)redis-stack(-server)?($|[:@])", "", (), 6379),
    Stack("Redis", Role.VECTOR_DATABASE, r"(^|/)(redis|valkey)($|[:@])", "", (), 6379, called=True),
    Stack("OpenSearch", Role.VECTOR_DATABASE, r"(^|/)opensearch($|[:@])", "", (), 9200, called=True),
    Stack("Elasticsearch", Role.VECTOR_DATABASE, r"(^|/)elasticsearch($|[:@])", "", (), 9200, called=True),
)

_BY_NAME = {s.name: s for s in STACKS}


def stack_named(name: str) -> Stack | None:
    return _BY_NAME.get(name)


def repository(image: str) -> str:
    """An image reference without its registry host: "nvcr.io/nim/meta/llama:1" is "nim/meta/llama:1"."""
    host, slash, path = image.partition("/")
    return path if slash and ("." in host or ":" in host or host == "localhost") else image


@lru_cache(maxsize=4096)
def stack_of_image(image: str) -> Stack | None:
    name = repository(image).lower()
    return next((s for s in STACKS if s.image and re.search(s.image, name)), None)


@lru_cache(maxsize=4096)
def stack_of_command(line: str) -> Stack | None:
    return next((s for s in STACKS if s.words and re.search(s.words, line)), None)
