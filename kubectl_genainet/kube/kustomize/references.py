"""The fields that hold another object's name, and follow it where a kustomization renames that object.

Source: Kustomize's default name references (api/internal/konfig/builtinpluginconsts/namereference.go).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from kubectl_genainet.kube.kustomize.fields import FieldSpec
from kubectl_genainet.kube.kustomize.names import Renaming, name_before

References = Mapping[str, Sequence[FieldSpec]]  # by the kind that is referred to

_TEMPLATED = ("Deployment", "ReplicaSet", "DaemonSet", "StatefulSet", "Job", "ReplicationController")
_POD_SPECS = (
    ("spec", "Pod"),
    *(("spec/template/spec", kind) for kind in _TEMPLATED),
    ("spec/jobTemplate/spec/template/spec", "CronJob"),
)
_ROLES = ("Role", "ClusterRole")
_BINDINGS = ("RoleBinding", "ClusterRoleBinding")
_SCALED = ("Deployment", "ReplicationController", "ReplicaSet", "StatefulSet")
_WEBHOOKS = ("ValidatingWebhookConfiguration", "MutatingWebhookConfiguration")


def _in_pods(*paths: str) -> Iterator[FieldSpec]:
    for root, kind in _POD_SPECS:
        yield from (FieldSpec(f"{root}/{path}", kind) for path in paths)


def _in_environment(kind: str) -> Iterator[FieldSpec]:
    for containers in ("containers", "initContainers"):
        yield from _in_pods(f"{containers}/env/valueFrom/{kind}KeyRef/name", f"{containers}/envFrom/{kind}Ref/name")


_ANNOTATED_SECRETS = (
    "ingress.kubernetes.io\\/auth-secret",
    "nginx.ingress.kubernetes.io\\/auth-secret",
    "nginx.ingress.kubernetes.io\\/auth-tls-secret",
)
DEFAULT_REFERENCES: References = {
    **{kind: (FieldSpec("spec/scaleTargetRef/name", "HorizontalPodAutoscaler"),) for kind in _SCALED},
    "ConfigMap": (
        *_in_pods("volumes/configMap/name", "volumes/projected/sources/configMap/name"),
        *_in_environment("configMap"),
        *(FieldSpec("rules/resourceNames", kind) for kind in _ROLES),
        FieldSpec("metadata/annotations/nginx.ingress.kubernetes.io\\/fastcgi-params-configmap", "Ingress"),
    ),
    "Secret": (
        *_in_pods("volumes/secret/secretName", "volumes/projected/sources/secret/name", "imagePullSecrets/name"),
        *_in_environment("secret"),
        *(FieldSpec("rules/resourceNames", kind) for kind in _ROLES),
        FieldSpec("imagePullSecrets/name", "ServiceAccount"),
        FieldSpec("spec/tls/secretName", "Ingress"),
        *(FieldSpec(f"metadata/annotations/{name}", "Ingress") for name in _ANNOTATED_SECRETS),
    ),
    "Service": (
        FieldSpec("spec/serviceName", "StatefulSet", "apps"),
        FieldSpec("spec/rules/http/paths/backend/serviceName", "Ingress"),
        FieldSpec("spec/backend/serviceName", "Ingress"),
        FieldSpec("spec/rules/http/paths/backend/service/name", "Ingress"),
        FieldSpec("spec/defaultBackend/service/name", "Ingress"),
        FieldSpec("spec/service", "APIService", "apiregistration.k8s.io"),
        *(FieldSpec("webhooks/clientConfig/service", kind) for kind in _WEBHOOKS),
    ),
    "Role": (FieldSpec("roleRef/name", "RoleBinding"),),
    "ClusterRole": tuple(FieldSpec("roleRef/name", kind) for kind in _BINDINGS),
    "ServiceAccount": (*(FieldSpec("subjects", kind) for kind in _BINDINGS), *_in_pods("serviceAccountName")),
    "PersistentVolumeClaim": tuple(_in_pods("volumes/persistentVolumeClaim/claimName")),
    "PersistentVolume": (
        FieldSpec("spec/volumeName", "PersistentVolumeClaim"),
        FieldSpec("rules/resourceNames", "ClusterRole"),
    ),
    "StorageClass": (
        FieldSpec("spec/storageClassName", "PersistentVolume"),
        FieldSpec("spec/storageClassName", "PersistentVolumeClaim"),
        FieldSpec("spec/volumeClaimTemplates/spec/storageClassName", "StatefulSet"),
    ),
    "PriorityClass": tuple(_in_pods("priorityClassName")),
    "IngressClass": (FieldSpec("spec/ingressClassName", "Ingress"),),
}


def follow(objects: Sequence[dict[str, Any]], renamed: Iterable[Renaming], references: References) -> None:
    """Puts the new names, and namespaces beside them, where objects refer to what was renamed, in place."""
    by_name: dict[tuple[str, str], list[Renaming]] = defaultdict(list)
    for renaming in renamed:
        by_name[renaming.kind, renaming.before.name].append(renaming)
    kinds = {kind for kind, _ in by_name}
    for obj in objects:
        here = name_before(obj).namespace
        for kind in kinds & references.keys():
            for field in references[kind]:
                for holder, key in field.places(obj):
                    holder[key] = _followed(holder[key], kind, here, by_name)


def _followed(value: Any, kind: str, namespace: str, by_name: Mapping[tuple[str, str], list[Renaming]]) -> Any:
    """A field's value: a name, a list of them, or mappings that hold a name and its namespace."""
    if isinstance(value, list):
        return [_followed(item, kind, namespace, by_name) for item in value]
    if isinstance(value, dict):
        renaming = _chosen(by_name.get((kind, str(value.get("name"))), ()), str(value.get("namespace") or namespace))
        if renaming is None:
            return value
        placed = {"namespace": renaming.after.namespace} if renaming.after.namespace else {}
        return {**value, "name": renaming.after.name, **placed}
    renaming = _chosen(by_name.get((kind, str(value)), ()), namespace)
    return renaming.after.name if renaming is not None else value


def _chosen(candidates: Sequence[Renaming], namespace: str) -> Renaming | None:
    """The renamed object that a reference from a namespace means; none where several could be meant."""
    near = [c for c in candidates if (c.before.namespace or "default") == (namespace or "default")]
    if not near and not namespace:
        near = list(candidates)
    if not near:
        near = [c for c in candidates if not c.before.namespace and not c.after.namespace]  # cluster-wide
    return near[0] if len(near) == 1 else None
