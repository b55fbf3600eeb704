"""gRPC behind a cluster IP: one connection, one pod."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.services.calls import GRPC_PORTS
from kubectl_genainet.doctor.objects.calls import Call
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.doctor.predicates.backends import backends_of
from kubectl_genainet.doctor.predicates.mesh import Mesh, mesh_of
from kubectl_genainet.doctor.predicates.replicas import replicas
from kubectl_genainet.model.finding import Remedy, Severity


def _speaks_grpc(cluster: Cluster, call: Call, server: Workload) -> bool:
    """Whether a call is one of gRPC: its scheme says so, or it goes to the port that the server has for gRPC alone."""
    stack, port = cluster.stack(server), call.service_port
    own = GRPC_PORTS.get(stack.name, ()) if stack is not None and stack.name != "Milvus" else ()
    return str(call.evidence.value).startswith("grpc") or (
        port is not None and cluster.target_port(server, port) in own
    )


@check(Area.SERVICES, Severity.INFO, needs=("Service", "Pod"), own_namespace=True)
def grpc_one_endpoint(cluster: Cluster) -> Problems:
    """All gRPC calls of a client go to one pod of several.

    Looks at configured calls of gRPC (the scheme grpc, or a port that Triton, Qdrant, Weaviate or MLServer have for it) to
    Services with a cluster IP whose workload has several replicas, by clients outside a mesh. Information: every call is
    answered, and a client may open connections of its own accord.

    Why: kube-proxy chooses a pod for each connection, and gRPC sends all its calls over one. The other replicas stay idle,
    and those that an autoscaler adds get nothing until the client connects again.

    Source: https://kubernetes.io/blog/2018/11/07/grpc-load-balancing-on-kubernetes-without-tears/,
    https://grpc.io/docs/guides/custom-load-balancing/
    """
    for call in cluster.genai_calls:
        service, port = call.service, call.service_port
        if service is None or port is None or service.spec.cluster_ip == "None" or service.spec.type == "ExternalName":
            continue
        if mesh_of(cluster, call.client)[0] is not Mesh.NONE:
            continue
        for server in backends_of(cluster, service, port)[:1]:
            pods = replicas(cluster, server)
            if pods > 1 and _speaks_grpc(cluster, call, server):
                yield Problem(
                    f"its gRPC calls to {service.ref} all go to one of {pods} pods",
                    call.client.ref,
                    (
                        call.evidence,
                        seen(
                            service.ref,
                            "spec.clusterIP",
                            service.spec.cluster_ip or None,
                            "a pod is chosen per connection",
                        ),
                        seen(server.ref, "spec.replicas", pods, f"{pods} pods are behind it"),
                    ),
                    Remedy(
                        "Call a headless Service with the client's own balancing (dns:///HOST:PORT, round_robin), or put a "
                        "proxy of layer 7 in between."
                    ),
                )
