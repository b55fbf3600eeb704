"""OpenShift's Routes in front of model servers."""

from __future__ import annotations

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.gateway_streams import STREAM_S
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotation, command, text
from kubectl_genainet.doctor.predicates.backends import behind
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.units import seconds

GROUP = "route.openshift.io"
TIMEOUT = "haproxy.router.openshift.io/timeout"
DEFAULT_S = 30.0  # the router's "timeout server"


@check(Area.INGRESS, Severity.WARNING)
def openshift_route_timeout(cluster: Cluster) -> Problems:
    """An OpenShift Route cuts a token stream after half a minute of silence.

    Looks, for Routes that lead to model servers (or to an application that passes their tokens on), at
    haproxy.router.openshift.io/timeout, 30 s where it is absent. Five minutes is taken as enough. A warning: short answers
    pass. Information where somebody has set a longer silence, and where no server of the model is seen here.

    Why: the router's HAProxy closes a connection on which the server says nothing for that long: a long prompt, a cold
    model or a queue ends in 504, or in half an answer.

    Source: https://docs.redhat.com/en/documentation/openshift_container_platform/ (Route-specific annotations)
    """
    for route in cluster.snapshot.of("Route", GROUP):
        service = cluster.service(route.namespace, text(route.raw, "spec", "to", "name"))
        if not cluster.in_scope(route.namespace) or not cluster.streams(service) or service is None:
            continue
        value = route.annotations.get(TIMEOUT)
        limit = DEFAULT_S if value is None else seconds(value)
        if limit is None or limit >= STREAM_S:
            continue
        setting = "absent: the router's default is 30 s" if value is None else f"{value} without a byte"
        yield Problem(
            f"a stream of {service.ref} is cut after {limit:.0f} s without a token",
            route.ref,
            (seen(route.ref, annotation(TIMEOUT), value, setting),),
            Remedy(
                "Allow the longest silence of a stream.",
                command=command(
                    *("kubectl", "-n", route.namespace, "annotate", f"route.{GROUP}/{route.name}"),
                    *("--overwrite", f"{TIMEOUT}=3600s"),
                ),
            ),
            severity=None if limit <= DEFAULT_S and cluster.waits_for_a_model(service) else Severity.INFO,
            rests_on=behind(cluster, service),
        )
