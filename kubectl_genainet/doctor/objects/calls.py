"""Who calls whom, from what workloads are configured with: URLs and host names in variables, arguments, ConfigMaps."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.check import assumed
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import items, json_in, mapping, text
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.finding import Evidence, ObjectRef
from kubectl_genainet.model.kube import KubeObject, Service, ServicePort

# Each part has a length: a text without end costs no more than it is long.
_URL = re.compile(
    r"([a-z][a-z0-9+.-]{0,30})://(?:[^\s/@]*@)?([A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?\.?)(?::(\d{1,5}))?", re.I
)
# A gRPC client's name of a server, by the resolver that it asks (grpc's doc/naming.md): no authority stands before it.
_GRPC_NAME = re.compile(r"\b(?:dns|passthrough):///(?=[A-Za-z0-9])", re.I)
_PASSWORD = re.compile(r":(\$\([^@]{0,256}\)|\$\{[^}@]{0,256}\}|\{\{[^}@]{0,256}\}\}|\S{0,512})@")
_HOST = re.compile(r"([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?\.?)(?::(\d{1,5}))?", re.I)
# Settings that name the workload itself, whom it lets call it, or what a browser calls: no call of the pod's own.
_NO_CALL = re.compile(
    r"(^|_)(CORS|ORIGINS?|ALLOWED_HOSTS?|TRUSTED_HOSTS?|VIRTUAL_HOST|(SERVICE|SERVER|APP|HOST|INSTANCE)_NAMES?|CALLBACK_URLS?|"
    r"REDIRECT_UR[IL]S?|COOKIE_DOMAIN)(_|$)|^(NEXT_PUBLIC|NUXT_PUBLIC|REACT_APP|VITE)_"
)
# Settings whose value is an address though it has neither a scheme nor a port.
_ADDRESS = re.compile(
    r"HOST|ADDR|ENDPOINT|UR[IL]|SERVER|SERVICE|BROKER|CLUSTER|SEED|NODE|PEER|DSN|API|UPSTREAM|BACKEND|TARGET|CONNECT|PROXY|STORE"
)
_LONGEST_NAME = 64
_LONGEST_CONFIG = 256 * 1024
_API_BASE = re.compile(r"\bapi_base:\s*[\"']?([^\s\"',}#]+)")
_PATH = re.compile(r"/[A-Za-z0-9]")
_SCHEME_PORT = {"http": 80, "https": 443, "grpc": 0, "postgres": 5432, "postgresql": 5432, "ws": 80, "wss": 443}
_EXAMPLE = re.compile(r"(^|\.)(example\.(com|org|net)|localhost|local|internal)\.?$")


@dataclass(frozen=True, slots=True)
class Call:
    """One client workload configured with the address of a Service, or of a host outside the cluster.

    `host` is as it is written. `port` is the Service's port (0: none written and several to choose from). `whole`: the
    address is written with its port, or with a path behind the host; to a bare host a program may add its own port.
    """

    client: Workload
    host: str
    port: int
    service: Service | None
    evidence: Evidence
    whole: bool

    @property
    def external(self) -> bool:
        return self.service is None

    @property
    def dangling(self) -> bool:
        """Whether it is of a name of the cluster for which there is no Service."""
        return self.service is None and _inside(self.host)

    @property
    def service_port(self) -> ServicePort | None:
        if self.service is None:
            return None
        return next((p for p in self.service.spec.ports if p.port == self.port), None)


def find_calls(
    workload: Workload,
    services: Mapping[tuple[str, str], Service],
    namespaces: frozenset[str],
    config_maps: Mapping[tuple[str, str], KubeObject],
) -> Iterator[Call]:
    """The calls a workload is configured to make, each (host, port) once, those of names that lead nowhere too.

    Assumed, not observed: a URL in a variable is a call that is likely made.
    """
    known: set[tuple[str, int]] = set()
    for container in workload.template.containers:
        for where, obj, name, value in _values(workload, container, config_maps):
            for scheme, host, port, whole in _addresses(value) if not _NO_CALL.search(name) else ():
                if not scheme and not port and not _ADDRESS.search(name):
                    continue  # a user, a database or the workload itself may have the name of a Service
                service = service_named(host, workload.namespace, services.get)
                meant = scheme and (_inside(host) or _outside(host, workload.namespace, services, namespaces))
                if service is None and not meant:
                    continue
                number = 0 if port is None else port or _default_port(scheme, service)
                if (host, number) in known:
                    continue
                known.add((host, number))
                target = service.ref if service else host
                written = f"{scheme}://{host}" if scheme else host  # what may hold credentials stays out
                evidence = assumed(
                    obj,
                    where,
                    f"{written}:{port}" if port else written,
                    f"{workload.ref} is configured to call {target}",
                )
                yield Call(workload, host, number, service, evidence, whole)


def _values(
    workload: Workload, container: ContainerSpec, config_maps: Mapping[tuple[str, str], KubeObject]
) -> Iterator[tuple[str, ObjectRef, str, str]]:
    """Every configured string of a container: field path, object, name of the setting in capitals, value."""
    for name, value in container.env.items():
        yield workload.field(container.env_field(name)), workload.ref, name.upper(), value
    for key in ("command", "args"):
        option = ""
        for index, word in enumerate(map(str, container.raw.get(key) or ())):
            written = word.partition("=")[0] if "=" in word else option
            name = written.lstrip("-").replace("-", "_").upper() if len(written) < _LONGEST_NAME else ""
            yield workload.field(f"{container.field}.{key}[{index}]"), workload.ref, name, word
            option = word if word.startswith("-") else ""
    for entry in items(container.raw, "envFrom"):
        config_map = config_maps.get((workload.namespace, text(entry, "configMapRef", "name")))
        if config_map is not None:
            for key, value in mapping(config_map.raw, "data").items():
                yield f"data[{key}]", config_map.ref, str(key).upper(), str(value)
    for entry in items(container.raw, "env"):
        key = text(entry, "valueFrom", "configMapKeyRef", "key")
        config_map = config_maps.get((workload.namespace, text(entry, "valueFrom", "configMapKeyRef", "name")))
        if config_map is not None and key in mapping(config_map.raw, "data"):
            yield f"data[{key}]", config_map.ref, text(entry, "name").upper(), str(config_map.raw["data"][key])
    for config_map in _mounted(workload, container, config_maps):
        for key, value in mapping(config_map.raw, "data").items():
            for base in litellm_targets(str(value)):
                yield f"data[{key}]", config_map.ref, "API_BASE", base


def _mounted(
    workload: Workload, container: ContainerSpec, config_maps: Mapping[tuple[str, str], KubeObject]
) -> Iterator[KubeObject]:
    """The ConfigMaps that a container has as files."""
    mounts = {text(m, "name") for m in items(container.raw, "volumeMounts")}
    for volume in items(workload.template.spec, "volumes"):
        config_map = config_maps.get((workload.namespace, text(volume, "configMap", "name")))
        if config_map is not None and text(volume, "name") in mounts:
            yield config_map


def litellm_targets(config: str) -> tuple[str, ...]:
    """The servers that a configuration of LiteLLM sends requests to; none for a text that is no such.

    Source: https://docs.litellm.ai/docs/proxy/configs
    """
    if len(config) > _LONGEST_CONFIG or "model_list:" not in config or "litellm_params:" not in config:
        return ()
    lines = (line for line in config.splitlines() if not line.lstrip().startswith("#"))
    return tuple(dict.fromkeys(match[1] for line in lines for match in _API_BASE.finditer(line)))


def _addresses(value: str) -> Iterator[tuple[str, str, int | None, bool]]:
    """(scheme, host, port, whether the address is whole) of every URL in a string, or of the string itself where it is
    HOST[:PORT]. The port is 0 where none is written, and None where a variable stands in its place. A host that a variable
    is part of is not known."""
    if len(value) > 4096:  # a certificate or a script, not an address
        return
    value = _GRPC_NAME.sub("grpc://", value)
    holds_url = False
    for match in _URL.finditer(value):
        holds_url = True
        by_variable = match[3] is None and value.startswith((":$", ":{", ":<", ":%"), match.end())
        if by_variable and _PASSWORD.match(value, match.end()):
            continue  # what stands before is a user's name
        if match[3] is None and value.startswith(("${", "$(", "{{"), match.end()):
            continue
        whole = match[3] is not None or _PATH.match(value, match.end()) is not None
        yield match[1].lower(), match[2].lower(), None if by_variable else int(match[3] or 0), whole
    bare = None if holds_url else _HOST.fullmatch(value.strip().rpartition("=")[2])
    if bare:
        yield "", bare[1].lower(), int(bare[2] or 0), bare[2] is not None


def service_named(host: str, namespace: str, find: Callable[[tuple[str, str]], Service | None]) -> Service | None:
    """The Service that a host name means to a pod of a namespace: NAME, NAME.NS, NAME.NS.svc, NAME.NS.svc.DOMAIN."""
    labels = host.rstrip(".").split(".")
    if len(labels) == 1:
        return find((namespace, labels[0]))
    if len(labels) == 2 or labels[2] == "svc":
        return find((labels[1], labels[0]))
    return None


# Top-level domains under which hosts of two labels are common; of two labels, others are a pod's or a Service's.
_TOP = frozenset(
    {"com", "org", "net", "info", "dev", "app", "cloud", "tech", "xyz", "run", "sh", "chat", "gov", "edu", "mil"}
)


def _outside(
    host: str, namespace: str, services: Mapping[tuple[str, str], Service], namespaces: frozenset[str]
) -> bool:
    """Whether a host name is one of the internet's: has a dot, is no address and no name of the cluster.

    SERVICE.NAMESPACE and POD.SUBDOMAIN are names of the cluster, whether their Service is known or not: the last label is no
    top-level domain, a namespace that is known, or a Service beside the client.
    """
    try:
        ipaddress.ip_address(host)
        return False
    except ValueError:
        labels = host.rstrip(".").split(".")
    last = labels[-1]
    if len(labels) == 1 or "svc" in labels[1:] or _EXAMPLE.search(host):
        return False
    if last in namespaces or (namespace, last) in services or not (last.isalpha() or last.startswith("xn--")):
        return False
    pod_of_a_set = len(labels) == 3 and re.search(r"-[0-9]+$", labels[0]) is not None  # POD.SERVICE.NAMESPACE
    return len(last) == 2 or last in _TOP or (len(labels) > 2 and not pod_of_a_set)


_NO_SERVICE = re.compile(r"localhost|host|ip6-.*|kubernetes|[^_]*_(?s:.*)|[0-9]+")


def _inside(host: str) -> bool:
    """Whether a host name is one that the cluster's DNS would know: a bare name, or one of .svc."""
    labels = host.rstrip(".").split(".")
    bare = len(labels) == 1 and ":" not in host and _NO_SERVICE.fullmatch(host) is None
    return bare or (len(labels) > 2 and labels[2] == "svc" and (len(labels) == 3 or labels[3] == "cluster"))


def _default_port(scheme: str, service: Service | None) -> int:
    if service is not None and len(service.spec.ports) == 1 and scheme not in ("http", "https"):
        return service.spec.ports[0].port
    return _SCHEME_PORT.get(scheme, 0)


TRAEFIK_GROUPS = ("traefik.io", "traefik.containo.us")  # the second one up to its release 2
# (kind, group) of what leads requests from outside to Services, beside the Gateway API.
ENTRIES = (
    ("Ingress", "networking.k8s.io"),
    ("VirtualServer", "k8s.nginx.org"),
    ("VirtualServerRoute", "k8s.nginx.org"),
    *((kind, group) for kind in ("IngressRoute", "IngressRouteTCP", "TraefikService") for group in TRAEFIK_GROUPS),
)


def services_behind(entry: KubeObject) -> Iterator[tuple[str, str]]:
    """(namespace, name) of the Services that an Ingress leads to: of its paths, its default, and the actions of an ALB; or
    a VirtualServer of F5's NGINX: of its upstreams; or a route of Traefik.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/annotations/#actions,
    https://docs.nginx.com/nginx-ingress-controller/configuration/virtualserver-and-virtualserverroute-resources/
    """
    yield entry.namespace, text(entry.raw, "spec", "defaultBackend", "service", "name")
    for rule in items(entry.raw, "spec", "rules"):
        for path in items(rule, "http", "paths"):
            yield entry.namespace, text(path, "backend", "service", "name")
    for key, value in entry.annotations.items():
        action = json_in(value) if key.startswith("alb.ingress.kubernetes.io/actions.") else None
        for group in items(action, "forwardConfig", "targetGroups"):
            yield entry.namespace, text(group, "serviceName")
    if entry.group in TRAEFIK_GROUPS:
        yield from _services_in(entry.raw, entry.namespace)
    for upstream in items(entry.raw, "spec", "upstreams"):
        namespace, _, name = text(upstream, "service").rpartition("/")
        yield namespace or entry.namespace, name


def _services_in(value: Any, namespace: str) -> Iterator[tuple[str, str]]:
    """(namespace, name) of the Services that the `services` of a Traefik object name, at whatever depth."""
    if isinstance(value, list):
        for item in value:
            yield from _services_in(item, namespace)
    if isinstance(value, dict):
        for one in items(value, "services"):
            if text(one, "kind") in ("", "Service"):
                yield text(one, "namespace") or namespace, text(one, "name")
        for below in value.values():
            yield from _services_in(below, namespace)
