"""The mesh's own routes in front of model servers: timeouts and retries that cut or repeat a stream of tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.gateway_streams import AFTER_THE_FACT, STREAM_S, considered
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotation, at, command, items, kubectl, mapping, number, text
from kubectl_genainet.doctor.predicates.backends import behind
from kubectl_genainet.doctor.predicates.edits import set_in
from kubectl_genainet.model.finding import ObjectRef, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject, Service
from kubectl_genainet.model.units import seconds


def _host(cluster: Cluster, namespace: str, host: str) -> Service | None:
    """The Service that a host of a VirtualService names."""
    labels = host.split(".")
    return cluster.service(labels[1] if len(labels) > 1 else namespace, labels[0])


@check(Area.MESH, Severity.WARNING, needs=("VirtualService",))
def mesh_stream_timeout(cluster: Cluster) -> Problems:
    """A VirtualService cuts or repeats a token stream.

    Looks at http[].timeout and http[].retries of Istio's VirtualServices that lead to model servers, in the mesh or behind
    its gateway: perTryTimeout, and retryOn with conditions that are met after the server has begun (5xx, reset,
    gateway-error). Five minutes is taken as enough. Istio sets no timeout itself. A warning: short answers pass.
    Information where somebody has set a timeout of more than a minute.

    Why: the timeout covers the whole response: the proxy cuts a stream in the middle. A try that timed out is sent again,
    and the model computes the same prompt twice.

    Source: https://istio.io/latest/docs/reference/config/networking/virtual-service/#HTTPRoute
    """
    for virtual in cluster.snapshot.of("VirtualService", "networking.istio.io"):
        if not cluster.in_scope(virtual.namespace):
            continue
        for index, http in enumerate(items(virtual.raw, "spec", "http")):
            hosts = [text(r, "destination", "host") for r in items(http, "route")]
            led_to = (_host(cluster, virtual.namespace, h) for h in hosts)
            way = tuple(ref for s in led_to if s is not None and cluster.streams(s) for ref in behind(cluster, s))
            if not way:
                continue
            for path in (("timeout",), ("retries", "perTryTimeout")):
                value = at(http, *path)
                timeout = seconds(value) if value is not None else None
                if timeout is None or not 0 < timeout < STREAM_S:
                    continue
                yield Problem(
                    f"streams of a model are cut after {value}"
                    + (", and the prompt is sent again" if path[0] == "retries" else ""),
                    virtual.ref,
                    (
                        seen(
                            virtual.ref,
                            f"spec.http[{index}].{'.'.join(path)}",
                            value,
                            "covers the whole response",
                        ),
                    ),
                    Remedy(
                        "Allow the longest answer (timeout: 0s switches it off), and retry only what failed to connect "
                        "(retryOn: connect-failure,refused-stream).",
                        command=_longer(virtual, index, path),
                    ),
                    severity=Severity.INFO if considered(timeout, value) and path[0] == "timeout" else None,
                    rests_on=way,
                )
            yield from _repeats(virtual, index, mapping(http, "retries"), way)


def _longer(virtual: KubeObject, index: int, path: tuple[str, ...]) -> str:
    where = f"/spec/http/{index}/{'/'.join(path)}"
    name = f"virtualservice.networking.istio.io/{virtual.name}"
    change = json.dumps([{"op": "replace", "path": where, "value": "3600s"}])
    return command("kubectl", "-n", virtual.namespace, "patch", name, "--type=json", "-p", change)


def _repeats(virtual: KubeObject, index: int, retries: dict[str, object], way: tuple[ObjectRef, ...]) -> Problems:
    """A retry policy that sends a prompt again though the model may be at work on it."""
    conditions = [c for c in re.split(r"[,\s]+", text(retries, "retryOn")) if c in AFTER_THE_FACT]
    if not conditions or not number(retries, "attempts", default=2):
        return
    field = f"spec.http[{index}].retries.retryOn"
    yield Problem(
        f"a prompt is sent again on {', '.join(conditions)}",
        virtual.ref,
        (seen(virtual.ref, field, text(retries, "retryOn"), "is met after the model has begun, too"),),
        Remedy(
            "Retry only what failed to connect (retryOn: connect-failure,refused-stream).",
            command=set_in(virtual, field, "connect-failure,refused-stream"),
        ),
        rests_on=way,
    )


_LINKERD_TIMEOUTS = ("timeout.linkerd.io/request", "timeout.linkerd.io/response", "timeout.linkerd.io/idle")
_LINKERD_RETRY = "retry.linkerd.io/http"


@check(Area.MESH, Severity.WARNING)
def linkerd_stream_timeout(cluster: Cluster) -> Problems:
    """Linkerd cuts or repeats a token stream.

    Looks at the annotations timeout.linkerd.io/* and retry.linkerd.io/http of Services of model servers and of HTTPRoutes
    that lead to them; five minutes is taken as enough. Linkerd sets no timeout itself. A warning: short answers pass.
    Information where somebody has set more than a minute.

    Why: the timeouts cover the whole response (idle: a pause in it); the proxy resets the stream in the middle. A retry
    computes the same prompt twice.

    Source: https://linkerd.io/2/reference/timeouts/, https://linkerd.io/2/reference/retries/
    """
    for obj in _for_models(cluster):
        for key, value in obj.annotations.items():
            limit = seconds(value) if key in _LINKERD_TIMEOUTS else None
            if limit is not None and 0 < limit < STREAM_S:
                title, meaning = f"streams of a model are cut after {value}", "covers a response, or a pause in it"
            elif key == _LINKERD_RETRY and value:
                title, meaning = f"a prompt is sent again on {value}", "is met after the model has begun, too"
            else:
                continue
            yield Problem(
                title,
                obj.ref,
                (seen(obj.ref, annotation(key), value, meaning),),
                Remedy(
                    "Allow the longest answer, and don't retry prompts.",
                    command=kubectl(obj.ref, "annotate", f"{key}-"),
                ),
                severity=Severity.INFO if limit is not None and considered(limit, value) else None,
            )


def _for_models(cluster: Cluster) -> Iterator[KubeObject]:
    """Services of model servers and HTTPRoutes that lead to such, in scope."""
    serving = {key for key, s in cluster.services_by_key.items() if cluster.serves_models(s)}
    for obj in cluster.snapshot.of("Service", ""):
        if cluster.in_scope(obj.namespace) and (obj.namespace, obj.name) in serving:
            yield obj
    for obj in cluster.snapshot.of("HTTPRoute"):
        names = (
            (text(b, "namespace") or obj.namespace, text(b, "name"))
            for rule in items(obj.raw, "spec", "rules")
            for b in items(rule, "backendRefs")
        )
        if cluster.in_scope(obj.namespace) and any(n in serving for n in names):
            yield obj
