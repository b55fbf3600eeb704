"""Model servers that fetch their model from a hub on the internet when they start."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from kubectl_genainet.doctor.check import assumed
from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import at, items, strings, text
from kubectl_genainet.doctor.objects.workloads import Workload

HUGGING_FACE, OLLAMA = "huggingface.co", "registry.ollama.ai"
# Where the hubs' files are: their answers lead there.
FILES = {HUGGING_FACE: ("*.hf.co", "*.xethub.hf.co"), OLLAMA: ("*.r2.cloudflarestorage.com",)}
_OPTIONS = ("--model", "--model-path", "--model-id", "--model_id", "--hf-repo", "-hf", "-hfr")
_SERVE = re.compile(r"\bvllm serve +([^\s-]\S*)")
_PULL = re.compile(r"\bollama (?:pull|run) +([^\s\"'$;&|]+)")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(:[\w.-]+)?")
_FOLDERS = frozenset(
    {"app", "cache", "data", "home", "local", "mnt", "model", "models", "opt", "root", "tmp", "workspace"}
)
# Variables that say that the hub isn't asked, or not directly.
_OTHERWISE = frozenset(
    {
        *("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_ENDPOINT", "VLLM_USE_MODELSCOPE"),
        *("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"),
    }
)
# Volumes that begin empty with each pod, or hold no model.
_PASSING = frozenset({"emptyDir", "configMap", "secret", "projected", "downwardAPI"})


def fetches(servers: Iterable[Workload]) -> Iterator[Call]:
    """What model servers fetch at every start: into no volume that is kept, and with no container before them that could.

    Sources: https://docs.vllm.ai/en/latest/serving/env_vars.html, https://docs.ollama.com/cli,
    https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    for server in servers:
        passing = {text(v, "name") for v in items(server.template.spec, "volumes") if _PASSING & v.keys()}
        for container in server.template.containers if not server.template.init_containers else ():
            mounted = {text(m, "name") for m in items(container.raw, "volumeMounts")}
            field, model, host = _model(container)
            if host and mounted <= passing and not _OTHERWISE & container.env_names and "envFrom" not in container.raw:
                statement = f"{server.ref} fetches {model} from {host} when it starts"
                yield Call(server, host, 443, None, assumed(server.ref, server.field(field), model, statement), True)


def _model(container: ContainerSpec) -> tuple[str, str, str]:
    """(field below the pod's spec, model, hub) of what a container fetches; empty where it fetches nothing that is known."""
    line, words = " ".join(container.words), f"{container.field}.{'args' if at(container.raw, 'args') else 'command'}"
    hook = " ".join(strings(container.raw, "lifecycle", "postStart", "exec", "command"))
    for field, commands in ((words, line), (f"{container.field}.lifecycle.postStart.exec.command", hook)):
        if pulled := _PULL.search(commands):
            return field, pulled[1], OLLAMA
    served = _SERVE.search(line)
    name = (served[1] if served else container.option(*_OPTIONS)).strip("'\"")
    if not name:
        name, words = container.env.get("MODEL_ID", ""), container.env_field("MODEL_ID")
    named = _REPOSITORY.fullmatch(name) is not None and name.partition("/")[0].lower() not in _FOLDERS
    return (words, name, HUGGING_FACE) if named else ("", "", "")
