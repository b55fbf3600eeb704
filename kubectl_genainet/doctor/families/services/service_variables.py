"""Variables that the kubelet makes of Services, and that a server takes for its settings."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import Container
from kubectl_genainet.doctor.predicates.edits import edit_spec
from kubectl_genainet.model.finding import Remedy, Severity

# Servers by their image or command line, and the variable that each reads as a number.
_READ = (
    (re.compile(r"(^|/)vllm(-openai|-cpu|-rocm|-tpu)?(:|$)|vllm\.entrypoints|\bvllm serve\b"), "VLLM_PORT"),
    (re.compile(r"(^|/)langflow|\blangflow run\b"), "LANGFLOW_PORT"),
    (re.compile(r"(^|/)n8n(\b|:)"), "N8N_PORT"),
    (re.compile(r"(^|/)mlflow|\bmlflow server\b"), "MLFLOW_PORT"),
)


def _variable(container: Container) -> str:
    """The variable that a container's server reads and a Service could make; empty for a server that is not known."""
    said = (container.image.partition("@")[0], " ".join(container.words))
    return next((name for pattern, name in _READ if any(pattern.search(text) for text in said)), "")


def _made_of(service_name: str) -> str:
    return service_name.upper().replace("-", "_") + "_PORT"


@check(Area.SERVICES, Severity.ERROR, needs=("Service",), own_namespace=True)
def service_variable(cluster: Cluster) -> Problems:
    """A Service's name makes a variable that a server reads as its own setting.

    Looks at Services whose name makes VLLM_PORT, LANGFLOW_PORT, N8N_PORT or MLFLOW_PORT, and at the pods of those servers
    in their namespace, unless enableServiceLinks is false or the container sets the variable itself. An error: the
    server stops at its start.

    Why: for each Service NAME of its namespace the kubelet sets NAME_PORT=tcp://ADDRESS:PORT in every container. The server
    expects a number, and the pod that starts after its Service crashes; the first one, started before, does not.

    Source: https://kubernetes.io/docs/tutorials/services/connect-applications-service/#accessing-the-service,
    https://docs.vllm.ai/en/latest/configuration/env_vars.html
    """
    with_address = (s for s in cluster.services if s.spec.cluster_ip != "None" and s.spec.type != "ExternalName")
    makers = {(s.metadata.namespace, _made_of(s.metadata.name)): s for s in with_address}
    for workload in cluster.workloads:
        if workload.template.spec.get("enableServiceLinks") is False:
            continue
        for container in workload.containers:
            name = _variable(container)
            service = makers.get((workload.namespace, name))
            if service is None or name in cluster.variables(workload, container):
                continue
            said = f"{service.ref} makes {name}=tcp://ADDRESS:PORT in container {container.name}"
            yield Problem(
                f"{name}, which its server reads as a number, is made of {service.ref}",
                workload.ref,
                (
                    seen(service.ref, "metadata.name", service.metadata.name, said),
                    seen(workload.ref, workload.field("enableServiceLinks"), None, "absent: the default is true"),
                ),
                Remedy(
                    "Switch these variables off for the pod, or give the Service another name.",
                    command=edit_spec(workload, "enableServiceLinks", False),
                ),
            )
            break
