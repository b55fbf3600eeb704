"""Health checks of the pods themselves, and the time a model takes to load."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, assumed, check, derived, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerProbe, ContainerSpec
from kubectl_genainet.doctor.objects.raw import at, condition, items, moment, number, text
from kubectl_genainet.doctor.objects.recognise import Recognised
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit, edit_container
from kubectl_genainet.doctor.predicates.inference import serving_container
from kubectl_genainet.model.finding import Certainty, Evidence, Remedy, Severity

SHORT_S = 120
SHORT_OF_MANY_S, _MANY_GPUS = 300, 4  # of a model that one pod spreads over so many accelerators
_SMALL_MODEL = re.compile(r"[-_/.](\d{2,3}m|0[._]\d{1,2}b)([-_/.:]|$)", re.I)
_LIGHT_MODEL, _LIGHT_S = re.compile(r"[-_/.:][1-3]([._]\d{1,2})?b([-_/.:]|$)", re.I), 90


# Operators that give their pods' containers probes of their own.
_PROBED_BY_OPERATOR = ("ray.io", "serving.kserve.io", "nvidia.com", "kubeai.org", "kaito.sh")
# Stacks that listen before their model is loaded; the others open the port once it is.
_LISTEN_EARLY = ("Ollama", "TorchServe", "llama.cpp", "Ray Serve", "DJL Serving", "NIM")


# Stacks whose servers announce themselves to their frontend once the model is loaded, and need no Service.
_REGISTER = ("Dynamo worker",)
# Stacks that load a model when the first request names it: no probe waits for one.
_LOAD_ON_REQUEST = ("Ollama", "LocalAI", "faster-whisper")


def _ready_path(cluster: Cluster, workload: Workload) -> str:
    """The path that answers 200 only when the model is loaded; empty for a stack that is not known."""
    stack = cluster.stack(workload)
    return stack.ready[0] if stack and stack.ready else ""


def _probe(cluster: Cluster, workload: Workload, container: ContainerSpec, name: str, port: int | str = 0) -> Remedy:
    """A probe of the stack's own readiness path; for a server that is not known, no path is made up."""
    path, stack = _ready_path(cluster, workload), cluster.stack(workload)
    if not path:
        return Remedy(
            "Probe a path of the server that answers 200 only when its model is loaded; what it has, its own "
            "documentation tells.",
            command=edit(workload),
        )
    failures = 180 if name == "startupProbe" else 3
    told, declared = container.option("--port"), container.ports[0][0] if container.ports else 0
    where = port or (int(told) if told.isdecimal() else declared) or (stack.port if stack else 0)
    value = {"httpGet": {"path": path, "port": where}, "periodSeconds": 10, "failureThreshold": failures}
    command = edit_container(workload, container, name, value)
    what = "as soon as it serves" if stack and stack.name in _LOAD_ON_REQUEST else "only when the model is loaded"
    return Remedy(f"Probe {path}, which answers 200 {what}.", command=command)


def _by_name_alone(workload: Workload, recognised: Recognised) -> bool:
    """Whether nothing but a name that is no stack's shows a model server: no image, no command line, no accelerator."""
    assumed_only = recognised.certainty is Certainty.ASSUMED and not recognised.stack
    return assumed_only and not workload.template.accelerated


def _runs_once(workload: Workload) -> bool:
    """Whether it is a bare pod that ends: a trial of a server, to which nothing sends requests by its readiness."""
    return workload.ref.kind == "Pod" and text(workload.template.spec, "restartPolicy") in ("Never", "OnFailure")


def _alone(cluster: Cluster, workload: Workload) -> bool:
    """Whether it is a bare pod that no Service selects: nothing is seen to send requests to it by its readiness."""
    return workload.ref.kind == "Pod" and not cluster.services_of(workload)


@check(Area.HEALTH, Severity.WARNING, needs=("Pod",), own_namespace=True)
def readiness_probe(cluster: Cluster) -> Problems:
    """A model server has no readiness probe.

    Looks at the readinessProbe of the serving container of recognised model servers. A startupProbe that asks the model
    waits for it as well: until it has passed, the pod is not ready. A bare pod that is not restarted, or only when it
    fails, is left out where no Service selects it. Information for servers that load a model on request (Ollama, LocalAI,
    faster-whisper):
    no probe waits for that, and they listen within seconds; for what only its name shows to be a model server; and for a
    bare pod that no Service selects.

    Why: the pod becomes an endpoint as soon as its process starts; for the minutes that the model loads, one client
    in several is refused. A warning: requests fail while a new pod loads its model, not afterwards.

    Source: https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
    """
    for workload, recognised in cluster.model_servers:
        container = serving_container(workload)
        probed = workload.group in _PROBED_BY_OPERATOR or workload.ref.kind.startswith("RayCluster")
        uncalled = not cluster.services_of(workload) and (recognised.stack in _REGISTER or _runs_once(workload))
        waits = container is not None and _startup_waits(workload, container, recognised.stack)
        if container is None or container.probe("readinessProbe") or probed or uncalled or waits:
            continue
        field = workload.field(f"{container.field}.readinessProbe")
        on_request = recognised.stack in _LOAD_ON_REQUEST
        mild = on_request or _by_name_alone(workload, recognised) or _alone(cluster, workload)
        yield Problem(
            f"{recognised.stack or 'the model server'} counts as ready before "
            + ("it listens" if on_request else "its model is loaded"),
            workload.ref,
            (seen(workload.ref, field, None, f"container {container.name} has no readinessProbe"),),
            _probe(cluster, workload, container, "readinessProbe"),
            severity=Severity.INFO if mild else None,
        )


@check(Area.HEALTH, Severity.WARNING, needs=("Pod",), own_namespace=True)
def readiness_probe_model(cluster: Cluster) -> Problems:
    """A model server's readiness probe does not tell whether the model is loaded.

    Looks at the handler and path of the readinessProbe: a TCP connect, or a path that the recognised stack answers
    before the model is loaded (Triton's /v2/health/live, NIM's /v1/health/live). A TCP connect is a warning for stacks that
    listen before the model is loaded (llama.cpp, TorchServe, …) and information for the others. Servers that load a model
    when a request names it (Ollama, LocalAI, faster-whisper) are among these: no probe waits for that.

    Why: the server listens, or answers, long before its model can; and a port says nothing of a model that hangs.

    Source: https://docs.vllm.ai/en/latest/deployment/k8s.html,
    https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_model_repository.html,
    https://huggingface.co/docs/text-generation-inference/
    """
    for workload, recognised in cluster.model_servers:
        container = serving_container(workload)
        probe = container.probe("readinessProbe") if container else None
        if container is None or probe is None or probe.handler in ("exec", "grpc", ""):
            continue
        early = recognised.stack in _LISTEN_EARLY and recognised.stack not in _LOAD_ON_REQUEST
        field = workload.field(f"{container.field}.readinessProbe")
        if probe.handler == "tcpSocket":
            evidence = seen(workload.ref, f"{field}.tcpSocket", probe.port, "only asks whether the port is open")
        elif probe.path.rstrip("/").endswith(("/live", "/livez", "/health/live")):
            evidence = seen(
                workload.ref, f"{field}.httpGet.path", probe.path, f"{probe.path} tells that the process lives"
            )
        else:
            continue
        yield Problem(
            f"its readiness does not wait for the model ({recognised.stack or 'model server'})",
            workload.ref,
            (evidence,),
            _probe(cluster, workload, container, "readinessProbe", probe.port),
            severity=None if early or probe.handler == "httpGet" else Severity.INFO,
        )


def load_times(workload: Workload, container: ContainerSpec) -> list[tuple[Evidence, float]]:
    """How long the container took from its start to readiness, per pod that became ready without a restart."""
    times = []
    for live in workload.pods:
        status = next(
            (s for s in items(live.obj.raw, "status", "containerStatuses") if s.get("name") == container.name), {}
        )
        ready = condition(live.obj.raw, "Ready")
        started = moment(at(status, "state", "running", "startedAt"))
        ready_at = moment(ready.get("lastTransitionTime"))
        if (
            ready.get("status") == "True"
            and not number(status, "restartCount")
            and started
            and ready_at
            and ready_at > started
        ):
            took = ready_at - started
            measured = f"{live.ref} took {took:.0f} s from the start of {container.name} to Ready"
            times.append(
                (
                    derived(
                        live.ref, "status.conditions[Ready].lastTransitionTime", ready["lastTransitionTime"], measured
                    ),
                    took,
                )
            )
    return times


@check(Area.HEALTH, Severity.WARNING, needs=("Pod",), own_namespace=True)
def startup_budget(cluster: Cluster) -> Problems:
    """A liveness or startup probe gives a model less time than it takes to load.

    Looks at startupProbe (else livenessProbe) of model servers: initialDelaySeconds + periodSeconds ×
    failureThreshold, against the time from start to Ready that its pods took. Where no pod became ready, a budget
    under two minutes (of a model over four accelerators or more: under five) of a container that was restarted, or that has
    no startup probe, is reported. A probe of a path that does not wait for the model (/v2/health/live), or of another
    container's port, is left out, and so are servers that load a model when it is asked for. Information for models that
    answer at once (embeddings, rerankers) or have less than a billion parameters by their name (opt-125m, 0.5B), or less
    than four of them and a minute and a half (1.5B), for what only its name shows to be a model server, and for a server
    whose readiness has a path of its own (/ready), where no pod tells the time.

    Why: the kubelet kills the container in the middle of loading, again and again, and the Service never has all
    its endpoints. A warning: a model that loads fast enough is not touched.

    Source: https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
    """
    for workload, known in cluster.model_servers:
        container = serving_container(workload)
        if container is None or known.stack in _LOAD_ON_REQUEST:
            continue
        kind = "startupProbe" if container.probe("startupProbe") else "livenessProbe"
        probe = container.probe(kind)
        if probe is None or not _asks_the_model(workload, container, probe):
            continue
        field = workload.field(f"{container.field}.{kind}")
        measured = max(load_times(workload, container), key=lambda m: m[1], default=None)
        given_time = seen(workload.ref, field, probe.budget, f"{kind} gives {probe.budget} s")
        if measured is not None:
            if measured[1] < 0.8 * probe.budget:
                continue
            evidence: tuple[Evidence, ...] = (given_time, measured[0])
            title = f"{kind} gives {probe.budget} s, loading took {measured[1]:.0f} s"
        elif probe.budget < _short(container) and (kind == "livenessProbe" or _restarts(workload, container)):
            evidence = (
                given_time,
                assumed(workload.ref, field, None, "models of several GB take minutes; no pod tells how long"),
            )
            title = f"{kind} gives a model {probe.budget} s to load"
        else:
            continue
        named = (*container.words, *container.env.values())
        small = (
            not cluster.passes_tokens(workload)
            or any(map(_SMALL_MODEL.search, named))
            or (probe.budget >= _LIGHT_S and any(map(_LIGHT_MODEL.search, named)))
            or _by_name_alone(workload, known)
            or _ready_elsewhere(container, probe)
        )
        severity = Severity.INFO if small and measured is None else None
        yield Problem(title, workload.ref, evidence, _more_time(workload, container, probe), severity=severity)


def _short(container: ContainerSpec) -> int:
    """Seconds that are short for loading: a model that takes several accelerators is of a hundred GB and more."""
    return SHORT_OF_MANY_S if container.accelerators >= _MANY_GPUS else SHORT_S


def _more_time(workload: Workload, container: ContainerSpec, probe: ContainerProbe) -> Remedy:
    """A startup probe that asks what the probe asks, for half an hour."""
    asked = {k: v for k, v in probe.raw.items() if k in ("httpGet", "tcpSocket", "grpc")}
    command = edit_container(
        workload, container, "startupProbe", {**asked, "periodSeconds": 10, "failureThreshold": 180}
    )
    return Remedy("Give loading its own, longer startup probe; liveness only starts after it.", command=command)


def _startup_waits(workload: Workload, container: ContainerSpec, stack: str) -> bool:
    """Whether a container's startup probe waits for the model; until it has passed, the pod is not ready."""
    probe = container.probe("startupProbe")
    if probe is None or probe.handler in ("exec", ""):
        return probe is not None and probe.handler == "exec"
    return _asks_the_model(workload, container, probe) and not (probe.handler == "tcpSocket" and stack in _LISTEN_EARLY)


def _asks_the_model(workload: Workload, container: ContainerSpec, probe: ContainerProbe) -> bool:
    """Whether a probe can fail because the model is not loaded: an exec probe asks what its author wrote, a path of
    liveness (Triton's and MLServer's /v2/health/live) whether the process lives, and a port that another container of the
    pod declares, and this one does not, asks that one."""
    asked, own = workload.template.port_number(probe.port), {n for n, _, _ in container.ports}
    if asked in workload.template.ports_beside(container) - own:
        return False
    lives = probe.path.rstrip("/").endswith(("/live", "/livez"))
    return probe.handler in ("httpGet", "grpc", "tcpSocket") and not lives


def _ready_elsewhere(container: ContainerSpec, probe: ContainerProbe) -> bool:
    """Whether the server tells by another path that it is ready, so that this one may answer while the model loads."""
    readiness = container.probe("readinessProbe")
    own = readiness.path.rstrip("/") if readiness is not None else ""
    return own.endswith(("/ready", "/readyz")) and own != probe.path.rstrip("/")


def _restarts(workload: Workload, container: ContainerSpec) -> int:
    return sum(
        number(s, "restartCount")
        for live in workload.pods
        for s in items(live.obj.raw, "status", "containerStatuses")
        if s.get("name") == container.name
    )
