"""The pods that operators compose of kinds without a pod template: as much of their spec as the object tells.

Sources: the API references of KServe, NVIDIA's NIM Operator, NVIDIA Dynamo, KubeAI, Elastic Cloud on Kubernetes and
OpenSearch's operator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Composed:
    """A pod's spec as an operator composes it. `container` leads to what its first container is made of, below the place
    of the spec (empty: that is the place itself)."""

    spec: Mapping[str, Any]
    container: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None


Compose = Callable[[Mapping[str, Any]], Composed | None]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _present(**fields: Any) -> dict[str, Any]:
    """The fields that have a value."""
    return {name: value for name, value in fields.items() if value not in (None, "", [], {})}


def kserve_model(component: Mapping[str, Any]) -> Composed | None:
    """The `model` of an InferenceService's predictor is the container that KServe makes of it; None where it has none."""
    model = component.get("model")
    if component.get("containers") or not isinstance(model, dict):
        return None
    container = {**model, "name": model.get("name") or "kserve-container"}
    return Composed({**component, "containers": [container]}, "model")


# The NIM Operator's own probes, for those that are not disabled.
_NIM_READY, _NIM_LIVE = "/v1/health/ready", "/v1/health/live"
_NIM_PROBES = {"readinessProbe": (_NIM_READY, 3), "livenessProbe": (_NIM_LIVE, 3), "startupProbe": (_NIM_READY, 120)}


def _nim_probe(spec: Mapping[str, Any], name: str) -> dict[str, Any]:
    probe, (path, failures) = _mapping(spec.get(name)), _NIM_PROBES[name]
    if probe.get("enabled") is False:
        return {}
    default_probe = {"httpGet": {"path": path, "port": "api"}, "periodSeconds": 10, "failureThreshold": failures}
    return _mapping(probe.get("probe")) or default_probe


def nim_service(spec: Mapping[str, Any]) -> Composed:
    """The container of a NIMService."""
    image = _mapping(spec.get("image"))
    service = _mapping(_mapping(spec.get("expose")).get("service"))
    name = f"{image.get('repository', '')}:{image['tag']}" if image.get("tag") else str(image.get("repository", ""))
    container = _present(
        name="nim",
        image=name,
        command=spec.get("command"),
        args=spec.get("args"),
        env=spec.get("env"),
        resources=spec.get("resources"),
        **{probe: _nim_probe(spec, probe) for probe in _NIM_PROBES},
    )
    container["ports"] = [{"name": "api", "containerPort": service.get("port", 8000)}]
    claims = [
        _present(
            name=f"claim-{index}",
            resourceClaimTemplateName=_mapping(claim).get("resourceClaimTemplateName"),
            resourceClaimName=_mapping(claim).get("resourceClaimName"),
        )
        for index, claim in enumerate(spec.get("draResources") or ())
    ]
    if claims:
        container["resources"] = {
            **_mapping(container.get("resources")),
            "claims": [{"name": c["name"]} for c in claims],
        }
    pod = _present(
        nodeSelector=spec.get("nodeSelector"), tolerations=spec.get("tolerations"), resourceClaims=claims
    ) | {"containers": [container]}
    return Composed(pod, "", _mapping(spec.get("labels")), _mapping(spec.get("annotations")))


def _dynamo_resources(resources: Mapping[str, Any]) -> dict[str, Any]:
    """Dynamo's `gpu` is the resource nvidia.com/gpu (or `gpuType`); `custom` holds the others."""
    out: dict[str, Any] = {}
    for side in ("requests", "limits"):
        amounts = _mapping(resources.get(side))
        plain = {k: v for k, v in amounts.items() if k in ("cpu", "memory")}
        gpu = {amounts.get("gpuType") or "nvidia.com/gpu": amounts["gpu"]} if amounts.get("gpu") else {}
        out[side] = {**plain, **gpu, **_mapping(amounts.get("custom"))}
    return _present(**out)


def dynamo_service(service: Mapping[str, Any]) -> Composed:
    """The pod of one service of a DynamoGraphDeployment: extraPodSpec, whose mainContainer is the first container."""
    extra = _mapping(service.get("extraPodSpec"))
    main = _mapping(extra.get("mainContainer"))
    frontend = service.get("componentType") in ("frontend", "main")
    container = {
        **_present(
            ports=[{"name": "http", "containerPort": 8000}] if frontend else None,
            env=service.get("envs"),
            resources=_dynamo_resources(_mapping(service.get("resources"))),
            readinessProbe=service.get("readinessProbe"),
            livenessProbe=service.get("livenessProbe"),
        ),
        "name": "main",
        **main,
    }
    if service.get("componentType") == "frontend" and not (container.get("command") or container.get("args")):
        container |= {"command": ["python3"], "args": ["-m", "dynamo.frontend"]}  # the operator's own
    if not _mapping(service.get("sharedMemory")).get("disabled"):
        container["volumeMounts"] = [*(container.get("volumeMounts") or ()), {"name": "shm", "mountPath": "/dev/shm"}]
    pod = {k: v for k, v in extra.items() if k != "mainContainer"}
    pod["containers"] = [container, *(extra.get("containers") or ())]
    metadata = _mapping(service.get("extraPodMetadata"))
    labels = {**_mapping(service.get("labels")), **_mapping(metadata.get("labels"))}
    return Composed(pod, "extraPodSpec.mainContainer", labels, _mapping(metadata.get("annotations")))


# Images that KubeAI takes for an engine where the Model names none, without their tags.
_KUBEAI_IMAGES = {
    "VLLM": "vllm/vllm-openai",
    "OLlama": "ollama/ollama",
    "FasterWhisper": "fedirz/faster-whisper-server",
    "Infinity": "michaelf34/infinity",
}


def kubeai_model(spec: Mapping[str, Any]) -> Composed:
    """The server that KubeAI makes of a Model; what its resource profile asks for is not in the object."""
    container = _present(
        name="server",
        image=spec.get("image") or _KUBEAI_IMAGES.get(str(spec.get("engine"))),
        args=spec.get("args"),
        env=[{"name": str(k), "value": str(v)} for k, v in _mapping(spec.get("env")).items()],
        envFrom=spec.get("envFrom"),
    )
    container["ports"] = [{"name": "http", "containerPort": 8000}]
    return Composed({"containers": [container]})


def llm_inference(spec: Mapping[str, Any]) -> Composed | None:
    """The server of an LLMInferenceService that gives no template: KServe's preset has it, and its port is 8000. None
    where a template is given."""
    if not isinstance(spec.get("model"), dict):
        return None
    container = {"name": "main", "ports": [{"containerPort": 8000}]}
    return Composed({"containers": [container]}, "", _mapping(spec.get("labels")), _mapping(spec.get("annotations")))


def elasticsearch_nodes(nodes: Mapping[str, Any]) -> Composed:
    """The pod of one of an Elasticsearch's nodeSets: its podTemplate, with what the operator (ECK) adds to the container
    elasticsearch."""
    template = _mapping(nodes.get("podTemplate"))
    spec, metadata = _mapping(template.get("spec")), _mapping(template.get("metadata"))
    written = [c for c in spec.get("containers") or () if isinstance(c, dict)]
    own = next((c for c in written if c.get("name") == "elasticsearch"), {})
    container = {
        "name": "elasticsearch",
        "image": "docker.elastic.co/elasticsearch/elasticsearch",
        "ports": [{"name": "https", "containerPort": 9200}, {"name": "transport", "containerPort": 9300}],
        **own,
    }
    pod = {**spec, "containers": [container, *(c for c in written if c is not own)]}
    return Composed(pod, "podTemplate", _mapping(metadata.get("labels")), _mapping(metadata.get("annotations")))


def opensearch_nodes(pool: Mapping[str, Any]) -> Composed:
    """The pod of one of an OpenSearchCluster's nodePools, with what `general` says of all, and what the operator adds."""
    general = _mapping(pool.get("general"))
    version, port = str(general.get("version") or ""), general.get("httpPort") or 9200
    alive = {"tcpSocket": {"port": port}, "periodSeconds": 20, "timeoutSeconds": 5, "failureThreshold": 10}
    container = _present(
        name="opensearch",
        image=general.get("image") or f"docker.io/opensearchproject/opensearch:{version or 'latest'}",
        env=pool.get("env"),
        resources=pool.get("resources"),
        ports=[{"name": "http", "containerPort": port}, {"name": "transport", "containerPort": 9300}],
        startupProbe=alive,
        livenessProbe=alive,
        readinessProbe={
            "exec": {"command": ["curl", "-k", "--fail", f"https://localhost:{port}"]},
            "periodSeconds": 30,
        },
    )
    placing = ("nodeSelector", "tolerations", "affinity")
    spec = _present(serviceAccountName=general.get("serviceAccount"), **{name: pool.get(name) for name in placing})
    role = "master" if version.startswith("1.") else "cluster_manager"
    leads = {"master", "cluster_manager"}.intersection(map(str, pool.get("roles") or ()))
    labels = {**({"opensearch.role": role} if leads else {}), **_mapping(pool.get("labels"))}
    return Composed({**spec, "containers": [container]}, "", labels, _mapping(pool.get("annotations")))
