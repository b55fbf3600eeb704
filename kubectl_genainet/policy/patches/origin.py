"""Where a policy comes from: an edit that is made only in the cluster is undone by the next release of what keeps it.

Sources: Helm, "Labels and Annotations" and the annotations of adoption; Argo CD, "Resource Tracking"; Flux, labels of its
Kustomizations and HelmReleases; Kubernetes API reference, metadata.ownerReferences.
"""

from __future__ import annotations

from kubectl_genainet.model.kube import KubeObject

_HELM = "meta.helm.sh/release-name"
_MANAGED_BY = "app.kubernetes.io/managed-by"
_BY_HAND = ("", "kubectl", "manual", "none")
_FLUX = (("Kustomization", "kustomize.toolkit.fluxcd.io"), ("HelmRelease", "helm.toolkit.fluxcd.io"))
_ARGO = ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance")


def keeper_of(obj: KubeObject) -> str:
    """The release, application or controller that writes an object again; "" where the object names none."""
    labels, annotations = obj.labels, obj.annotations
    for key in _ARGO:
        application = str(annotations.get(key) or labels.get(key) or "").partition(":")[0]
        if application:
            return f"Argo CD application {application}"
    for kind, domain in _FLUX:
        name, namespace = labels.get(f"{domain}/name"), labels.get(f"{domain}/namespace")
        if name:
            return f"Flux {kind} {namespace}/{name}" if namespace else f"Flux {kind} {name}"
    if annotations.get(_HELM):
        return f"Helm release {annotations[_HELM]}"
    metadata = obj.raw.get("metadata", {})
    for owner in metadata.get("ownerReferences") or ():
        if isinstance(owner, dict) and owner.get("controller"):
            return f"{owner.get('kind', '')} {owner.get('name', '')}"
    manager = str(labels.get(_MANAGED_BY, ""))
    return "" if manager.lower() in _BY_HAND else manager
