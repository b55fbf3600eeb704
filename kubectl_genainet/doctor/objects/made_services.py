"""The Services that operators make of their objects: in manifests they are not there, and are called all the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from kubectl_genainet.doctor.objects.raw import at, items, mapping, number, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject, ObjectMeta, OwnerReference, Service, ServicePort, ServiceSpec

_ECK, _CNPG, _NIM = "elasticsearch.k8s.elastic.co", "postgresql.cnpg.io", "apps.nvidia.com"
_OPENSEARCH = {"opensearch.opster.io": "opster.io", "opensearch.org": "opensearch.org"}  # group: domain of its labels
_KSERVE, _RAY, _ZALANDO = "serving.kserve.io", "ray.io", "acid.zalan.do"
# Of KServe: the mode without Knative, which is the cluster's default where an administrator says so.
KSERVE_MODE, KSERVE_WITHOUT_KNATIVE = f"{_KSERVE}/deploymentMode", ("RawDeployment", "Standard")
_RAY_PORTS = {"client": 10001, "gcs-server": 6379, "dashboard": 8265, "metrics": 8080, "serve": 8000}


def made_services(snapshot: ClusterSnapshot, varies: Callable[[ObjectRef], bool]) -> dict[tuple[str, str], Service]:
    """The Services of operators' objects in manifests by (namespace, name). Of a cluster, those that are there count.

    One without ports has some that its object does not tell. So does one that `varies` (it is given in several ways), and
    one that the operators of two objects make: the last of them to write it decides.

    Sources: https://www.elastic.co/docs/deploy-manage/deploy/cloud-on-k8s/accessing-services,
    https://cloudnative-pg.io/documentation/current/service_management/,
    https://github.com/opensearch-project/opensearch-k8s-operator/blob/main/docs/userguide/main.md,
    https://docs.nvidia.com/nim-operator/latest/service.html,
    https://postgres-operator.readthedocs.io/en/latest/user/, https://milvus.io/docs/install_cluster-milvusoperator.md,
    https://www.dragonflydb.io/docs/getting-started/kubernetes-operator,
    https://kserve.github.io/website/docs/admin-guide/overview,
    https://docs.ray.io/en/latest/cluster/kubernetes/user-guides/config.html
    """
    made: dict[tuple[str, str], Service] = {}
    for group, kind, services_of in _MAKERS:
        for obj in snapshot.of(kind, group):
            for service in services_of(obj) if obj.source else ():
                key = service.metadata.namespace, service.metadata.name
                if varies(obj.ref) or key in made:
                    service = msgspec.structs.replace(service, spec=msgspec.structs.replace(service.spec, ports=()))
                made[key] = service
    return made


def of_its_owner(service: Service, selected: tuple[Workload, ...]) -> tuple[Workload, ...]:
    """The workloads behind a Service that an operator makes: those of the object that it is made for, where some of them
    are. Of the labels that such a Service selects some are not known beforehand, so that it seems to select others too."""
    owners = {(o.kind, o.name) for o in service.metadata.owner_references}
    return tuple(w for w in selected if (w.ref.kind, w.ref.name) in owners) or selected


def _service(
    owner: KubeObject, name: str, ports: tuple[ServicePort, ...], selector: dict[str, str], cluster_ip: str = ""
) -> Service:
    spec = ServiceSpec(cluster_ip=cluster_ip, ports=ports, selector=selector)
    made_for = (OwnerReference(owner.kind, owner.name, controller=True),)
    return Service(ObjectMeta(name=name, namespace=owner.namespace, owner_references=made_for), spec)


def _of_elasticsearch(obj: KubeObject) -> Iterator[Service]:
    """ECK's: of all nodes for clients and for the operator, of the nodes among themselves, and of each nodeSet."""
    nodes = {"common.k8s.elastic.co/type": "elasticsearch", f"{_ECK}/cluster-name": obj.name}
    own = mapping(obj.raw, "spec", "http", "service", "spec")
    selector = {k: str(v) for k, v in mapping(own, "selector").items()}
    plain = at(obj.raw, "spec", "http", "tls", "selfSignedCertificate", "disabled") is True
    http = (ServicePort(9200, name="http" if plain else "https"),)
    given = tuple(
        ServicePort(number(p, "port", default=9200), name=text(p, "name") or http[0].name) for p in items(own, "ports")
    )
    yield _service(obj, f"{obj.name}-es-http", given or http, selector or nodes)
    yield _service(obj, f"{obj.name}-es-internal-http", http, nodes)
    yield _service(obj, f"{obj.name}-es-transport", (ServicePort(9300),), nodes, "None")
    for node_set in items(obj.raw, "spec", "nodeSets"):
        name = f"{obj.name}-es-{text(node_set, 'name')}"
        yield _service(obj, name, http, {**nodes, f"{_ECK}/statefulset-name": name}, "None")


def _of_opensearch(obj: KubeObject) -> Iterator[Service]:
    """The OpenSearch operator's: of all nodes for clients and among themselves, of each nodePool, and of the dashboards."""
    nodes = {f"{_OPENSEARCH[obj.group]}/opensearch-cluster": obj.name}
    general = mapping(obj.raw, "spec", "general")
    name, transport = text(general, "serviceName") or obj.name, ServicePort(9300, name="transport")
    http = ServicePort(number(general, "httpPort") or 9200, name="http")
    more = (ServicePort(9600, name="metrics"), ServicePort(9650, name="rca"))
    yield _service(obj, name, (http, transport, *more), nodes)
    yield _service(obj, f"{obj.name}-discovery", (transport,), nodes, "None")
    for component in (text(pool, "component") for pool in items(obj.raw, "spec", "nodePools")):
        pool = {**nodes, f"{_OPENSEARCH[obj.group]}/opensearch-nodepool": component}
        yield _service(obj, f"{name}-{component}", (http, transport), pool, "None")
    if at(obj.raw, "spec", "dashboards", "enable") is True:
        yield _service(obj, f"{obj.name}-dashboards", (ServicePort(5601, name="http"),), {})


def _of_postgres(obj: KubeObject) -> Iterator[Service]:
    """CloudNativePG's: of the primary, of the replicas, of all instances."""
    for role in ("rw", "ro", "r"):
        yield _service(obj, f"{obj.name}-{role}", (ServicePort(5432),), {"cnpg.io/cluster": obj.name})


def _of_zalando(obj: KubeObject) -> Iterator[Service]:
    """Zalando's operator's: of the primary, of the replicas, of Patroni's configuration, and of a pooler before either."""
    pods, spec = {"application": "spilo", "cluster-name": obj.name}, mapping(obj.raw, "spec")
    port = (ServicePort(5432, name="postgresql"),)
    yield _service(obj, obj.name, port, {**pods, "spilo-role": "master"})
    yield _service(obj, f"{obj.name}-repl", port, {**pods, "spilo-role": "replica"})
    yield _service(obj, f"{obj.name}-config", (), pods, "None")
    for suffix, option in (("pooler", "enableConnectionPooler"), ("pooler-repl", "enableReplicaConnectionPooler")):
        if spec.get(option) is True or ("connectionPooler" in spec and suffix == "pooler"):
            yield _service(obj, f"{obj.name}-{suffix}", port, {"application": "db-connection-pooler"})


def _of_milvus(obj: KubeObject) -> Iterator[Service]:
    """The Milvus operator's: of the proxies, or of all in one."""
    pods = {"app.kubernetes.io/name": "milvus", "app.kubernetes.io/instance": obj.name}
    ports = (ServicePort(19530, name="milvus"), ServicePort(9091, name="metrics"))
    yield _service(obj, f"{obj.name}-milvus", ports, pods)


def _of_dragonfly(obj: KubeObject) -> Iterator[Service]:
    """The Dragonfly operator's: of the object's own name, which speaks Redis."""
    yield _service(obj, obj.name, (ServicePort(6379),), {"app": obj.name})


def _of_nim(obj: KubeObject) -> Iterator[Service]:
    """The NIM operator's: of the object's own name."""
    port = number(obj.raw, "spec", "expose", "service", "port", default=8000)
    yield _service(obj, obj.name, (ServicePort(port),), {"app": obj.name})


def _of_knative(obj: KubeObject) -> Iterator[Service]:
    """Knative's: of the object's own name."""
    yield _service(obj, obj.name, (), {})


def _of_inference(obj: KubeObject) -> Iterator[Service]:
    """KServe's: of each component, and with Knative one of the object's own name that leads to the first of them.

    Which ports they have, the runtime and the cluster's configuration tell (Knative's gateway; headless or not).
    """
    parts = [part for part in ("transformer", "predictor", "explainer") if at(obj.raw, "spec", part) is not None]
    raw = obj.annotations.get(KSERVE_MODE) in KSERVE_WITHOUT_KNATIVE
    for part in parts:
        pods = {"app": f"isvc.{obj.name}-{part}"}
        yield _service(obj, f"{obj.name}-{part}", (), pods)
        if not raw:
            yield _service(obj, f"{obj.name}-{part}-default", (), pods)  # before KServe 0.11
    if parts and not raw:
        yield _service(obj, obj.name, (), {"app": f"isvc.{obj.name}-{parts[0]}"})


def _of_llm(obj: KubeObject) -> Iterator[Service]:
    """KServe's of an LLMInferenceService: of its servers, and of its endpoint picker."""
    servers = {"app.kubernetes.io/name": obj.name, "app.kubernetes.io/part-of": "llminferenceservice"}
    yield _service(obj, f"{obj.name}-kserve-workload-svc", (ServicePort(8000),), servers)
    yield _service(obj, f"{obj.name}-epp-service", (), {})


def _of_ray_cluster(obj: KubeObject) -> Iterator[Service]:
    """KubeRay's: of the head, which is headless unless it has a type, and of Ray Serve where an annotation asks for it."""
    nodes = {"ray.io/cluster": obj.name}
    own, ports = mapping(obj.raw, "spec", "headGroupSpec", "headService"), _ray_ports(obj, "spec")
    cluster_ip = "" if text(obj.raw, "spec", "headGroupSpec", "serviceType") or own else "None"
    name = text(own, "metadata", "name") or f"{obj.name}-head-svc"
    more = tuple(ServicePort(number(p, "port"), name=text(p, "name")) for p in items(own, "spec", "ports"))
    yield _service(obj, name, (*more, *ports), {**nodes, "ray.io/node-type": "head"}, cluster_ip)
    if obj.annotations.get("ray.io/enable-serve-service") == "true":
        yield _service(obj, f"{obj.name}-serve-svc", _of_serve(ports), nodes)


def _of_ray_service(obj: KubeObject) -> Iterator[Service]:
    """KubeRay's: of the head, and of Ray Serve on all nodes; the pods' labels have a part that is not known beforehand."""
    spec = ("spec", "rayClusterConfig")
    ports, own = _ray_ports(obj, *spec), mapping(obj.raw, "spec", "serveService")
    written = mapping(obj.raw, *spec, "headGroupSpec", "template", "metadata", "labels")
    head = {"ray.io/node-type": "head", **{k: str(v) for k, v in written.items()}}
    yield _service(obj, f"{obj.name}-head-svc", ports, head, "None")
    given = tuple(ServicePort(number(p, "port"), name=text(p, "name")) for p in items(own, "spec", "ports"))
    serve = {p.name: p for p in _of_serve(ports) or given} | {p.name: p for p in given if p.name.startswith("serve")}
    yield _service(obj, text(own, "metadata", "name") or f"{obj.name}-serve-svc", tuple(serve.values()), head)


def _ray_ports(obj: KubeObject, *spec: str) -> tuple[ServicePort, ...]:
    """The ports of the head's first container, or Ray's own where it declares none; metrics in any case."""
    containers = items(obj.raw, *spec, "headGroupSpec", "template", "spec", "containers")
    declared = {
        text(p, "name") or f"{number(p, 'containerPort')}-port": number(p, "containerPort")
        for p in (items(containers[0], "ports") if containers else ())
    }
    ports = {"metrics": _RAY_PORTS["metrics"], **(declared or _RAY_PORTS)}
    return tuple(ServicePort(port, name=name) for name, port in ports.items())


def _of_serve(ports: tuple[ServicePort, ...]) -> tuple[ServicePort, ...]:
    return tuple(p for p in ports if p.name == "serve" or p.name.startswith("serve-"))


_MAKERS: tuple[tuple[str, str, Callable[[KubeObject], Iterator[Service]]], ...] = (
    (_ECK, "Elasticsearch", _of_elasticsearch),
    *((group, "OpenSearchCluster", _of_opensearch) for group in _OPENSEARCH),
    (_CNPG, "Cluster", _of_postgres),
    (_ZALANDO, "postgresql", _of_zalando),
    *(("milvus.io", kind, _of_milvus) for kind in ("Milvus", "MilvusCluster")),
    ("dragonflydb.io", "Dragonfly", _of_dragonfly),
    (_NIM, "NIMService", _of_nim),
    (_KSERVE, "InferenceService", _of_inference),
    (_KSERVE, "LLMInferenceService", _of_llm),
    ("serving.knative.dev", "Service", _of_knative),
    (_RAY, "RayCluster", _of_ray_cluster),
    (_RAY, "RayService", _of_ray_service),
)
