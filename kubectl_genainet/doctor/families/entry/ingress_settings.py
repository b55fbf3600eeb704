"""Where Ingress controllers are told their timeouts and targets: annotations, classes, groups, ConfigMaps, policies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from kubectl_genainet.doctor.families.entry.gateway_streams import CONSIDERED_S
from kubectl_genainet.doctor.families.entry.ingress import ALB, NGINX, controller_of, ingress_class
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.platform import Distribution
from kubectl_genainet.doctor.objects.raw import annotation, at, items, number, text
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject, Service
from kubectl_genainet.model.units import seconds

INGRESS_NGINX, F5_NGINX, AWS = "k8s.io/ingress-nginx", "nginx.org/ingress-controller", "ingress.k8s.aws/alb"
GCE = "ingress.gcp.kubernetes.io/gce"
HAPROXY_TECH, HAPROXY_INGRESS = "haproxy.org/ingress-controller", "haproxy-ingress.github.io/controller"
_ATTRIBUTE = "idle_timeout.timeout_seconds"


@dataclass(frozen=True, slots=True)
class Setting:
    """The value in force, where it stands (or would stand) and what is wrong with it there. `seconds` is None where the
    controller's default holds."""

    object: ObjectRef
    field: str
    value: str | None
    seconds: float | None
    note: str = ""


@dataclass(frozen=True, slots=True)
class StreamTimeout:
    """How long a controller waits for the next bytes of a response: as set, the default, and an annotation to set it."""

    setting: Setting
    default: float
    key: str = ""
    wanted: str = ""

    @property
    def in_force(self) -> float:
        return self.default if self.setting.seconds is None else self.setting.seconds

    @property
    def was_prolonged(self) -> bool:
        """Whether somebody set more than the default, as silence between two bytes; GKE's covers the whole response."""
        chosen = self.setting.value is not None
        return chosen and self.in_force > (self.default if self.key else CONSIDERED_S)


def stream_timeout(cluster: Cluster, ingress: KubeObject, service: Service) -> StreamTimeout | None:
    """None for a controller whose timeouts are not known, or that has none."""
    controller = controller_of(cluster, ingress)
    if controller == INGRESS_NGINX:
        key = NGINX + "proxy-read-timeout"
        return StreamTimeout(_nginx(cluster, ingress, key), 60.0, key, "3600")
    if controller == F5_NGINX:
        key = "nginx.org/proxy-read-timeout"
        return StreamTimeout(f5_setting(cluster, _annotated(ingress, key), "proxy-read-timeout"), 60.0, key, "3600s")
    if controller == AWS:
        return StreamTimeout(_alb(cluster, ingress), 60.0, ALB + "load-balancer-attributes", f"{_ATTRIBUTE}=3600")
    if controller in (HAPROXY_TECH, HAPROXY_INGRESS):
        prefix = "haproxy.org/" if controller == HAPROXY_TECH else "haproxy-ingress.github.io/"
        key = prefix + "timeout-server"
        return StreamTimeout(_haproxy(cluster, ingress, key), 50.0, key, "3600s")
    if controller == GCE or (not controller and cluster.distribution is Distribution.GKE and _gce(ingress)):
        return StreamTimeout(_backend_timeout(cluster, service), 30.0)
    return None


def _gce(ingress: KubeObject) -> bool:
    return ingress_class(ingress)[0] in ("", "gce", "gce-internal")


def _annotated(ingress: KubeObject, key: str) -> Setting:
    value = ingress.annotations.get(key)
    return Setting(ingress.ref, annotation(key), value, None if value is None else seconds(value))


def nginx_config(cluster: Cluster) -> KubeObject | None:
    """ingress-nginx's ConfigMap: the one its controller is told with --configmap, or that its chart labels."""
    return _config_map(cluster, "ingress-nginx", "configmap", ("ingress-nginx-controller", "nginx-configuration"))


def f5_config(cluster: Cluster) -> KubeObject | None:
    """The ConfigMap of F5's NGINX controller: the one that it is told with -nginx-configmaps, or that its chart labels.

    Source: https://docs.nginx.com/nginx-ingress-controller/configuration/global-configuration/configmap-resource/
    """
    return _config_map(cluster, "nginx-ingress", "nginx-configmaps", ("nginx-config",))


def _config_map(cluster: Cluster, controller: str, option: str, names: tuple[str, ...]) -> KubeObject | None:
    maps = cluster.snapshot.of("ConfigMap", "")
    running = cluster.running(controller)
    for container in items(running.raw if running is not None else {}, "spec", "template", "spec", "containers"):
        for word in at(container, "args") or ():
            if str(word).lstrip("-").startswith(f"{option}="):
                name = str(word).rpartition("/")[2]
                return next((c for c in maps if c.name == name), None)
    named = (c for c in maps if c.name in names)
    labelled = (c for c in maps if c.labels.get("app.kubernetes.io/name") == controller)
    return next(named, next(labelled, None))


def f5_setting(cluster: Cluster, own: Setting, key: str) -> Setting:
    """What holds for F5's NGINX controller: its ConfigMap's key where the object itself says nothing."""
    config = f5_config(cluster)
    general = text(config.raw, "data", key) if config is not None else ""
    if own.value is not None or config is None or not general:
        return own
    return Setting(config.ref, f"data[{key}]", general, seconds(general))


def _nginx(cluster: Cluster, ingress: KubeObject, key: str) -> Setting:
    """ingress-nginx takes seconds without a unit and ignores what is no number.

    Source: https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#custom-timeouts
    """
    value = ingress.annotations.get(key)
    config = nginx_config(cluster)
    fallback = number(config.raw, "data", "proxy-read-timeout") if config else 0
    general = float(fallback) if fallback else None
    if value is None:
        return Setting(ingress.ref, annotation(key), None, general)
    if not re.fullmatch(r"[0-9]+", value):
        return Setting(ingress.ref, annotation(key), value, general, f"{value!r} has a unit and is ignored")
    return Setting(ingress.ref, annotation(key), value, float(value))


def _haproxy(cluster: Cluster, ingress: KubeObject, key: str) -> Setting:
    own = _annotated(ingress, key)
    for prefix in ("haproxy.org/", "haproxy-ingress.github.io/", "ingress.kubernetes.io/"):
        if own.value is None and not cluster.snapshot.of("IngressClass"):  # whose class it is can't be told by its name
            own = _annotated(ingress, prefix + "timeout-server")
    if own.value is not None:
        return own
    for config in cluster.snapshot.of("ConfigMap", ""):
        value = text(config.raw, "data", "timeout-server") if "haproxy" in config.name else ""
        if value:
            return Setting(config.ref, "data[timeout-server]", value, seconds(value))
    return own


def class_params(cluster: Cluster, ingress: KubeObject) -> KubeObject | None:
    """The IngressClassParams of an ALB Ingress: what they say goes before annotations.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/ingress_class/
    """
    name = ingress_class(ingress)[0]
    for cls in cluster.snapshot.of("IngressClass", "networking.k8s.io"):
        if cls.name == name and text(cls.raw, "spec", "parameters", "kind") == "IngressClassParams":
            wanted = text(cls.raw, "spec", "parameters", "name")
            return next((p for p in cluster.snapshot.of("IngressClassParams") if p.name == wanted), None)
    return None


def has_unread_params(cluster: Cluster, ingress: KubeObject) -> bool:
    """Whether the class has parameters that are not here."""
    name = ingress_class(ingress)[0]
    classes = (c for c in cluster.snapshot.of("IngressClass", "networking.k8s.io") if c.name == name)
    return any(at(c.raw, "spec", "parameters") for c in classes) and class_params(cluster, ingress) is None


def alb_group(cluster: Cluster, ingress: KubeObject) -> str:
    """The group whose Ingresses share an ALB; empty for one that has its own."""
    params = class_params(cluster, ingress)
    own = ingress.annotations.get(ALB + "group.name", "")
    return (text(params.raw, "spec", "group", "name") if params else "") or own


def _of_group(cluster: Cluster, ingress: KubeObject) -> Iterator[KubeObject]:
    """The Ingresses that share an ALB with one, itself first."""
    yield ingress
    group = alb_group(cluster, ingress)
    for other in cluster.snapshot.of("Ingress", "networking.k8s.io") if group else ():
        if other.ref != ingress.ref and controller_of(cluster, other) == AWS and alb_group(cluster, other) == group:
            yield other


def _alb(cluster: Cluster, ingress: KubeObject) -> Setting:
    key = ALB + "load-balancer-attributes"
    params = class_params(cluster, ingress)
    for index, attribute in enumerate(items(params.raw, "spec", "loadBalancerAttributes") if params else ()):
        if params is not None and text(attribute, "key") == _ATTRIBUTE:
            value = text(attribute, "value")
            return Setting(params.ref, f"spec.loadBalancerAttributes[{index}].value", value, seconds(value))
    for member in _of_group(cluster, ingress):
        match = re.search(rf"{re.escape(_ATTRIBUTE)}=([^,]*)", member.annotations.get(key, ""))
        if match:
            return Setting(member.ref, annotation(key), member.annotations[key], seconds(match[1].strip()))
    return Setting(ingress.ref, annotation(key), ingress.annotations.get(key), None)


def target_type(cluster: Cluster, ingress: KubeObject, service: Service) -> Setting:
    """The ALB's target type: of the class's parameters, the Service's or the Ingress's annotation."""
    key = ALB + "target-type"
    params = class_params(cluster, ingress)
    of_class = text(params.raw, "spec", "targetType") if params else ""
    if params is not None and of_class:
        return Setting(params.ref, "spec.targetType", of_class, None)
    own = service.metadata.annotations.get(key)
    if own is not None:
        return Setting(service.ref, annotation(key), own, None)
    return Setting(ingress.ref, annotation(key), ingress.annotations.get(key), None)


def backend_config(cluster: Cluster, service: Service) -> tuple[str, KubeObject | None]:
    """What a Service has in its annotation for GKE's BackendConfigs, and the one that it names, where that is here."""
    notes = service.metadata.annotations
    named = notes.get("cloud.google.com/backend-config", "") + notes.get("beta.cloud.google.com/backend-config", "")
    here = (c for c in cluster.snapshot.of("BackendConfig") if c.namespace == service.metadata.namespace)
    return named, next((c for c in here if f'"{c.name}"' in named), None)


def _backend_timeout(cluster: Cluster, service: Service) -> Setting:
    """timeoutSec of the BackendConfig that a Service names (GKE).

    Source: https://cloud.google.com/kubernetes-engine/docs/how-to/ingress-configuration#timeout
    """
    named, config = backend_config(cluster, service)
    if config is None:
        return Setting(service.ref, annotation("cloud.google.com/backend-config"), named or None, None)
    value = text(config.raw, "spec", "timeoutSec")
    return Setting(config.ref, "spec.timeoutSec", value or None, seconds(value) if value else None)
