"""GenAI workloads that are known by their calls: the applications in front of models, and the stores that these ask."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.raw import items, text
from kubectl_genainet.doctor.objects.recognise import ACCELERATORS, BATCH, Recognised, container_stack
from kubectl_genainet.doctor.objects.stacks import Role, stack_named
from kubectl_genainet.doctor.objects.workloads import Workload, WorkloadKey
from kubectl_genainet.model.finding import Certainty, ObjectRef
from kubectl_genainet.model.kube import Service

# Hosts of models that others run.
_WEB_SOCKET = re.compile(r"wss?://([\w.-]+)")
_MODEL_API = re.compile(
    r"^(api\.(openai|anthropic|mistral|deepseek|groq|together|cohere|perplexity|fireworks)\.(com|ai|xyz)|"
    r"generativelanguage\.googleapis\.com|.*-aiplatform\.googleapis\.com|.*\.openai\.azure\.com|"
    r"bedrock(-runtime)?\..*\.amazonaws\.com|openrouter\.ai|integrate\.api\.nvidia\.com)\.?$"
)


def with_callers(
    recognised: Mapping[WorkloadKey, Recognised],
    calls: Iterable[Call],
    workloads_of: Callable[[Service], Iterable[Workload]],
) -> dict[WorkloadKey, Recognised]:
    """The recognised workloads, as applications those that call one of them, or one that does, and their stores.

    A chat front end calls a RAG application that calls the model server. Training is not called for answers. A search
    engine or a cache that an application calls is taken for its vector store.
    """
    extended = dict(recognised)
    calls = tuple(calls)
    for call in calls:
        asks = call.service is None and _MODEL_API.search(call.host) is not None
        if (
            asks
            and call.client.key not in extended
            and not _runs_once(call.client)
            and call.client.ref.kind != "DaemonSet"
        ):
            why = f"calls {call.host} ({call.evidence.field})"
            extended[call.client.key] = Recognised(
                call.client.ref, Role.APPLICATION, "", (why,), len(call.client.pods), Certainty.ASSUMED
            )
    calls = tuple(c for c in calls if c.service is not None)
    changed = True
    while changed:
        changed = False
        for call in calls:
            for callee in workloads_of(call.service) if call.service is not None else ():
                related = (
                    _caller(call, extended.get(callee.key))
                    if call.client.key not in extended
                    else _store(call, callee, extended)
                )
                if related is not None:
                    extended[call.client.key if call.client.key not in extended else callee.key] = related
                    changed = True
    return extended


def _caller(call: Call, callee: Recognised | None) -> Recognised | None:
    if callee is None or callee.role in (Role.TRAINING, Role.ACCELERATED) or _runs_once(call.client):
        return None
    why = f"calls {call.service.ref if call.service else call.host} ({call.evidence.field})"
    return Recognised(call.client.ref, Role.APPLICATION, "", (why,), len(call.client.pods), Certainty.ASSUMED)


def _runs_once(workload: Workload) -> bool:
    """Whether the pods end by themselves: a job, a bare pod that is not restarted, a chart's hook."""
    once = workload.ref.kind == "Pod" and workload.template.spec.get("restartPolicy") in ("Never", "OnFailure")
    hook = "helm.sh/hook" in workload.template.annotations
    return once or hook or workload.ref.kind in BATCH


def _store(call: Call, callee: Workload, recognised: Mapping[WorkloadKey, Recognised]) -> Recognised | None:
    """A search engine or cache that an application calls, which may hold its vectors."""
    if callee.key in recognised or recognised[call.client.key].role is not Role.APPLICATION:
        return None
    for container in callee.containers:
        stack = container_stack(container)
        if stack is not None and stack[0].called:
            why = (stack[1], f"{call.client.ref} calls it ({call.evidence.field})")
            return Recognised(callee.ref, stack[0].role, stack[0].name, why, len(callee.pods), Certainty.ASSUMED)
    return None


# Variables by which an application is told of a model.
_MODEL_VARIABLE = re.compile(
    r"(^|_)(OPENAI|ANTHROPIC|BEDROCK|GEMINI|MISTRAL|OLLAMA|VLLM|TGI|LLM|LITELLM|MODEL|CHAT|INFERENCE)(_|$)"
)


_SERVING = (Role.MODEL_SERVER, Role.ROUTER)
_OF_ANY_PROVIDER = ("LiteLLM",)  # routers whose models may all be hosted by others

# A client, the Service that it is configured to call, and the object that tells so.
_Inside = tuple[WorkloadKey, Service, ObjectRef | None]


def passing_tokens(
    genai: Mapping[WorkloadKey, Recognised],
    workloads: Sequence[Workload],
    calls: Iterable[Call],
    workloads_of: Callable[[Service], Iterable[Workload]],
    programs_of: Callable[[Workload], str | None],
    *,
    for_sure: bool = False,
) -> frozenset[WorkloadKey]:
    """The workloads through which a model's tokens pass: model servers, routers, and the applications that call them, that
    call such an application, or that are told of a model. A database's console passes none. `programs_of`: what an object
    says beside its pods of the programs that run there; None where that is not known. `for_sure`: only where the tokens come
    from a server here that what it runs shows to be one, as the answer to a request: a hosted model answers within seconds, a
    name may mean anything, a ConfigMap that several read does not tell which of them calls, and a WebSocket lives on."""
    roles = {key: known.role for key, known in genai.items()}
    at_once = {
        workload.key
        for workload in workloads
        if roles.get(workload.key) in _SERVING
        and (_answers_at_once(workload) or _other_model(genai.get(workload.key), workload, programs_of))
    }
    unsure = _unsure(genai, workloads) if for_sure else frozenset()
    passing = {
        key
        for key, known in genai.items()
        if known.role in _SERVING and _streams(known) and key not in at_once and key not in unsure
    }
    passing |= {
        workload.key
        for workload in workloads
        if not for_sure
        and roles.get(workload.key) is Role.APPLICATION
        and (genai[workload.key].certainty is not Certainty.ASSUMED or _is_told_of_a_model(workload))
    }
    inside: list[_Inside] = []
    asking = {key for key, known in genai.items() if known.role is Role.APPLICATION or known.stack in _OF_ANY_PROVIDER}
    for call in calls:
        if for_sure and _over_a_web_socket(call):
            continue
        if call.client.key in asking and call.service is not None:
            inside.append((call.client.key, call.service, call.evidence.object))
        elif not for_sure and roles.get(call.client.key) is Role.APPLICATION and _MODEL_API.search(call.host):
            passing.add(call.client.key)
    if for_sure:
        inside = _told_for_sure(inside, workloads_of)
    pushing = {w.key for w in workloads if for_sure and w.key in asking and _pushes(w)}
    inside = [told for told in inside if told[0] not in pushing]
    before = -1
    while before != len(passing):
        before = len(passing)
        passing |= {client for client, service, _ in inside if any(w.key in passing for w in workloads_of(service))}
    return frozenset(passing)


def _over_a_web_socket(call: Call) -> bool:
    return call.host in _WEB_SOCKET.findall(str(call.evidence.value))


def _unsure(genai: Mapping[WorkloadKey, Recognised], workloads: Sequence[Workload]) -> frozenset[WorkloadKey]:
    """The servers and routers of which not all that they run shows that a language model is served by them, or here."""
    accelerated = {workload.key for workload in workloads if workload.template.accelerated}
    unnamed = {w.key for w in workloads if w.ref.kind == "InferenceService" and not _names_a_language_model(w)}
    return frozenset(
        key
        for key, known in genai.items()
        if known.stack in _OF_ANY_PROVIDER or (key not in accelerated and (_by_name_alone(known) or key in unnamed))
    )


def _told_for_sure(inside: list[_Inside], workloads_of: Callable[[Service], Iterable[Workload]]) -> list[_Inside]:
    """The calls without those of which a ConfigMap does not tell who makes them: it has several readers, or names its reader's
    own Service, and so lists the addresses of all."""
    listed: dict[ObjectRef, list[_Inside]] = defaultdict(list)
    for call in inside:
        if call[2] is not None and call[2].kind == "ConfigMap":
            listed[call[2]].append(call)
    unsure: set[tuple[WorkloadKey, ObjectRef]] = set()
    for told, calls in listed.items():
        for client, service, _ in calls:
            several = len({other for other, callee, _ in calls if callee.ref == service.ref}) > 1
            if several or any(w.key == client for w in workloads_of(service)):
                unsure.add((client, told))
    return [call for call in inside if call[2] is None or (call[0], call[2]) not in unsure]


def _by_name_alone(known: Recognised) -> bool:
    return not known.stack and known.certainty is Certainty.ASSUMED


def _names_a_language_model(workload: Workload) -> bool:
    """Whether a server of models of every kind runs, or is told of, one of language."""
    words = [workload.name, *workload.labels.values()]
    for container in workload.containers:
        words += [container.image, *container.words, *container.env.values(), text(container.raw, "storageUri")]
        words += [text(container.raw, "runtime"), text(container.raw, "modelFormat", "name")]
    return _LANGUAGE_MODEL.search(" ".join(words).lower()) is not None


# Chat front ends that send their browsers the tokens over a WebSocket that they ping.
_PUSHES = re.compile(r"(^|[^a-z0-9])(open-?webui|chainlit|streamlit)([^a-z0-9]|$)")


def _pushes(workload: Workload) -> bool:
    for container in workload.containers:
        probes = (container.probe(kind) for kind in ("readinessProbe", "livenessProbe", "startupProbe"))
        told = any(name.startswith(("STREAMLIT_", "CHAINLIT_")) for name in container.env_names)
        if told or any(p is not None and p.path.startswith("/_stcore/") for p in probes):  # Streamlit's own paths
            return True
        if _PUSHES.search(f"{container.image.rpartition('/')[2]} {' '.join(container.words)}".lower()):
            return True
    return False


def _streams(known: Recognised) -> bool:
    stack = stack_named(known.stack)
    return stack is None or stack.streams


# Models whose answer is one vector, score or class, by the names that they go by, and servers told to serve such a one.
_ONE_ANSWER = re.compile(
    r"(^|[^a-z0-9])(embed|embedding|embeddings|embedder|minilm|bge|gte|e5|rerank|reranker|cross-encoder|"
    r"classifier|classification|sentence-transformers|--is-embedding|--runner[= ]pooling)([^a-z0-9]|$)"
)
_CLASSIC_FORMATS = ("sklearn", "xgboost", "lightgbm", "pmml", "paddle", "onnx", "tensorflow", "mlflow")
_MODEL_NAMES = ("MODEL", "MODEL_ID", "MODEL_NAME", "HF_MODEL_ID")


# Names of language models and of what serves them.
_LANGUAGE_MODEL = re.compile(
    r"llm|gpt|llama|mistral|mixtral|gemma|qwen|deepseek|falcon|nemotron|granite|starcoder|bloom|chat|openai|"
    r"text-?gen|instruct|completion|(^|[^a-z])phi-?[0-9]"
)


def _other_model(known: Recognised | None, workload: Workload, programs_of: Callable[[Workload], str | None]) -> bool:
    """Whether a server of models of every kind has none of language, as far as its object says."""
    stack = stack_named(known.stack) if known is not None else None
    if stack is None or not stack.any_model:
        return False
    programs = programs_of(workload)
    if programs is None:
        return True
    words = [workload.name, programs, *workload.labels.values()]
    for container in workload.containers:
        words += [container.image, *container.words, *container.env, *container.env.values()]
    mounted = (text(v, "configMap", "name") for v in items(workload.template.spec, "volumes"))
    return _ONE_ANSWER.search(" ".join(mounted)) is not None or not _LANGUAGE_MODEL.search(" ".join(words).lower())


def _answers_at_once(workload: Workload) -> bool:
    """Whether the model behind a workload answers at once and not token by token: embeddings, rerankers, classifiers."""
    for container in workload.containers:
        if text(container.raw, "modelFormat", "name").lower() in _CLASSIC_FORMATS:
            return True
        model_names = (
            text(container.raw, "storageUri"),
            *container.words,
            *(container.env.get(n, "") for n in _MODEL_NAMES),
        )
        if _ONE_ANSWER.search(" ".join(model_names).lower()):
            return True
    return _ONE_ANSWER.search(workload.name.lower()) is not None or _of_unknown_kind(workload)


def _of_unknown_kind(workload: Workload) -> bool:
    """Whether an InferenceService runs an image of the user's own on CPUs: KServe serves classic models in this way too."""
    return (
        workload.ref.kind == "InferenceService"
        and bool(workload.containers)
        and not any(
            text(c.raw, "modelFormat", "name")
            or container_stack(c)
            or any(r.startswith(ACCELERATORS) for r in c.requests)
            for c in workload.containers
        )
    )


def _is_told_of_a_model(workload: Workload) -> bool:
    return any(_MODEL_VARIABLE.search(text(e, "name")) for c in workload.containers for e in items(c.raw, "env"))
