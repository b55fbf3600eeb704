"""Where a server is told to listen, by its command line and variables, against Services and probes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import patch
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit, set_field
from kubectl_genainet.doctor.predicates.inference import serving_container
from kubectl_genainet.doctor.predicates.mesh import Mesh, mesh_of
from kubectl_genainet.model.finding import Evidence, Remedy, Severity
from kubectl_genainet.model.units import whole_number

# Stacks that take their address as --host and --port; of TGI the option is --hostname. Sources: their own documentation.
_OPTIONS = {"vLLM": "--host", "SGLang": "--host", "llama.cpp": "--host", "TGI": "--hostname", "TEI": "--hostname"}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OLLAMA = re.compile(r"^(?:https?://)?(\[[^\]]*\]|[^:/]*)(?::([0-9]+))?")


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server listens as it is told; 0 and "" for what it is not told."""

    workload: Workload
    container: ContainerSpec
    port: int
    port_field: str
    host: str
    host_field: str


def _listening(cluster: Cluster) -> Iterator[Listening]:
    """The model servers that are told where to listen, in scope."""
    for workload, recognised in cluster.model_servers:
        container = serving_container(workload)
        if container is None or workload.container is not None:
            continue
        env = cluster.variables(workload, container)
        command = workload.field(f"{container.field}.{'args' if container.raw.get('args') else 'command'}")
        if recognised.stack in _OPTIONS:
            port, host = container.option("--port"), container.option(_OPTIONS[recognised.stack])
            own = cluster.stack(workload)
            default = own.port if own is not None and own.port in {n for n, _, _ in container.ports} else 0
            number = whole_number(port) or (0 if port else default)
            if number or host:
                yield Listening(workload, container, number, command, host, command)
        elif recognised.stack == "Ollama" and "OLLAMA_HOST" in env:
            match = _OLLAMA.match(env["OLLAMA_HOST"].value)
            if match is not None:
                field = env["OLLAMA_HOST"].field
                yield Listening(workload, container, int(match[2] or 0), field, match[1].strip("[]"), field)


def _others(listening: Listening) -> set[int]:
    return listening.workload.template.ports_beside(listening.container)


def _listen_everywhere(listening: Listening) -> str:
    """The word of the command line that holds the address, or the variable, with the address of all interfaces."""
    workload, host = listening.workload, listening.host
    if listening.host_field.endswith(".value"):
        return set_field(workload, listening.host_field, f"0.0.0.0:{listening.port}" if listening.port else "0.0.0.0")
    name = listening.host_field.rpartition(".")[2]
    arguments = [str(word) for word in listening.container.raw.get(name) or ()]
    index = next((i for i, word in enumerate(arguments) if word == host or word.endswith(f"={host}")), None)
    if index is None:
        return edit(workload)
    return set_field(workload, f"{listening.host_field}[{index}]", arguments[index].replace(host, "0.0.0.0"))


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "Pod"), own_namespace=True)
def server_loopback(cluster: Cluster) -> Problems:
    """A model server behind a Service is told to listen on loopback only.

    Looks at --host (TGI: --hostname) and OLLAMA_HOST of model servers that a Service leads to on the server's own port. A
    sidecar of a mesh, or another container that the Service leads to, may connect over loopback: these are left out. An
    error: nobody outside the pod is answered.

    Why: the pod is ready by an exec probe, or never by an HTTP one, and every client is refused. An error: every
    request from outside the pod fails.

    Source: https://docs.vllm.ai/en/latest/cli/serve.html, https://docs.ollama.com/faq, man 7 ip
    """
    for listening in _listening(cluster):
        workload = listening.workload
        if listening.host not in _LOOPBACK or mesh_of(cluster, workload)[0] is not Mesh.NONE:
            continue
        for service in cluster.services_of(workload):
            targets = {cluster.target_port(workload, p) for p in service.spec.ports} - _others(listening)
            if targets:
                yield Problem(
                    f"it listens on {listening.host} only, and {service.ref} leads to it",
                    workload.ref,
                    (
                        seen(workload.ref, listening.host_field, listening.host, "loopback is the pod's own"),
                        seen(service.ref, "spec.selector", dict(service.spec.selector), f"selects {workload.ref}"),
                    ),
                    Remedy("Let it listen on 0.0.0.0.", command=_listen_everywhere(listening)),
                )
                break


@check(Area.SERVICES, Severity.ERROR, needs=("Service", "Pod"), own_namespace=True)
def server_port(cluster: Cluster) -> Problems:
    """A Service or a probe asks another port than the one that the model server is told to listen on.

    Looks at --port and OLLAMA_HOST of model servers, or the stack's own port where the container declares it: against the
    target ports of Services with a single port, and against the ports of HTTP and TCP probes. Ports that another container
    of the pod declares are left out. An error: connections are refused, and the pod never becomes ready.

    Why: containerPort is a comment; what counts is the command line.

    Source: https://docs.vllm.ai/en/latest/cli/serve.html, https://docs.ollama.com/faq
    """
    for listening in _listening(cluster):
        workload, port = listening.workload, listening.port
        if not port:
            continue
        listening_evidence = seen(
            workload.ref, listening.port_field, port, f"container {listening.container.name} listens on {port}"
        )
        yield from _services_elsewhere(cluster, listening, port, listening_evidence)
        yield from _probes_elsewhere(listening, port, listening_evidence)


def _services_elsewhere(cluster: Cluster, listening: Listening, port: int, evidence: Evidence) -> Iterator[Problem]:
    """Services with a single port that send to another port than the server's."""
    workload, others = listening.workload, _others(listening)
    declared = {n for n, _, _ in listening.container.ports}  # another one is left to service-target-port
    for service in cluster.services_of(workload):
        only = service.spec.ports[0] if len(service.spec.ports) == 1 else None
        target = cluster.target_port(workload, only) if only is not None else 0
        another = target in others or listening.container.is_told(target)  # such as the port where ranks meet
        if only is not None and (target in declared or not declared) and target not in (0, port) and not another:
            way = f"port {only.port} goes to {target}"
            change = [{"op": "add", "path": "/spec/ports/0/targetPort", "value": port}]
            yield Problem(
                f"it sends to port {target}, and {workload.ref} listens on {port}",
                service.ref,
                (seen(service.ref, "spec.ports[0].targetPort", only.target_port or only.port, way), evidence),
                Remedy(f"Set targetPort to {port}.", command=patch(service.ref, change, kind="json")),
                rests_on=(workload.ref,),
            )


def _probes_elsewhere(listening: Listening, port: int, evidence: Evidence) -> Iterator[Problem]:
    """Probes that ask another port than the server's, and none of another container."""
    workload, others = listening.workload, _others(listening)
    for kind in ("readinessProbe", "livenessProbe", "startupProbe"):
        probe = listening.container.probe(kind)
        asked = workload.template.port_number(probe.port) if probe is not None and probe.port else 0
        if probe is not None and probe.handler in ("httpGet", "tcpSocket") and asked not in (0, port, *others):
            field = workload.field(f"{listening.container.field}.{kind}.{probe.handler}.port")
            yield Problem(
                f"its {kind} asks port {asked}, and it listens on {port}",
                workload.ref,
                (seen(workload.ref, field, probe.port, f"the kubelet asks port {asked}"), evidence),
                Remedy("Probe the port that the server listens on.", command=set_field(workload, field, port)),
            )
