"""F5 NGINX's VirtualServers and VirtualServerRoutes in front of model servers: Ingresses with settings of their own.

Source: https://docs.nginx.com/nginx-ingress-controller/configuration/virtualserver-and-virtualserverroute-resources/
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from kubectl_genainet.doctor.check import Problem, seen
from kubectl_genainet.doctor.families.entry.gateway_streams import STREAM_S
from kubectl_genainet.doctor.families.entry.ingress import leads_to_a_server
from kubectl_genainet.doctor.families.entry.ingress_settings import Setting, f5_setting
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import items, mapping, text
from kubectl_genainet.doctor.predicates.backends import behind
from kubectl_genainet.doctor.predicates.edits import set_in
from kubectl_genainet.model.finding import Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service
from kubectl_genainet.model.units import seconds

DEFAULT_S = 60.0


@dataclass(frozen=True, slots=True)
class _Upstream:
    """An upstream that requests are passed to, and its Service, from behind which tokens come."""

    server: KubeObject
    index: int
    raw: dict[str, Any]
    service: Service

    def field(self, name: str) -> str:
        return f"spec.upstreams[{self.index}].{name}"

    def setting(self, cluster: Cluster, name: str, key: str) -> Setting:
        """A field of it, or the key of the controller's ConfigMap that holds where the field is absent."""
        value = text(self.raw, name) or None
        own = Setting(self.server.ref, self.field(name), value, None if value is None else seconds(value))
        return f5_setting(cluster, own, key)


def _actions(server: KubeObject) -> Iterator[dict[str, Any]]:
    """What is done with requests: of each route, of its matches, and of the parts that either is split into."""
    for route in (*items(server.raw, "spec", "routes"), *items(server.raw, "spec", "subroutes")):
        for place in (route, *items(route, "matches")):
            yield mapping(place, "action")
            yield from (mapping(split, "action") for split in items(place, "splits"))


def _upstreams(cluster: Cluster) -> Iterator[_Upstream]:
    kinds = ("VirtualServer", "VirtualServerRoute")
    servers = (s for kind in kinds for s in cluster.snapshot.of(kind, "k8s.nginx.org") if cluster.in_scope(s.namespace))
    for server in servers:
        passed_to = {text(action, "pass") or text(action, "proxy", "upstream") for action in _actions(server)}
        for index, raw in enumerate(items(server.raw, "spec", "upstreams")):
            namespace, _, name = text(raw, "service").rpartition("/")
            service = cluster.service(namespace or server.namespace, name)
            if service is not None and cluster.streams(service) and text(raw, "name") in passed_to:
                yield _Upstream(server, index, raw, service)


def buffered(cluster: Cluster) -> Iterator[Problem]:
    """The upstreams whose tokens are kept back; what gRPC sends is not."""
    for upstream in _upstreams(cluster):
        setting = upstream.setting(cluster, "buffering", "proxy-buffering")
        off = setting.value is not None and setting.value.lower() not in ("true", "on")
        if off or text(upstream.raw, "type") == "grpc":
            continue
        origin = "absent: the default is on; " if setting.value is None else ""
        statement = f"{origin}responses of {upstream.service.ref} are buffered"
        yield Problem(
            "it buffers the tokens of a model",
            upstream.server.ref,
            (seen(setting.object, setting.field, setting.value, statement),),
            Remedy(
                "Switch buffering off for this upstream.",
                command=set_in(upstream.server, upstream.field("buffering"), False),
            ),
            severity=None if leads_to_a_server(cluster, upstream.service) else Severity.INFO,
            rests_on=behind(cluster, upstream.service),
        )


def cut_short(cluster: Cluster) -> Iterator[Problem]:
    """The upstreams whose streams end after a minute without a token."""
    for upstream in _upstreams(cluster):
        setting = upstream.setting(cluster, "read-timeout", "proxy-read-timeout")
        limit = DEFAULT_S if setting.value is None else setting.seconds
        if limit is None or limit >= STREAM_S:
            continue
        origin = "default" if setting.value is None else "set to"
        mild = limit > DEFAULT_S or not cluster.waits_for_a_model(upstream.service)
        yield Problem(
            f"a stream of {upstream.service.ref} is cut after {limit:.0f} s without a token",
            upstream.server.ref,
            (seen(setting.object, setting.field, setting.value, f"{origin} {limit:.0f} s"),),
            Remedy(
                "Allow the longest silence of a stream.",
                command=set_in(upstream.server, upstream.field("read-timeout"), "3600s"),
            ),
            severity=Severity.INFO if mild else None,
            rests_on=behind(cluster, upstream.service),
        )
