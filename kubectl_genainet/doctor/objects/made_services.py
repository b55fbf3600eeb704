"""The Services that operators make of their objects: in manifests they are not there, and are called all the same."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.objects.raw import items, mapping, number, text
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject, ObjectMeta, Service, ServicePort, ServiceSpec

_ECK, _CNPG, _NIM = "elasticsearch.k8s.elastic.co", "postgresql.cnpg.io", "apps.nvidia.com"


def made_services(snapshot: ClusterSnapshot) -> dict[tuple[str, str], Service]:
    """The Services of operators' objects in manifests by (namespace, name). Of a cluster, those that are there count.

    Sources: https://www.elastic.co/docs/deploy-manage/deploy/cloud-on-k8s/accessing-services,
    https://cloudnative-pg.io/documentation/current/service_management/,
    https://docs.nvidia.com/nim-operator/latest/service.html
    """
    made = (
        *(s for o in snapshot.of("Elasticsearch", _ECK) if o.source for s in _of_elasticsearch(o)),
        *(s for o in snapshot.of("Cluster", _CNPG) if o.source for s in _of_postgres(o)),
        *(_of_nim(o) for o in snapshot.of("NIMService", _NIM) if o.source),
    )
    return {(s.metadata.namespace, s.metadata.name): s for s in made}


def _service(owner: KubeObject, name: str, port: int, selector: dict[str, str], cluster_ip: str = "") -> Service:
    spec = ServiceSpec(cluster_ip=cluster_ip, ports=(ServicePort(port),), selector=selector)
    return Service(ObjectMeta(name=name, namespace=owner.namespace), spec)


def _of_elasticsearch(obj: KubeObject) -> Iterator[Service]:
    """ECK's: of all nodes for clients and for the operator, of the nodes among themselves, and of each nodeSet."""
    nodes = {"common.k8s.elastic.co/type": "elasticsearch", f"{_ECK}/cluster-name": obj.name}
    own = mapping(obj.raw, "spec", "http", "service", "spec")
    port = number(own, "ports", 0, "port", default=9200)
    selector = {k: str(v) for k, v in mapping(own, "selector").items()}
    yield _service(obj, f"{obj.name}-es-http", port, selector or nodes)
    yield _service(obj, f"{obj.name}-es-internal-http", 9200, nodes)
    yield _service(obj, f"{obj.name}-es-transport", 9300, nodes, "None")
    for node_set in items(obj.raw, "spec", "nodeSets"):
        name = f"{obj.name}-es-{text(node_set, 'name')}"
        yield _service(obj, name, 9200, {**nodes, f"{_ECK}/statefulset-name": name}, "None")


def _of_postgres(obj: KubeObject) -> Iterator[Service]:
    """CloudNativePG's: of the primary, of the replicas, of all instances."""
    for role in ("rw", "ro", "r"):
        yield _service(obj, f"{obj.name}-{role}", 5432, {"cnpg.io/cluster": obj.name})


def _of_nim(obj: KubeObject) -> Service:
    """The NIM operator's: of the object's own name."""
    port = number(obj.raw, "spec", "expose", "service", "port", default=8000)
    return _service(obj, obj.name, port, {"app": obj.name})
