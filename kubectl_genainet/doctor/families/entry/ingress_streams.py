"""Ingress in front of model servers: settings that buffer, cut or detour a stream of tokens, or refuse a large request."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry import virtual_servers
from kubectl_genainet.doctor.families.entry.gateway_streams import STREAM_S
from kubectl_genainet.doctor.families.entry.ingress import (
    ALB,
    NGINX,
    backends,
    controller_of,
    ingresses,
    leads_to_a_server,
)
from kubectl_genainet.doctor.families.entry.ingress_settings import (
    AWS,
    F5_NGINX,
    INGRESS_NGINX,
    StreamTimeout,
    f5_config,
    has_unread_params,
    nginx_config,
    stream_timeout,
    target_type,
)
from kubectl_genainet.doctor.families.entry.nginx.pods import buffered, cut_short, refused
from kubectl_genainet.doctor.families.entry.traefik import streams as traefik_streams
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotate, annotation, text
from kubectl_genainet.doctor.predicates.backends import behind
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service

F5_BUFFERING = "nginx.org/proxy-buffering"


def _model_backend(cluster: Cluster, ingress: KubeObject) -> tuple[str, Service] | None:
    """The first backend of an Ingress that serves models, with its field."""
    for field, backend, _, _ in backends(ingress):
        service = cluster.service(ingress.namespace, text(backend, "service", "name"))
        if service is not None and cluster.streams(service):
            return field, service
    return None


def _timeouts(cluster: Cluster) -> Iterator[tuple[KubeObject, Service, StreamTimeout]]:
    """The Ingresses that lead to models, with what is known of their timeouts."""
    for ingress in ingresses(cluster):
        model = _model_backend(cluster, ingress)
        timeout = stream_timeout(cluster, ingress, model[1]) if model else None
        if model is not None and timeout is not None:
            yield ingress, model[1], timeout


def _unread(cluster: Cluster) -> Iterator[NotChecked]:
    """Why Ingresses are not checked, where there may be some that were not read."""
    reason = cluster.missing("Ingress")
    if reason:
        yield NotChecked("", reason)


@check(Area.INGRESS, Severity.WARNING)
def ingress_buffering(cluster: Cluster) -> Problems:
    """An Ingress buffers the tokens of a model.

    Looks at nginx.ingress.kubernetes.io/proxy-buffering: "on" of Ingresses that lead to model servers, and at
    proxy-buffering in ingress-nginx's ConfigMap (off by default); for F5's NGINX controller at nginx.org/proxy-buffering, at
    buffering of a VirtualServer's (VirtualServerRoute's) upstream and at its ConfigMap, on by default. Also at proxy_buffering
    (on by default) in the nginx.conf of a pod's own proxy that passes requests on to vLLM, SGLang, Ollama, llm-d or Dynamo,
    which do not ask nginx for tokens at once (X-Accel-Buffering); and at Traefik's Middlewares with `buffering`, which keep the
    whole response back, on IngressRoutes and Ingresses. A warning: answers arrive, but whole. Information in front of an
    application: whether it passes tokens on one by one is not seen.

    Why: nginx collects the response (server-sent events, chunks) before it passes it on: the user waits for the whole
    answer, and time to first token becomes time to last.

    Source: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#proxy-buffering,
    https://docs.nginx.com/nginx-ingress-controller/configuration/ingress-resources/advanced-configuration-with-annotations/,
    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_buffering,
    https://doc.traefik.io/traefik/reference/routing-configuration/http/middlewares/buffering/
    """
    yield from buffered(cluster)
    yield from virtual_servers.buffered(cluster)
    yield from traefik_streams.buffered(cluster)
    yield from _unread(cluster)
    for ingress in ingresses(cluster):
        model = _model_backend(cluster, ingress)
        controller = controller_of(cluster, ingress)
        if model is None or controller not in (INGRESS_NGINX, F5_NGINX):
            continue
        effect = f"responses of {model[1].ref} are buffered"
        key, off = (NGINX + "proxy-buffering", "off") if controller == INGRESS_NGINX else (F5_BUFFERING, "False")
        value = ingress.annotations.get(key)
        config = nginx_config(cluster) if controller == INGRESS_NGINX else f5_config(cluster)
        general = text(config.raw, "data", "proxy-buffering") if config is not None else ""
        if value is not None and value.lower() in ("on", "true"):
            evidence = seen(ingress.ref, annotation(key), value, effect)
        elif value is None and config is not None and general.lower() in ("on", "true"):
            evidence = seen(config.ref, "data[proxy-buffering]", general, effect)
        elif value is None and controller == F5_NGINX and not general:
            evidence = seen(ingress.ref, annotation(key), None, f"absent: the default is on; {effect}")
        else:
            continue
        yield Problem(
            "it buffers the tokens of a model",
            ingress.ref,
            (evidence,),
            Remedy("Switch buffering off for this Ingress.", command=annotate(ingress.ref, key, off)),
            severity=None if leads_to_a_server(cluster, model[1]) else Severity.INFO,
            rests_on=behind(cluster, model[1]),
        )


@check(Area.INGRESS, Severity.WARNING)
def ingress_stream_timeout(cluster: Cluster) -> Problems:
    """An Ingress cuts a token stream after a minute of silence.

    Looks, for Ingresses that lead to model servers, at ingress-nginx's proxy-read-timeout (60 s by default; a value with a
    unit is ignored), F5 NGINX's (60 s; a VirtualServer's by its upstream's read-timeout), the ALB's
    idle_timeout.timeout_seconds (60 s; of the Ingress, its group or IngressClassParams), HAProxy's timeout-server (50 s, each
    controller by its own annotation) and timeoutSec of GKE's BackendConfig (30 s for the whole response). Five minutes is
    taken as enough. A warning: short answers pass. Information where somebody has set a longer silence than the default, here
    or in another Ingress of the Service: which requests need it is known to them; and where no server of the model is seen
    here: a hosted one answers within seconds. Also at proxy_read_timeout (60 s by default) in the nginx.conf of a pod's own
    proxy in front of a model server, and, where somebody set them, at Traefik's writeTimeout of entry points, which ends a
    response whether tokens come or not, and
    responseHeaderTimeout of its ServersTransports (Traefik's command line, variables, file, or the values of its chart).

    Why: a long prompt, a cold model or a queue sends nothing for longer than that; the user gets 504 or half an
    answer.

    Source: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#custom-timeouts,
    https://docs.aws.amazon.com/elasticloadbalancing/latest/application/edit-load-balancer-attributes.html,
    https://www.haproxy.com/documentation/kubernetes-ingress/, https://haproxy-ingress.github.io/docs/configuration/keys/#timeout,
    https://cloud.google.com/kubernetes-engine/docs/how-to/ingress-configuration#timeout,
    https://nginx.org/en/docs/http/ngx_http_proxy_module.html#proxy_read_timeout,
    https://doc.traefik.io/traefik/reference/install-configuration/entrypoints/
    """
    yield from cut_short(cluster)
    yield from virtual_servers.cut_short(cluster)
    yield from traefik_streams.cut_short(cluster)
    yield from _unread(cluster)
    ways = list(_timeouts(cluster))
    considered = {service.ref for _, service, timeout in ways if timeout.was_prolonged}
    for ingress, service, timeout in ways:
        if timeout.in_force >= STREAM_S:
            continue
        setting = timeout.setting
        if setting.seconds is None and has_unread_params(cluster, ingress):
            yield NotChecked(str(ingress.ref), "the parameters of its class are not here")
            continue
        origin = setting.note or ("default" if setting.seconds is None else "set to")
        yield Problem(
            f"a stream of {service.ref} is cut after {timeout.in_force:.0f} s without a token",
            ingress.ref,
            (seen(setting.object, setting.field, setting.value, f"{origin} {timeout.in_force:.0f} s"),),
            _longer(ingress, timeout),
            severity=Severity.INFO if service.ref in considered or not cluster.waits_for_a_model(service) else None,
            rests_on=(ingress.ref, *behind(cluster, service)),
        )


def _longer(ingress: KubeObject, timeout: StreamTimeout) -> Remedy:
    """The annotation that sets it; what else the annotation holds is kept."""
    if not timeout.key:
        return Remedy("Set timeoutSec in a BackendConfig that the Service names.")
    current, wanted = ingress.annotations.get(timeout.key, ""), timeout.wanted
    if "=" in wanted and current:
        name = wanted.partition("=")[0]
        wanted = ",".join([*(a for a in current.split(",") if a.partition("=")[0].strip() != name), wanted])
    return Remedy("Allow the longest silence of a stream.", command=annotate(ingress.ref, timeout.key, wanted))


@check(Area.INGRESS, Severity.WARNING, needs=("Ingress",))
def alb_target_type(cluster: Cluster) -> Problems:
    """An ALB sends to instances, not to pods.

    Looks at alb.ingress.kubernetes.io/target-type of ALB Ingresses that lead to recognised workloads (or of the Service, or
    targetType of the class's IngressClassParams); absent means instance. With instance targets a ClusterIP Service does
    not work at all, which is reported as an error.

    Why: the NodePort hop through kube-proxy adds latency and may cross zones; sticky sessions then stick to nodes.
    A warning: requests are answered, with a detour.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/annotations/#target-type
    """
    key = ALB + "target-type"
    for ingress in ingresses(cluster):
        model = _model_backend(cluster, ingress) if controller_of(cluster, ingress) == AWS else None
        if model is None:
            continue
        setting = target_type(cluster, ingress, model[1])
        if setting.value == "ip":
            continue
        if setting.value is None and has_unread_params(cluster, ingress):
            yield NotChecked(str(ingress.ref), "the parameters of its class are not here")
            continue
        broken = model[1].spec.type == "ClusterIP"
        setting_text = "absent: the default is instance" if setting.value is None else setting.value
        yield Problem(
            f"the ALB sends to node ports, and {model[1].ref} has none" if broken else "the ALB sends to node ports",
            ingress.ref,
            (
                seen(setting.object, setting.field, setting.value, setting_text),
                seen(model[1].ref, "spec.type", model[1].spec.type, f"{model[1].ref} is {model[1].spec.type}"),
            ),
            Remedy("Register the pods themselves.", command=annotate(ingress.ref, key, "ip")),
            severity=Severity.ERROR if broken else None,
            rests_on=behind(cluster, model[1]),
        )


@check(Area.INGRESS, Severity.WARNING)
def proxy_body_size(cluster: Cluster) -> Problems:
    """A proxy refuses the pictures or recordings that a model is sent.

    Looks at client_max_body_size (1 MiB by default) in the nginx.conf of a pod's own proxy that passes requests on to a model
    server whose model, image or name tells of speech or pictures; and at readTimeout of Traefik's entry points on the way to
    one, the time that a whole request may take to come in, where somebody set less than the 60 s that are its default (since
    2.11.2 and 3.0). A warning: requests with little in them pass. Information in front of other model servers, whose prompts
    seldom are that long.

    Why: nginx answers 413 Request Entity Too Large, and Traefik 499 or 504, and the server never sees the whole request. A
    minute of speech and a photo of a telephone have more than a mebibyte; an hour of speech on a slow line takes minutes.

    Source: https://nginx.org/en/docs/http/ngx_http_core_module.html#client_max_body_size,
    https://doc.traefik.io/traefik/reference/install-configuration/entrypoints/
    """
    yield from refused(cluster)
    yield from traefik_streams.requests_cut(cluster)
