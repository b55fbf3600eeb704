"""Ingresses that claim the same host and path."""

from __future__ import annotations

import itertools
from collections import defaultdict

from kubectl_genainet.doctor.check import Area, Problem, Problems, check, seen
from kubectl_genainet.doctor.families.entry.ingress import NGINX, backends, controller_of, exact_fields, ingress_class
from kubectl_genainet.doctor.families.entry.ingress_settings import AWS, GCE, alb_group
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.raw import annotation, kubectl, text
from kubectl_genainet.model.finding import NotChecked, Remedy, Severity
from kubectl_genainet.model.kube import KubeObject

# Controllers that give every Ingress an address of its own.
_ONE_EACH = (GCE, "tailscale.com/ts-ingress")
_ALBS = (AWS, "eks.amazonaws.com/alb")
# An Ingress, the field of its backend, and the Service (NAMESPACE/NAME) that this leads to.
_Claim = tuple[KubeObject, str, str]
_ENTRY_POINTS = "traefik.ingress.kubernetes.io/router.entrypoints"


def _shared_address(cluster: Cluster, ingress: KubeObject) -> str:
    """What the Ingresses of one address have in common; empty for an Ingress that has an address to itself."""
    controller = controller_of(cluster, ingress)
    if controller in _ALBS:
        group = alb_group(cluster, ingress)
        return f"group {group}" if group else ""
    if controller in _ONE_EACH:
        return ""
    return (
        f"class {ingress_class(ingress)[0]} {','.join(sorted(ingress.annotations.get(_ENTRY_POINTS, '').split(',')))}"
    )


def _moved(cluster: Cluster, claimants: tuple[_Claim, _Claim]) -> str:
    """Why two Ingresses may be one, written again for another namespace: only one of them finds its Service there."""
    places = [(space, name) for space, _, name in (service.partition("/") for _, _, service in claimants)]
    missing = [(space, name) for space, name in places if cluster.service(space, name) is None]
    if places[0][1] != places[1][1] or len(missing) != 1 or not cluster.partial("Service", missing[0][0]):
        return ""
    return f"{claimants[0][0].ref} may be the same for another namespace: Service {'/'.join(missing[0])} is not here"


def _rivals(cluster: Cluster, where: str, claimants: list[_Claim]) -> Problems:
    """The first two of the claimants of a host and path that lead to different Services, of one cluster where there are such."""
    pairs = [
        (first, second)
        for first, second in itertools.combinations(claimants, 2)
        if first[2] != second[2] and first[0].ref != second[0].ref
    ]
    rivals = next((p for p in pairs if cluster.extent.together(p[0][0], p[1][0])), next(iter(pairs), None))
    if rivals is not None and any(cluster.in_scope(ingress.namespace) for ingress, _, _ in rivals):
        first, second = rivals[0][0], rivals[1][0]
        if moved := _moved(cluster, rivals):
            yield NotChecked(str(second.ref), moved)
            return
        yield Problem(
            f"{where} is claimed by {first.ref} too",
            second.ref,
            tuple(seen(i.ref, f"{field}.service.name", s, f"leads to {s}") for i, field, s in rivals),
            Remedy("Keep one of them, or make one a canary.", command=kubectl(second.ref, "edit")),
        )


@check(Area.INGRESS, Severity.WARNING, needs=("Ingress",))
def ingress_path_conflict(cluster: Cluster) -> Problems:
    """Two Ingresses of one class claim the same host and path for different Services.

    Looks at host, path and class of all Ingresses; ingress-nginx canaries (canary: "true") are not conflicts, but a
    canary without a main Ingress of the same host and path is reported. Controllers that give every Ingress an address of
    its own (ALB without a group, GKE, Tailscale) are left out, and so are Ingresses of different entry points of Traefik.
    Ingresses that lead to a Service of the same name in two namespaces, of which the manifests hold one, may be two
    versions of one, and are not checked.

    Why: with many models under one host the controller takes the older Ingress and ignores the other without a
    word; a canary alone gets no traffic. A warning: users get a model, perhaps another than was meant.

    Source: https://kubernetes.github.io/ingress-nginx/how-it-works/#building-the-nginx-model,
    https://kubernetes.github.io/ingress-nginx/user-guide/nginx-configuration/annotations/#canary
    """
    claims: dict[tuple[str, str, str, bool], list[_Claim]] = defaultdict(list)
    canaries: list[tuple[KubeObject, str, tuple[str, str, str, bool]]] = []
    for ingress in cluster.snapshot.of("Ingress", "networking.k8s.io"):
        for field, backend, host, path in backends(ingress):
            if not field.startswith("spec.rules"):
                continue
            exact = field in exact_fields(ingress)
            key = (_shared_address(cluster, ingress) or str(ingress.ref), host, path or "/", exact)
            if ingress.annotations.get(NGINX + "canary") == "true":
                canaries.append((ingress, field, key))
            else:
                claims[key].append((ingress, field, f"{ingress.namespace}/{text(backend, 'service', 'name')}"))
    for (_, host, path, _), claimants in claims.items():
        yield from _rivals(cluster, f"{host or '*'}{path}", claimants)
    for ingress, field, key in canaries:
        if key not in claims and cluster.in_scope(ingress.namespace):
            yield Problem(
                f"a canary for {key[1] or '*'}{key[2]}, for which there is no main Ingress",
                ingress.ref,
                (
                    seen(ingress.ref, annotation(NGINX + "canary"), "true", "a canary needs a main Ingress"),
                    seen(ingress.ref, field, None, f"no other Ingress has host {key[1] or '*'} and path {key[2]}"),
                ),
                Remedy("Use host and path of the main Ingress.", command=kubectl(ingress.ref, "edit")),
            )
