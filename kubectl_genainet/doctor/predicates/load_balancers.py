"""Load balancers of AWS: which Services have one, and who makes it."""

from __future__ import annotations

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.model.kube import KubeObject, Service

PREFIX = "service.beta.kubernetes.io/aws-load-balancer-"
TYPE, TARGET_TYPE = PREFIX + "type", PREFIX + "nlb-target-type"
LISTENER_ATTRIBUTES = PREFIX + "listener-attributes"
CONTROLLER_CLASS, AUTO_MODE_CLASS = "service.k8s.aws/nlb", "eks.amazonaws.com/nlb"
DEFAULT_IDLE_S, MAX_IDLE_S = 350, 6000


def only_on_aws(cluster: Cluster) -> str:
    return "" if cluster.on_aws else "the cluster is not on AWS"


def load_balancers(cluster: Cluster) -> list[tuple[Service, KubeObject, str]]:
    """LoadBalancer Services in scope with their objects and loadBalancerClass."""
    balanced = [s for s in cluster.services if s.spec.type == "LoadBalancer"]
    objects = {(o.namespace, o.name): o for o in cluster.snapshot.of("Service", "")} if balanced else {}
    with_objects = ((s, objects[(s.metadata.namespace, s.metadata.name)]) for s in balanced)
    return [(s, o, str(o.raw.get("spec", {}).get("loadBalancerClass", ""))) for s, o in with_objects]


def by_controller(service: Service, lb_class: str) -> bool:
    """Whether the aws-load-balancer-controller (or EKS Auto Mode) makes the load balancer, as an NLB."""
    kind = service.metadata.annotations.get(TYPE, "")
    return kind in ("external", "nlb-ip") or lb_class in (CONTROLLER_CLASS, AUTO_MODE_CLASS)
