"""The nginx that a workload runs as its own proxy: its configuration from ConfigMaps, and the Services that it passes on to."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch

from kubectl_genainet.doctor.families.entry.nginx.conf import Directive, Proxy, parse, proxies, upstreams
from kubectl_genainet.doctor.objects.calls import service_named
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.podspec import ContainerSpec
from kubectl_genainet.doctor.objects.raw import items, mapping, text
from kubectl_genainet.doctor.objects.stacks import repository
from kubectl_genainet.doctor.objects.workloads import Workload
from kubectl_genainet.model.kube import KubeObject, Service

ROOTS = ("/etc/nginx", "/usr/local/openresty/nginx/conf", "/usr/local/nginx/conf")
_SERVERS = ("conf.d/*.conf", "http.d/*.conf", "sites-enabled/*", "templates/*.template")
_PLAIN = re.compile(
    r"(^|.*/)(mime\.types|(fastcgi|uwsgi|scgi)_params|(conf\.d|http\.d|sites-enabled|modules-enabled)/.*)"
)
_TARGET = re.compile(r"https?://([A-Za-z0-9][-A-Za-z0-9._]*)(?::([0-9]{1,5}))?(?:/.*)?", re.DOTALL)
_SERVER = re.compile(r"([A-Za-z0-9][-A-Za-z0-9._]*)(?::([0-9]{1,5}))?")
# Images whose own nginx.conf sets none of a proxy's limits.
_OFFICIAL = re.compile(r"^((docker\.io/)?library/)?nginx$|^nginx(inc)?/nginx(-unprivileged)?$")


@dataclass(frozen=True, slots=True)
class NginxProxy:
    """A place where a workload's nginx passes requests on to a Service.

    `whole`: all that is in force there was read, so that what nobody sets has nginx's default. `version` is nginx's, () where
    the image does not tell.
    """

    workload: Workload
    config: KubeObject
    key: str
    proxy: Proxy
    service: Service
    whole: bool
    version: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    config: KubeObject
    key: str
    content: Directive


def nginx_proxies(cluster: Cluster) -> Iterator[NginxProxy]:
    """Those of all workloads in scope. A ConfigMap that is given in several ways is left out."""
    for workload in cluster.workloads_with("volumes"):
        for container in workload.containers if cluster.in_scope(workload.namespace) else ():
            files = [f for f in _files(cluster, workload, container) if not cluster.extent.varies(f.config.ref)]
            if files:
                yield from _of(cluster, workload, container, files)


def _of(cluster: Cluster, workload: Workload, container: ContainerSpec, files: list[_File]) -> Iterator[NginxProxy]:
    main = next((f for f in files if any(f.path == f"{root}/nginx.conf" for root in ROOTS)), None)
    http = next(main.content.all("http"), None) if main else None
    read = [f for f in files if f is not main and _is_read(f.path, http if main else None)]
    served = [Directive("http", (), tuple(d for f in read for d in f.content.block if d.name != "server"))]
    served = [http, *served] if http else served
    names = {name: servers for block in served for name, servers in upstreams(block).items()}
    defaults = main is not None or _OFFICIAL.match(repository(container.image).partition("@")[0].partition(":")[0])
    places = [(main, p) for p in proxies(http)] if main and http else []
    places += [(f, p) for f in read for p in proxies(f.content)]
    for file, place in places:
        proxy = Proxy(place.target, (*served, *place.around))
        whole = bool(defaults) and all(_PLAIN.fullmatch(i) for i in proxy.includes)
        for service in _services(cluster, workload.namespace, proxy.address, names):
            yield NginxProxy(workload, file.config, file.key, proxy, service, whole, _version(container.image))


def _files(cluster: Cluster, workload: Workload, container: ContainerSpec) -> Iterator[_File]:
    """The files below nginx's folder that are keys of ConfigMaps."""
    volumes = {text(v, "name"): v for v in items(workload.template.spec, "volumes")}
    for mount in items(container.raw, "volumeMounts"):
        path, below = posixpath.normpath(text(mount, "mountPath") or "/"), text(mount, "subPath")
        if not any(path == root or path.startswith(f"{root}/") for root in ROOTS):
            continue
        source = mapping(volumes.get(text(mount, "name"), {}), "configMap")
        config = cluster.config_maps.get((workload.namespace, text(source, "name")))
        if config is None:
            continue
        data = mapping(config.raw, "data")
        paths = {text(i, "key"): text(i, "path") for i in items(source, "items")} or {key: key for key in data}
        for key, name in paths.items():
            if below and name != below:
                continue
            content = parse(str(data.get(key, "")))
            if content is not None:
                yield _File(path if below else f"{path}/{name}", config, key, content)


def _is_read(path: str, http: Directive | None) -> bool:
    """Whether nginx reads a file: as its own nginx.conf includes it, else from the usual folders."""
    root = next(r for r in ROOTS if path.startswith(r))
    if http is None:
        return any(fnmatch(path, f"{root}/{pattern}") for pattern in _SERVERS)
    rendered = re.sub(r"/templates/(.*)\.template$", r"/conf.d/\1", path)
    return any(fnmatch(rendered, posixpath.join(root, i.value)) for i in http.all("include"))


def _services(cluster: Cluster, namespace: str, address: str, names: dict[str, tuple[str, ...]]) -> Iterator[Service]:
    target = _TARGET.fullmatch(address)
    if target is None:
        return
    for server in names.get(target[1], (target[1],)):
        host = _SERVER.fullmatch(server)
        service = service_named(host[1], namespace, lambda key: cluster.service(*key)) if host else None
        if service is not None:
            yield service


def _version(image: str) -> tuple[int, ...]:
    match = re.search(r"(?:^|/)nginx(?:-unprivileged)?:([0-9]+(?:\.[0-9]+)*)", image)
    return tuple(map(int, match[1].split("."))) if match else ()
