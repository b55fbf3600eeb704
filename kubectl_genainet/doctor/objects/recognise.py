"""Which workloads are GenAI workloads, and why: images, command lines, kinds, devices, ports and labels together.

Nothing is configured. A name alone tells nothing: controllers, clients, benchmarks and consoles are named after what they
serve. Each role has a certainty: derived from what the containers run, or assumed from how the workload looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import msgspec

from kubectl_genainet.doctor.objects.podspec import (
    EFA_RESOURCE,
    NEURON_RESOURCES,
    OTHER_ACCELERATORS,
    ContainerSpec,
)
from kubectl_genainet.doctor.objects.stacks import Role, Stack, stack_of_command, stack_of_image
from kubectl_genainet.doctor.objects.workloads import Workload, WorkloadKey
from kubectl_genainet.model.finding import Certainty, ObjectRef
from kubectl_genainet.model.workload_kinds.accelerators import GPU_RESOURCES


class Recognised(msgspec.Struct, frozen=True):
    """A GenAI workload, its role, the stack it runs (empty if not known), what told so and how sure that is."""

    object: ObjectRef
    role: Role
    stack: str
    why: tuple[str, ...]
    pods: int = 0
    certainty: Certainty = Certainty.DERIVED


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


# Labels that name a workload, and those with which serving systems mark their model servers.
_NAME_LABELS = ("app.kubernetes.io/name", "app.kubernetes.io/component", "app")
_SERVING_LABELS = {
    "serving.kserve.io/inferenceservice": "KServe",
    "llm-d.ai/inferenceServing": "llm-d",
    "llm-d.ai/inference-serving": "llm-d",
    "ray.io/serve": "Ray Serve",
    "model.aibrix.ai/name": "",
    "kaito.sh/workspace": "KAITO",
}
# Kinds of operators whose pods are model servers.
_SERVER_KINDS = {"NIMService": "NIM", "Model": "", "Workspace": "KAITO"}
_MODEL_NAMES: tuple[tuple[str, str, Role], ...] = (
    (r"(^|[-_])vllm([-_]|$)", "vLLM", Role.MODEL_SERVER),
    (r"(^|[-_])(tgi|text-generation-inference)([-_]|$)", "TGI", Role.MODEL_SERVER),
    (r"(^|[-_])triton([-_]|$|server)", "Triton", Role.MODEL_SERVER),
    (r"(^|[-_])sglang([-_]|$)", "SGLang", Role.MODEL_SERVER),
    (r"(^|[-_])ollama([-_]|$)", "Ollama", Role.MODEL_SERVER),
    (r"(^|[-_])(llama|llm|mistral|mixtral|qwen|deepseek|gemma|falcon|phi-?[34])", "", Role.MODEL_SERVER),
)
# Words of names and images of what is around a model, not the model: "my-llama-ui", "llm-controller-manager".
_AROUND = re.compile(
    r"(^|[^a-z0-9])(agent|api|archive|archiver|backend|bench|benchmark|cache|chat|chatbot|cli|client|collector|console|controller|coordinator|crd|"
    r"dashboard|db|demo|docs|download|downloader|driver|emulator|epp|eval|evaluation|exporter|factory|finetun(e|er|ing)|frontend|"
    r"gateway|genai|grafana|"
    r"guidellm|ingress|init|job|llama-?stack|lmcache|loader|locust|manager|metrics|mcp|mock|mocker|monitor|notebook|operator|perf|picker|plugin|"
    r"portal|postgres|preload|profiler|profiling|proxy|rag|redis|router|scheduler|sdk|sidecar|simulator|sim|storage|tests?|tester|tool|train(er|ing)?|ui|"
    r"vllme|web|webhook|webui|workbench)([^a-z0-9]|$)"
)
# Images of what answers in a model's stead, and loads none.
_SIMULATES = re.compile(r"(^|[^a-z0-9])(emulator|mock|mocker|sim|simulator)([^a-z0-9]|$)")
# What a command line says that starts no server, though the image could; and what says so unless a server follows it.
_NO_SERVER = r"\b(vllm bench|bench_serving|benchmark\w*|genai-perf|guidellm|lm_eval|locust)\b"
_IDLE = (
    r"\b(sleep (infinity|inf|[0-9]{3,})|tail -f /dev/null|huggingface-cli|hf download|snapshot_download|"
    r"ollama (pull|run)|model-archiver|pip install \S+$)"
)
_OWN_PROGRAM = r"(?<![\w-])(uvicorn|gunicorn|hypercorn|streamlit|chainlit)\s"  # the image is but what it is built on
_WORKER = (
    r"multi-node-serving\.sh worker|ray start(?!.*--head).*--address|--node-rank[= ]+[1-9]|--headless\b|"
    r"\b(NODE_RANK=[1-9]|HEADLESS=(true|1)\b)"
)
_TRAINING_WORDS = r"\b(torchrun|torch\.distributed|deepspeed|mpirun|accelerate launch|neuronx?-cc|nemo_run|megatron)\b"
BATCH = (
    "Job",
    "CronJob",
    "JobSet",
    "PyTorchJob",
    "MPIJob",
    "TFJob",
    "XGBoostJob",
    "PaddleJob",
    "JAXJob",
    "TrainJob",
    "RayJob",
)
ACCELERATORS = (*GPU_RESOURCES, *NEURON_RESOURCES, *OTHER_ACCELERATORS, EFA_RESOURCE)
_SERVING_PORTS = frozenset({80, 3000, 5000, 8000, 8001, 8080, 8081, 8443, 8888, 9000, 11434, 23333, 30000})


def _around(workload: Workload, container: ContainerSpec) -> bool:
    """Whether the container's command line or the names say that it is something around a model."""
    line = " ".join(container.words)
    if re.search(_NO_SERVER, line) or (re.search(_IDLE, line) and stack_of_command(line) is None):
        return True
    names = [workload.name, container.image.rpartition("/")[2], *(workload.labels.get(k, "") for k in _NAME_LABELS)]
    return any(_AROUND.search(name.lower()) for name in names)


def container_stack(container: ContainerSpec) -> tuple[Stack, str] | None:
    """What a container runs, by its command line before its image, with what told so."""
    line = " ".join(container.words)
    if re.search(_NO_SERVER, line):
        return None
    stack = stack_of_command(line)
    if stack is not None:
        return stack, f"command line of container {container.name}"
    if re.search(_IDLE, line) or re.search(_OWN_PROGRAM, line):
        return None
    stack = stack_of_image(container.image)
    return (stack, f"image {container.image}") if stack is not None else None


def runs_model_server(container: ContainerSpec) -> bool:
    """Whether a container's command line or image is of a model server."""
    stack = container_stack(container)
    return stack is not None and stack[0].role is Role.MODEL_SERVER


def _by_containers(workload: Workload) -> tuple[Role, str, str]:
    """(role, stack, why) of what the containers run."""
    for container in workload.containers:
        recognised = container_stack(container)
        if recognised is None or recognised[0].called:
            continue
        stack, why = recognised
        line = " ".join((*container.words, *(f"{name}={value}" for name, value in container.env.items())))
        if stack.role is Role.MODEL_SERVER and (re.search(_WORKER, line) or workload.part.endswith("worker")):
            return Role.ACCELERATED, stack.name, f"{why}; it joins a leader that serves"
        return stack.role, stack.name, why
    return Role.UNKNOWN, "", ""


def _by_kind(workload: Workload) -> tuple[Role, str, str]:
    """(role, stack, why) where an operator's kind or label says what its pods do."""
    kind, part = workload.ref.kind, workload.part
    if any(_SIMULATES.search(c.image.rpartition("/")[2].partition(":")[0].lower()) for c in workload.containers):
        return Role.UNKNOWN, "", ""
    if kind == "InferenceService" and part in ("", "predictor"):
        return Role.MODEL_SERVER, "KServe", "kind InferenceService"
    if kind == "LLMInferenceService" and not part.endswith("worker"):
        return Role.MODEL_SERVER, "llm-d", "kind LLMInferenceService"
    if kind in _SERVER_KINDS:
        return Role.MODEL_SERVER, _SERVER_KINDS[kind], f"kind {kind}"
    if workload.group in ("ray.io", "orchestration.aibrix.ai") and part == "head":
        ports = {n for c in workload.containers for n, _, _ in c.ports}
        names = {name for c in workload.containers for _, name, _ in c.ports}
        if kind == "RayService" or 8000 in ports or "serve" in names:
            return Role.ROUTER, "Ray Serve", f"head of kind {kind}, whose proxy serves requests"
    for key, stack in _SERVING_LABELS.items():
        if workload.labels.get(key) and not any(_around(workload, c) for c in workload.containers):
            return Role.MODEL_SERVER, stack, f"label {key}={workload.labels[key]}"
    return Role.UNKNOWN, "", ""


def _by_name(workload: Workload) -> tuple[Role, str, str]:
    """(role, stack, why) by a name, where a serving port or an accelerator speaks for it too."""
    serves = any(n in _SERVING_PORTS for c in workload.containers for n, _, _ in c.ports)
    if not (serves or _devices(workload)) or any(_around(workload, c) for c in workload.containers):
        return Role.UNKNOWN, "", ""
    for key in _NAME_LABELS:
        value = workload.labels.get(key, "")
        for pattern, stack, role in _MODEL_NAMES:
            if value and re.search(pattern, value.lower()):
                return role, stack, f"label {key}={value}"
    return Role.UNKNOWN, "", ""


def _devices(workload: Workload) -> list[str]:
    return [
        f"{name} {value}"
        for c in workload.containers
        for name, value in c.requests.items()
        if name.startswith(ACCELERATORS)
    ]


def recognise(workload: Workload) -> Recognised | None:
    """The workload as a GenAI workload, or None. What its containers run goes before kinds, kinds before names."""
    batch, devices = workload.ref.kind in BATCH or workload.group == "batch.volcano.sh", _devices(workload)
    certainty = Certainty.DERIVED
    role, stack, why = (Role.UNKNOWN, "", "") if batch else _by_kind(workload)
    if not batch and not stack:
        by_containers = _by_containers(workload)
        role, stack, why = by_containers if by_containers[0] is not Role.UNKNOWN else (role, stack, why)
    trains = next((c for c in workload.containers if re.search(_TRAINING_WORDS, " ".join(c.words))), None)
    if role is Role.UNKNOWN and trains is not None and (devices or batch):
        role, why = Role.TRAINING, f"command line of container {trains.name}"
    if role is Role.UNKNOWN and not batch and workload.ref.kind != "DaemonSet":
        role, stack, why = _by_name(workload)
        certainty = Certainty.ASSUMED
    if role is Role.UNKNOWN and devices and workload.ref.kind != "DaemonSet":
        role = Role.TRAINING if batch or workload.template.efas else Role.ACCELERATED
    if role is Role.UNKNOWN:
        return None
    reasons = ([why] if why else []) + [f"requests {d}" for d in devices]
    return Recognised(workload.ref, role, stack, tuple(dict.fromkeys(reasons)), len(workload.pods), certainty)


def recognise_all(workloads: Iterable[Workload], overrides: Sequence[Override] = ()) -> dict[WorkloadKey, Recognised]:
    """The GenAI workloads among some; with overrides those that they name, and no others."""
    recognised: dict[WorkloadKey, Recognised] = {}
    for workload in workloads:
        override = next((o for o in overrides if o.matches(workload.ref)), None)
        if overrides and override is None:
            continue
        known = recognise(workload)
        if override is not None:
            stack = known.stack if known and known.role is override.role else ""
            known = Recognised(workload.ref, override.role, stack, ("--workload",), len(workload.pods))
        if known is not None:
            recognised[workload.key] = known
    return recognised
