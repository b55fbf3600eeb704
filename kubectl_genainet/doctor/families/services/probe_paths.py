"""Probes that ask a known server for what it does not have: a path of another server, or a port of another kind."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerProbe, ContainerSpec
from kubectl_genainet.doctor.objects.raw import items, mapping, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.edits import edit_container
from kubectl_genainet.model.finding import Remedy, Severity


@dataclass(frozen=True, slots=True)
class _Server:
    """A server by its makers' image and the word by which it is started, and the health paths that it has."""

    name: str
    image: str
    program: str
    ready: str
    live: str
    more: tuple[str, ...] = ()
    ports: tuple[tuple[int, str], ...] = ()  # ports that it has for other things than HTTP requests, unless it is told

    @property
    def paths(self) -> frozenset[str]:
        return frozenset((self.ready, self.live, *self.more))


_CHROMA_V1, _CHROMA_V2 = ("/api/v1/heartbeat", "/api/v1"), ("/api/v2/heartbeat", "/api/v2/healthcheck")
_CHROMA = "Chroma"
# Sources: the projects' own documentation, named in the check's docstring.
_SERVERS = (
    _Server("Qdrant", r"(^|/)qdrant/qdrant([:@]|$)", "qdrant", "/readyz", "/livez", ("/healthz",)),
    _Server("Ollama", r"(^|/)ollama/ollama([:@]|$)", "ollama", "/", "/"),
    _Server(_CHROMA, r"(^|/)(chromadb|chroma-core)/chroma([:@]|$)", "chroma", *_CHROMA_V2[:1] * 2, _CHROMA_V2),
    _Server(
        "Weaviate",
        r"(^|/)semitechnologies/weaviate([:@]|$)",
        "weaviate",
        "/v1/.well-known/ready",
        "/v1/.well-known/live",
    ),
    _Server(
        "llama.cpp", r"(^|/)(ggml-org|ggerganov)/llama\.cpp:", "llama-server", "/health", "/health", ("/v1/health",)
    ),
    _Server(
        "LiteLLM",
        r"(^|/)berriai/litellm[a-z_-]*([:@]|$)",
        "litellm",
        "/health/readiness",
        "/health/liveliness",
        ("/health/liveness", "/health"),
    ),
    _Server(
        "Triton",
        r"(^|/)tritonserver([:@]|$)",
        "tritonserver",
        "/v2/health/ready",
        "/v2/health/live",
        ports=((8001, "gRPC"), (8002, "its metrics")),
    ),
)
# Paths that health checks are given: of one of these it is certain whether a server has it, of others not.
_HEALTH = frozenset(p for s in _SERVERS for p in s.paths if p != "/") | {
    *("/health", "/healthz", "/healthcheck", "/ready", "/readyz", "/live", "/livez", "/ping", "/status"),
    *("/health/ready", "/health/live", "/api/health", "/api/v1/health", "/v1/health", *_CHROMA_V1),
}
_KINDS = {"readinessProbe": "never becomes ready", "livenessProbe": "is restarted", "startupProbe": "is restarted"}


def _server_in(container: ContainerSpec) -> _Server | None:
    """The server that a container runs: its makers' image, and no other program in it."""
    server = next((s for s in _SERVERS if re.search(s.image, container.image)), None)
    if server is None:
        return None
    told = bool(container.raw.get("command")) or bool(server.ports)  # Triton's image starts what it is told
    return server if not told or server.program in " ".join(container.words) else None


def _paths(server: _Server, image: str) -> frozenset[str]:
    """The paths that a server of this version has; Chroma answers 410 to its first API since 1.0."""
    version = "".join(image.rpartition("/")[2].partition(":")[1:])
    of_today = version in ("", ":latest") or re.match(r":v?[1-9]", version) is not None
    return server.paths if server.name != _CHROMA or of_today else server.paths | set(_CHROMA_V1)


def _asks_for_a_key(cluster: Cluster, workload: Workload, container: ContainerSpec) -> bool:
    """Whether LiteLLM has a master key, as far as its variables and mounted ConfigMaps tell."""
    names = (text(v, "configMap", "name") for v in items(workload.template.spec, "volumes"))
    configs = (cluster.config_maps.get((workload.namespace, name)) for name in names)
    told = (str(v) for obj in configs if obj is not None for v in mapping(obj.raw, "data").values())
    return "LITELLM_MASTER_KEY" in container.env_names or any(re.search(r"\bmaster_key:\s*\S", v) for v in told)


def _wrong(
    cluster: Cluster, workload: Workload, container: ContainerSpec, server: _Server, probe: ContainerProbe
) -> tuple[str, str, object] | None:
    """(field below httpGet, what is wrong with it, its value) of an HTTP probe that can't be answered."""
    port = workload.template.port_number(probe.port)
    others = (c for c in workload.template.containers if c.name != container.name)
    if any(port == n for c in others for n, _, _ in c.ports) or items(probe.raw, "httpGet", "httpHeaders"):
        return None
    path = probe.path.partition("?")[0].rstrip("/")
    use = dict(server.ports).get(port)
    moved = any(container.option(f"--{kind}-port") for kind in ("http", "grpc", "metrics"))
    if use and path in server.paths and not moved:
        return "port", f"asks port {port}, where {server.name} has {use}", probe.port
    if path in _HEALTH and path not in _paths(server, container.image):
        return "path", f"asks {path}, which {server.name} does not have", probe.path
    if server.name == "LiteLLM" and path == "/health" and _asks_for_a_key(cluster, workload, container):
        return "path", "asks /health, which LiteLLM answers with its master key only", probe.path
    return None


def _probes(cluster: Cluster) -> Iterator[tuple[Workload, ContainerSpec, _Server, str, ContainerProbe]]:
    for workload in cluster.workloads:
        for container in workload.containers if cluster.in_scope(workload.namespace) else ():
            server = _server_in(container)
            for kind in _KINDS if server is not None else ():
                probe = container.probe(kind)
                if server is not None and probe is not None and probe.handler == "httpGet":
                    yield workload, container, server, kind, probe


@check(Area.HEALTH, Severity.ERROR, needs=("Pod",), own_namespace=True)
def probe_path(cluster: Cluster) -> Problems:
    """A probe asks a server for a path that it does not have.

    Looks at HTTP probes of containers that run Qdrant, Ollama, Chroma, Weaviate, llama.cpp's server, LiteLLM or Triton from
    their makers' images: at the usual paths of health checks (/health, /healthz, /readyz, …), of which each of these servers
    has others; at LiteLLM's /health where a master key is set; and at Triton's ports for gRPC and metrics. Paths that are
    no usual ones, images of one's own and probes with headers are left out. An error: the pod never becomes ready, or is
    restarted again and again.

    Why: the server answers 404 (Chroma since 1.0 for /api/v1: 410, LiteLLM without the key: 401), which fails a probe as
    much as no answer does.

    Source: https://api.qdrant.tech/api-reference/service/readyz, https://docs.ollama.com/api,
    https://docs.trychroma.com/docs/overview/migration, https://docs.weaviate.io/deploy/configuration/status,
    https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md,
    https://docs.litellm.ai/docs/proxy/health,
    https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/protocol/extension_model_repository.html
    """
    for workload, container, server, kind, probe in _probes(cluster):
        wrong = _wrong(cluster, workload, container, server, probe)
        if wrong is None:
            continue
        name, problem, value = wrong
        field = workload.field(f"{container.field}.{kind}.httpGet.{name}")
        path = server.live if kind == "livenessProbe" else server.ready
        asked = {**mapping(probe.raw, "httpGet"), "path": path, **({"port": 8000} if name == "port" else {})}
        where = f"port 8000, {path}" if name == "port" else path
        yield Problem(
            f"its {kind} {problem}",
            workload.ref,
            (seen(workload.ref, field, value, f"container {container.name} {_KINDS[kind]} by this"),),
            Remedy(f"Ask {where}.", command=edit_container(workload, container, kind, {**probe.raw, "httpGet": asked})),
        )
