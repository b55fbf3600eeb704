"""Which workloads are GenAI workloads, and why: images, arguments, devices, labels. Nothing is configured."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import Service


class Role(Enum):
    """What a workload is in a GenAI application."""

    MODEL_SERVER = "model-server"
    VECTOR_DATABASE = "vector-database"
    TRAINING = "training"
    APPLICATION = "application"  # calls one of the above: a RAG application, a chat front end
    ACCELERATED = "accelerated"  # asks for GPUs or Neuron devices; what it runs is not known
    UNKNOWN = "unknown"


class Recognised(msgspec.Struct, frozen=True):
    """A GenAI workload, its role, the stack it runs (empty if not known), and what told so."""

    object: ObjectRef
    role: Role
    stack: str
    why: tuple[str, ...]
    pods: int = 0


class Override(msgspec.Struct, frozen=True):
    """`--workload`: this object is a GenAI workload of this role, whatever it looks like. `kind` may be empty."""

    name: str
    role: Role
    kind: str = ""
    namespace: str = ""

    def matches(self, ref: ObjectRef) -> bool:
        return (
            self.name == ref.name
            and self.kind in ("", ref.kind)
            and (not self.namespace or self.namespace == ref.namespace)
        )


@dataclass(frozen=True, slots=True)
class Stack:
    """A serving stack or database: how its images and command lines look, and what is true when it is ready.

    `ready` are HTTP paths that answer 200 only when the model is loaded (or the database serves).
    """

    name: str
    role: Role
    image: str
    words: str = ""
    ready: tuple[str, ...] = ()
    port: int = 0


# The image pattern is matched against repository and tag without the registry host.
# Readiness paths and ports: the projects' own documentation (docs.vllm.ai, docs.sglang.ai, pytorch.org/serve,
# huggingface.co/docs/text-generation-inference, docs.nvidia.com/deeplearning/triton-inference-server,
# docs.nvidia.com/nim, qdrant.tech, milvus.io, weaviate.io, docs.trychroma.com).
STACKS = (
    Stack("NIM", Role.MODEL_SERVER, r"(^|/)nim/", ready=("/v1/health/ready",), port=8000),
    Stack("llm-d", Role.MODEL_SERVER, r"(^|/)llm-d", ready=("/health", "/v1/models"), port=8000),
    Stack(
        "vLLM",
        Role.MODEL_SERVER,
        r"(^|/)(vllm[-/]|vllm($|:)|.*vllm-openai)",
        r"\bvllm serve\b|vllm\.entrypoints",
        ("/health", "/v1/models"),
        8000,
    ),
    Stack(
        "SGLang",
        Role.MODEL_SERVER,
        r"(^|/)sglang",
        r"sglang(\.|_)launch_server|sglang\.launch_server",
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
    Stack("TEI", Role.MODEL_SERVER, r"text-embeddings-inference", r"\btext-embeddings-router\b", ("/health",), 80),
    Stack(
        "Triton",
        Role.MODEL_SERVER,
        r"(^|/)tritonserver",
        r"\btritonserver\b",
        ("/v2/health/ready",),
        8000,
    ),
    Stack(
        "Ollama",
        Role.MODEL_SERVER,
        r"(^|/)ollama(/ollama)?($|:|@)",
        r"\bollama serve\b",
        ("/", "/api/version", "/api/tags"),
        11434,
    ),
    Stack("TorchServe", Role.MODEL_SERVER, r"(^|/)(pytorch/)?torchserve", r"\btorchserve\b", ("/ping",), 8080),
    Stack("llama.cpp", Role.MODEL_SERVER, r"llama\.cpp|llama-cpp", r"\bllama-server\b", ("/health",), 8080),
    Stack(
        "KServe",
        Role.MODEL_SERVER,
        r"(^|/)kserve/(hugging|.*server|sklearn|lgb|xgb|pmml)",
        r"\bhuggingfaceserver\b",
        ("/v2/health/ready",),
        8080,
    ),
    Stack("DJL Serving", Role.MODEL_SERVER, r"djl-(inference|serving)", "", ("/ping", "/health"), 8080),
    Stack(
        "Ray Serve",
        Role.MODEL_SERVER,
        r"(^|/)(ray-llm|rayservice)",
        r"\bserve (run|start)\b|ray\.serve",
        ("/-/healthz",),
        8000,
    ),
    Stack("Qdrant", Role.VECTOR_DATABASE, r"(^|/)qdrant($|[/:@])", "", ("/readyz", "/healthz"), 6333),
    Stack("Milvus", Role.VECTOR_DATABASE, r"(^|/)milvus($|[/:@])", r"\bmilvus run\b", ("/healthz",), 19530),
    Stack("Weaviate", Role.VECTOR_DATABASE, r"(^|/)weaviate($|[/:@])", "", ("/v1/.well-known/ready",), 8080),
    Stack("pgvector", Role.VECTOR_DATABASE, r"(^|/)pgvector", "", (), 5432),
    Stack(
        "Chroma",
        Role.VECTOR_DATABASE,
        r"(^|/)chroma(db)?($|[/:@])",
        r"\bchroma run\b",
        ("/api/v2/heartbeat", "/api/v1/heartbeat"),
        8000,
    ),
)

_BY_NAME = {s.name: s for s in STACKS}
_LABEL_KEYS = (
    "app.kubernetes.io/name",
    "app.kubernetes.io/component",
    "app",
    "serving.kserve.io/inferenceservice",
    "llm-d.ai/inferenceServing",
    "ray.io/serve",
)
_LABEL_WORDS: tuple[tuple[str, str, Role], ...] = (
    (r"(^|[-_])vllm([-_]|$)", "vLLM", Role.MODEL_SERVER),
    (r"(^|[-_])(tgi|text-generation-inference)([-_]|$)", "TGI", Role.MODEL_SERVER),
    (r"(^|[-_])triton([-_]|$|server)", "Triton", Role.MODEL_SERVER),
    (r"(^|[-_])sglang([-_]|$)", "SGLang", Role.MODEL_SERVER),
    (r"(^|[-_])ollama([-_]|$)", "Ollama", Role.MODEL_SERVER),
    (r"(^|[-_])qdrant([-_]|$)", "Qdrant", Role.VECTOR_DATABASE),
    (r"(^|[-_])milvus([-_]|$)", "Milvus", Role.VECTOR_DATABASE),
    (r"(^|[-_])weaviate([-_]|$)", "Weaviate", Role.VECTOR_DATABASE),
    (r"(^|[-_])(pgvector)([-_]|$)", "pgvector", Role.VECTOR_DATABASE),
    (r"(^|[-_])(chroma|chromadb)([-_]|$)", "Chroma", Role.VECTOR_DATABASE),
    (r"(^|[-_])(llama|llm|mistral|mixtral|qwen|deepseek|gemma|falcon|phi-?[34])", "", Role.MODEL_SERVER),
)
# "my-llama-ui" and "my-llama-epp" (an endpoint picker) are around a model, not the model.
_NOT_THE_MODEL = r"[-_](epp|ui|web|frontend|gateway|proxy|router|operator|controller|scheduler|exporter)$"
_TRAINING_WORDS = r"\b(torchrun|torch\.distributed|deepspeed|mpirun|accelerate launch|neuronx?-cc)\b"
_TRAINING_KINDS = ("Job", "JobSet", "PyTorchJob", "MPIJob")


def stack_named(name: str) -> Stack | None:
    return _BY_NAME.get(name)


def repository(image: str) -> str:
    """An image reference without its registry host: "nvcr.io/nim/meta/llama:1" is "nim/meta/llama:1"."""
    host, slash, rest = image.partition("/")
    return rest if slash and ("." in host or ":" in host or host == "localhost") else image


def recognise(workload: Workload) -> Recognised | None:
    """The workload as a GenAI workload, or None. Images and command lines go before labels, labels before devices."""
    reasons: list[str] = []
    role, stack = Role.UNKNOWN, ""
    for container in workload.containers:
        line = " ".join(container.words)
        for candidate in STACKS:
            if re.search(candidate.image, repository(container.image)):
                reasons.append(f"image {container.image}")
            elif candidate.words and re.search(candidate.words, line):
                reasons.append(f"command line of container {container.name}")
            else:
                continue
            role, stack = candidate.role, candidate.name
            break
        if role is Role.UNKNOWN and re.search(_TRAINING_WORDS, line):
            role = Role.TRAINING
            reasons.append(f"command line of container {container.name}")
    template = workload.template
    if role is Role.UNKNOWN:
        role, stack = _by_labels(template.labels, reasons)
    devices = [
        f"{name} {value}"
        for c in workload.containers
        for name, value in c.requests.items()
        if name.startswith(
            ("nvidia.com/", "amd.com/gpu", "gpu.intel.com/", "aws.amazon.com/neuron", "vpc.amazonaws.com/efa")
        )
    ]
    if devices and role is Role.UNKNOWN and workload.ref.kind != "DaemonSet":
        role = Role.TRAINING if workload.ref.kind in _TRAINING_KINDS or template.efas else Role.ACCELERATED
    if role is Role.UNKNOWN:
        return None
    reasons += [f"requests {d}" for d in devices]
    return Recognised(workload.ref, role, stack, tuple(dict.fromkeys(reasons)), len(workload.pods))


def _by_labels(labels: dict[str, str], reasons: list[str]) -> tuple[Role, str]:
    for key in _LABEL_KEYS:
        value = labels.get(key, "")
        if value and key.startswith(("serving.kserve.io", "llm-d.ai", "ray.io/serve")):
            reasons.append(f"label {key}={value}")
            return Role.MODEL_SERVER, "llm-d" if key.startswith(
                "llm-d"
            ) else "KServe" if "kserve" in key else "Ray Serve"
        for pattern, stack, role in _LABEL_WORDS:
            if value and re.search(pattern, value.lower()) and not re.search(_NOT_THE_MODEL, value.lower()):
                reasons.append(f"label {key}={value}")
                return role, stack
    return Role.UNKNOWN, ""


def recognise_all(workloads: Iterable[Workload], overrides: Sequence[Override] = ()) -> dict[ObjectRef, Recognised]:
    """The GenAI workloads among some; with overrides those that they name, and no others."""
    found: dict[ObjectRef, Recognised] = {}
    for workload in workloads:
        override = next((o for o in overrides if o.matches(workload.ref)), None)
        if overrides and override is None:
            continue
        known = recognise(workload)
        if override is not None:
            stack = known.stack if known and known.role is override.role else ""
            known = Recognised(workload.ref, override.role, stack, ("--workload",), len(workload.pods))
        if known is not None:
            found[workload.ref] = known
    return found


def with_callers(
    recognised: Mapping[ObjectRef, Recognised],
    calls: Iterable[Call],
    workloads_of: Callable[[Service], Iterable[Workload]],
) -> dict[ObjectRef, Recognised]:
    """The recognised workloads, and as applications those that call one of them, or one that does.

    A chat front end calls a RAG application that calls the model server. Training is not called for answers.
    """
    found = dict(recognised)
    calls = tuple(calls)
    changed = True
    while changed:
        changed = False
        for call in calls:
            if call.client.ref in found or call.service is None:
                continue
            callees = (found.get(callee.ref) for callee in workloads_of(call.service))
            if any(callee is not None and callee.role is not Role.TRAINING for callee in callees):
                why = f"calls {call.service.ref} ({call.evidence.field})"
                found[call.client.ref] = Recognised(
                    call.client.ref, Role.APPLICATION, "", (why,), len(call.client.pods)
                )
                changed = True
    return found
