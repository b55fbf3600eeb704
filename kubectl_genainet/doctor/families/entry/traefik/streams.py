"""Traefik in front of model servers: Middlewares that buffer, timeouts that end a stream or a request.

Source: https://doc.traefik.io/traefik/reference/routing-configuration/http/middlewares/buffering/,
https://doc.traefik.io/traefik/reference/install-configuration/entrypoints/
"""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.check import Problem, seen
from kubectl_genainet.doctor.families.entry.gateway_streams import STREAM_S
from kubectl_genainet.doctor.families.entry.ingress import leads_to_a_server
from kubectl_genainet.doctor.families.entry.traefik.routes import Way, unchained, ways_to
from kubectl_genainet.doctor.families.entry.traefik.settings import RESPONSE_HEADERS, Instance, Static, instances
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import mapping, text
from kubectl_genainet.doctor.predicates.backends import behind, takes_large_input
from kubectl_genainet.doctor.predicates.edits import on_object, set_in
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.units import seconds

DEFAULT_READ_S = 60.0
_HEADERS = ("spec", "forwardingTimeouts", "responseHeaderTimeout")


def buffered(cluster: Cluster) -> Iterator[Problem]:
    """The routes with a Middleware that keeps the whole response back: it has no other way, whatever its limits."""
    for way in ways_to(cluster, cluster.streams):
        for named in way.middlewares:
            for middleware in unchained(cluster, named):
                if "buffering" not in mapping(middleware.raw, "spec"):
                    continue
                yield Problem(
                    "it buffers the tokens of a model",
                    way.owner.ref,
                    (
                        seen(way.owner.ref, named.field, named.name, f"on the way to {way.service.ref}"),
                        seen(middleware.ref, "spec.buffering", None, f"responses of {way.service.ref} are buffered"),
                    ),
                    Remedy(
                        "Take the Middleware off the routes of the model; limit the size of requests in the server.",
                        command=on_object(way.owner, "edit"),
                    ),
                    severity=None if leads_to_a_server(cluster, way.service) else Severity.INFO,
                    rests_on=behind(cluster, way.service),
                )


def cut_short(cluster: Cluster) -> Iterator[Problem | NotChecked]:
    """The ways on which a response has to begin, or to end, within a time."""
    every = instances(cluster)
    for way in ways_to(cluster, cluster.streams):
        severity = None if cluster.waits_for_a_model(way.service) else Severity.INFO
        limits = [limit for one in every for limit in _limits(way, one)]
        if len(every) > 1 and limits:
            yield NotChecked(str(way.owner.ref), "several Traefiks are here, and which of them serves it is not known")
            continue
        for static, effect in (*limits, *_own_limit(way)):
            limit = seconds(static.value)
            if not limit or limit >= STREAM_S:
                continue
            yield Problem(
                f"{effect} after {limit:.0f} s",
                way.owner.ref,
                (
                    seen(static.object, static.field, static.value, f"set to {limit:.0f} s"),
                    seen(way.owner.ref, way.field, way.service.metadata.name, f"leads to {way.service.ref}"),
                ),
                _longer(way, static),
                severity=severity,
                rests_on=behind(cluster, way.service),
            )


def requests_cut(cluster: Cluster) -> Iterator[Problem | NotChecked]:
    """The ways on which a whole request has to come in within less time than Traefik gives it by itself."""
    every = instances(cluster)
    for way in ways_to(cluster, lambda service: leads_to_a_server(cluster, service)):
        limits = [(static, seconds(static.value)) for one in every for static in _reading(way, one)]
        short = [(static, limit) for static, limit in limits if limit and limit < DEFAULT_READ_S]
        if len(every) > 1 and short:
            yield NotChecked(str(way.owner.ref), "several Traefiks are here, and which of them serves it is not known")
            continue
        for static, limit in short:
            yield Problem(
                f"a request to {way.service.ref} that takes longer than {limit:.0f} s to come in is cut",
                way.owner.ref,
                (
                    seen(static.object, static.field, static.value, f"set to {limit:.0f} s, for the whole request"),
                    seen(way.owner.ref, way.field, way.service.metadata.name, f"leads to {way.service.ref}"),
                ),
                Remedy(
                    "Start Traefik with the time that the largest upload takes on a slow line, or with 0, no limit."
                ),
                severity=None if takes_large_input(cluster, way.service) else Severity.INFO,
                rests_on=behind(cluster, way.service),
            )


def _reading(way: Way, instance: Instance) -> Iterator[Static]:
    of_points = instance.timeouts("readtimeout")
    yield from (of_points[name.lower()] for name in way.entry_points or of_points if name.lower() in of_points)


def _limits(way: Way, instance: Instance) -> Iterator[tuple[Static, str]]:
    """What an instance says of the entry points of a way, and of the answers of servers without a transport of their own."""
    of_points = instance.timeouts("writetimeout")
    for name in way.entry_points or of_points:
        if name.lower() in of_points:
            yield of_points[name.lower()], f"a stream of {way.service.ref} is cut, tokens or not,"
    if way.transport is None and RESPONSE_HEADERS in instance.settings:
        yield instance.settings[RESPONSE_HEADERS], _unanswered(way)


def _own_limit(way: Way) -> Iterator[tuple[Static, str]]:
    obj = way.transport.obj if way.transport is not None else None
    value = text(obj.raw, *_HEADERS) if obj is not None else ""
    if obj is not None and value:
        yield Static(obj.ref, ".".join(_HEADERS), value), _unanswered(way)


def _unanswered(way: Way) -> str:
    return f"a request to {way.service.ref} fails where no answer has begun"


def _longer(way: Way, static: Static) -> Remedy:
    obj = way.transport.obj if way.transport is not None else None
    if obj is not None and static.object == obj.ref:
        command = set_in(obj, static.field, "3600s")
        return Remedy(
            "Allow the longest wait for an answer: for one that is not streamed, its whole time.", command=command
        )
    return Remedy("Start Traefik without it (0, the default, is no limit), or with the longest time of a stream.")
