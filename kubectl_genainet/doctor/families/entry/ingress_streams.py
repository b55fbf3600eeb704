"""Ingress in front of model servers: settings that buffer, cut or detour a stream of tokens."""

from __future__ import annotations

import re

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.ingress import ALB, NGINX, backends, controller_of, ingresses
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotate, annotation, number, seconds, text
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service

STREAM_S = 300


def _model_backend(cluster: Cluster, ingress: KubeObject) -> tuple[str, Service] | None:
    """The first backend of an Ingress that serves models, with its field."""
    for field, backend, _, _ in backends(ingress):
        service = cluster.services_by_key.get((ingress.namespace, text(backend, "service", "name")))
        if service is not None and cluster.serves_models(service):
            return field, service
    return None


def _nginx_config(cluster: Cluster) -> KubeObject | None:
    return next((c for c in cluster.snapshot.of("ConfigMap", "") if c.name == "ingress-nginx-controller"), None)


@check(Area.INGRESS, Severity.WARNING, needs=("Ingress",))
def ingress_buffering(cluster: Cluster) -> Problems:
    """An Ingress buffers the tokens of a model.

    Looks at nginx.ingress.kubernetes.io/proxy-buffering: "on" of Ingresses that lead to model servers, and at
    proxy-buffering in ingress-nginx's ConfigMap.

    Why: nginx collects the response (server-sent events, chunks) before it passes it on: the user waits for the whole
    answer, and time to first token becomes time to last.

    Source: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#proxy-buffering
    """
    key = NGINX + "proxy-buffering"
    for ingress in ingresses(cluster):
        found = _model_backend(cluster, ingress)
        if found is None or controller_of(cluster, ingress) != "k8s.io/ingress-nginx":
            continue
        value = ingress.annotations.get(key)
        if value == "on":
            evidence = seen(ingress.ref, annotation(key), value, f"responses of {found[1].ref} are buffered")
        else:
            config = _nginx_config(cluster)
            if value is not None or config is None or text(config.raw, "data", "proxy-buffering") != "on":
                continue
            evidence = seen(config.ref, "data[proxy-buffering]", "on", f"responses of {found[1].ref} are buffered")
        yield Problem(
            "it buffers the tokens of a model",
            ingress.ref,
            (evidence,),
            Remedy("Switch buffering off for this Ingress.", command=annotate(ingress.ref, key, "off")),
        )


def _alb_attribute(ingress: KubeObject, name: str) -> str:
    found = re.search(rf"{re.escape(name)}=([^,]*)", ingress.annotations.get(ALB + "load-balancer-attributes", ""))
    return found[1] if found else ""


@check(Area.INGRESS, Severity.WARNING, needs=("Ingress",))
def ingress_stream_timeout(cluster: Cluster) -> Problems:
    """An Ingress cuts a token stream after a minute of silence.

    Looks, for Ingresses that lead to model servers, at ingress-nginx's proxy-read-timeout (60 s by default), the
    ALB's idle_timeout.timeout_seconds (60 s) and HAProxy's timeout-server (50 s); five minutes is taken as enough.

    Why: a long prompt, a cold model or a queue sends nothing for longer than that; the user gets 504 or half an
    answer.

    Source: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#custom-timeouts,
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html,
    https://www.haproxy.com/documentation/kubernetes-ingress/
    """
    for ingress in ingresses(cluster):
        found = _model_backend(cluster, ingress)
        if found is None:
            continue
        controller = controller_of(cluster, ingress)
        if controller == "k8s.io/ingress-nginx":
            key, default = NGINX + "proxy-read-timeout", 60.0
            config = _nginx_config(cluster)
            fallback = number(config.raw, "data", "proxy-read-timeout") if config else 0
            value, wanted = seconds(ingress.annotations.get(key, "")), "3600"
            default = float(fallback or default)
        elif controller == "ingress.k8s.aws/alb":
            key, default = ALB + "load-balancer-attributes", 60.0
            value, wanted = (
                seconds(_alb_attribute(ingress, "idle_timeout.timeout_seconds")),
                "idle_timeout.timeout_seconds=3600",
            )
        elif controller.startswith("haproxy"):
            key, default = "haproxy.org/timeout-server", 50.0
            value, wanted = seconds(ingress.annotations.get(key, "")), "3600s"
        else:
            continue
        timeout = value if value is not None else default
        if timeout < STREAM_S:
            given = ingress.annotations.get(key)
            yield Problem(
                f"a stream of {found[1].ref} is cut after {timeout:.0f} s without a token",
                ingress.ref,
                (
                    seen(
                        ingress.ref,
                        annotation(key),
                        given,
                        f"{'default' if value is None else 'set to'} {timeout:.0f} s",
                    ),
                ),
                Remedy("Allow the longest silence of a stream.", command=annotate(ingress.ref, key, wanted)),
            )


@check(Area.INGRESS, Severity.WARNING, needs=("Ingress",))
def alb_target_type(cluster: Cluster) -> Problems:
    """An ALB sends to instances, not to pods.

    Looks at alb.ingress.kubernetes.io/target-type of ALB Ingresses that lead to recognised workloads; absent means
    instance. With instance targets a ClusterIP Service does not work at all, which is reported as an error.

    Why: the NodePort hop through kube-proxy adds latency and may cross zones; sticky sessions then stick to nodes.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/annotations/#target-type
    """
    key = ALB + "target-type"
    for ingress in ingresses(cluster):
        if controller_of(cluster, ingress) != "ingress.k8s.aws/alb" or ingress.annotations.get(key) == "ip":
            continue
        found = _model_backend(cluster, ingress)
        if found is None:
            continue
        value = ingress.annotations.get(key)
        broken = found[1].spec.type == "ClusterIP"
        said = "absent: the default is instance" if value is None else value
        yield Problem(
            f"the ALB sends to node ports, and {found[1].ref} has none" if broken else "the ALB sends to node ports",
            ingress.ref,
            (
                seen(ingress.ref, annotation(key), value, said),
                seen(found[1].ref, "spec.type", found[1].spec.type, f"{found[1].ref} is {found[1].spec.type}"),
            ),
            Remedy("Register the pods themselves.", command=annotate(ingress.ref, key, "ip")),
            severity=Severity.ERROR if broken else None,
        )
