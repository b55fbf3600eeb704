"""Variables that the kubelet makes of Services, and that a server takes for its settings."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.variables import Variable, unread_sources
from kubectl_genainet.doctor.predicates.edits import edit_spec
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity


@dataclass(frozen=True, slots=True)
class _Server:
    """A server by its image or its command line, and the variable that it reads as a number; `by_option`: where its command
    line names no port; `unless`: a variable that names a port already. vLLM reads VLLM_PORT for another purpose than its own
    port, Milvus MINIO_PORT as that of its store where MINIO_ADDRESS has none."""

    variable: str
    image: re.Pattern[str]
    command: re.Pattern[str]
    by_option: bool = False
    unless: str = ""
    until: tuple[int, ...] = ()
    idle: str = ""  # the image that starts no server unless it is told to

    def minds(self, image: str) -> bool:
        """Whether the version of an image stops at what is no number; a tag without one may be of the newest."""
        version = re.search(r":v?([0-9]+(?:\.[0-9]+)+)", image)
        return not self.until or (version is not None and tuple(map(int, version[1].split("."))) < self.until)


_SERVERS = (
    _Server(
        "VLLM_PORT",
        re.compile(r"(^|/)vllm(-openai|-cpu|-rocm|-tpu)?(:|$)"),
        re.compile(r"vllm\.entrypoints|\bvllm serve\b"),
    ),
    _Server("LANGFLOW_PORT", re.compile(r"(^|/)langflow"), re.compile(r"\blangflow run\b"), by_option=True),
    _Server(
        "N8N_PORT", re.compile(r"(^|/)n8n(:|$)"), re.compile(r"(^|\s)n8n (start|worker|webhook)\b"), until=(1, 53)
    ),  # github.com/n8n-io/n8n/pull/10223
    _Server("MINIO_PORT", re.compile(r"(^|/)milvus(:|$)"), re.compile(r"\bmilvus run\b"), unless="MINIO_ADDRESS"),
    _Server(
        "MLFLOW_PORT",
        re.compile(r"(^|/)mlflow(:|$)"),
        re.compile(r"\bmlflow (server|ui)\b"),
        by_option=True,
        idle="ghcr.io/mlflow/mlflow",
    ),
)


def _variable(container: ContainerSpec, known: Mapping[str, Variable]) -> str:
    """The variable that a container's server reads and a Service could make; empty for a server that is not known, or that
    is told its port."""
    image, command_line = container.image.partition("@")[0], " ".join(container.words)
    server = next((s for s in _SERVERS if s.image.search(image) or s.command.search(command_line)), None)
    if server is None or not server.minds(image) or (server.by_option and container.option("--port", "-p")):
        return ""
    if server.idle == image.partition(":")[0] and not command_line:
        return ""
    if server.unless in known and ":" in known[server.unless].value:
        return ""
    return server.variable


def _made_of(service_name: str) -> str:
    return service_name.upper().replace("-", "_") + "_PORT"


@check(Area.SERVICES, Severity.ERROR, needs=("Service",), own_namespace=True)
def service_variable(cluster: Cluster) -> Problems:
    """A Service's name makes a variable that a server reads as its own setting.

    Looks at Services whose name makes VLLM_PORT, LANGFLOW_PORT, N8N_PORT (before n8n 1.53), MLFLOW_PORT or MINIO_PORT (of
    Milvus), and at the pods of those servers in their namespace, unless enableServiceLinks is false or the container sets
    the variable itself, or MINIO_ADDRESS with a port. Where it takes all keys of a Secret, or of a ConfigMap that is not
    here, that is not known. An error: the server stops at its start.

    Why: for each Service NAME of its namespace the kubelet sets NAME_PORT=tcp://ADDRESS:PORT in every container. The server
    expects a number, and the pod that starts after its Service crashes; the first one, started before, does not.

    Source: https://kubernetes.io/docs/tutorials/services/connect-applications-service/#accessing-the-service,
    https://docs.vllm.ai/en/latest/configuration/env_vars.html, https://milvus.io/docs/configure_minio.md
    """
    with_address = (s for s in cluster.services if s.spec.cluster_ip != "None" and s.spec.type != "ExternalName")
    makers = {(s.metadata.namespace, _made_of(s.metadata.name)): s for s in with_address}
    for workload in cluster.workloads:
        if workload.template.spec.get("enableServiceLinks") is False:
            continue
        for container in workload.containers:
            known = cluster.variables(workload, container)
            name = _variable(container, known)
            service = makers.get((workload.namespace, name))
            if service is None or name in (*known, *container.env_names):
                continue
            unread = unread_sources(workload, container, cluster.config_maps)
            if unread:
                yield NotChecked(str(workload.ref), f"{' and '.join(unread)}, which may set {name}, is not read")
                continue
            effect = f"{service.ref} makes {name}=tcp://ADDRESS:PORT in container {container.name}"
            yield Problem(
                f"{name}, which its server reads as a number, is made of {service.ref}",
                workload.ref,
                (
                    seen(service.ref, "metadata.name", service.metadata.name, effect),
                    seen(workload.ref, workload.field("enableServiceLinks"), None, "absent: the default is true"),
                ),
                Remedy(
                    "Switch these variables off for the pod, or give the Service another name.",
                    command=edit_spec(workload, "enableServiceLinks", False),
                ),
            )
            break
