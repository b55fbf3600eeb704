"""Where Ingresses lead to."""

from __future__ import annotations

from collections.abc import Iterator

from kubectl_genainet.doctor.objects.raw import items, json_in, mapping, text
from kubectl_genainet.model.kube import KubeObject

_ALB_ACTION = "alb.ingress.kubernetes.io/actions."


def services_behind(ingress: KubeObject) -> Iterator[str]:
    """The names of the Services that an Ingress leads to: of its paths, its default, and the actions of an ALB.

    Source: https://kubernetes-sigs.github.io/aws-load-balancer-controller/latest/guide/ingress/annotations/#actions
    """
    yield text(ingress.raw, "spec", "defaultBackend", "service", "name")
    for rule in items(ingress.raw, "spec", "rules"):
        for path in items(rule, "http", "paths"):
            yield text(path, "backend", "service", "name")
    for key, value in ingress.annotations.items():
        action = json_in(value) if key.startswith(_ALB_ACTION) else None
        for group in items(mapping(action, "forwardConfig"), "targetGroups"):
            yield text(group, "serviceName")
