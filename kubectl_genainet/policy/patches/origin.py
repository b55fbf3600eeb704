"""Where a policy comes from: an edit that is made only in the cluster is undone by the next release of what keeps it.

Sources: Helm, "Labels and Annotations" and the annotations of adoption; Argo CD, "Resource Tracking"; Flux, labels of its
Kustomizations and HelmReleases; Kubernetes API reference, metadata.ownerReferences; Kyverno, "Generate rules"; Hierarchical
Namespace Controller, "Concepts"; K3s, "Packaged components"; Operator Lifecycle Manager; kapp, "Apply"; Config Sync, "Labels and
annotations"; Kubernetes, cluster/addons/addon-manager; Kustomize, `buildMetadata`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from kubectl_genainet.model.kube import BUILT_HERE, MANAGED_BY_LABEL, KubeObject

_HELM, _HELM_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
_BY_HAND = ("", "kubectl", "manual", "none")
_ORIGIN = "config.kubernetes.io/origin"
_SAID_OF_ORIGIN = re.compile(r"^(path|configuredIn|repo|ref): *(\S+)$", re.MULTILINE)
_FLUX = (("Kustomization", "kustomize.toolkit.fluxcd.io"), ("HelmRelease", "helm.toolkit.fluxcd.io"))
_ARGO = ("argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance")

# Keys of labels and annotations whose value names what writes the object again, and what that is.
_NAMED = (
    ("generate.kyverno.io/policy-name", "Kyverno policy"),
    ("hnc.x-k8s.io/inherited-from", "Hierarchical Namespace Controller, which copies it from namespace"),
    ("objectset.rio.cattle.io/owner-name", "Addon"),
    ("olm.owner", "Operator Lifecycle Manager, for"),
    ("config.k8s.io/owning-inventory", "inventory"),
)
# Keys that say by their being there, or by one value, that something does.
_SAID = (
    ("kapp.k14s.io/app", "", "kapp"),
    ("configmanagement.gke.io/managed", "enabled", "Config Sync"),
    ("addonmanager.kubernetes.io/mode", "Reconcile", "the addon manager"),
)


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
        elsewhere = annotations.get(_HELM_NAMESPACE, obj.namespace) != obj.namespace
        return f"Helm release {f'{annotations[_HELM_NAMESPACE]}/' if elsewhere else ''}{annotations[_HELM]}"
    keeper = _by_mark({**annotations, **labels})
    if keeper:
        return keeper
    metadata = obj.raw.get("metadata", {})
    for owner in metadata.get("ownerReferences") or ():
        if isinstance(owner, dict) and owner.get("controller"):
            return f"{owner.get('kind', '')} {owner.get('name', '')}"
    manager = str(labels.get(MANAGED_BY_LABEL, ""))
    if manager == BUILT_HERE:  # its file is known
        return ""
    if annotations.get(_ORIGIN) or manager.startswith("kustomize-"):
        return f"Kustomize{_place(str(annotations.get(_ORIGIN, '')))}"
    return "" if manager.lower() in _BY_HAND else manager


def _place(origin: str) -> str:
    """Where the annotation of Kustomize says that an object's text stands: its file, or that of what generates it."""
    said = dict(_SAID_OF_ORIGIN.findall(origin))
    file, repository, revision = said.get("path") or said.get("configuredIn"), said.get("repo"), said.get("ref")
    words = f", from {file}" if file else ""
    words += f" of {repository}" if repository else ""
    return words + (f" at {revision}" if repository and revision else "")


def _by_mark(marks: Mapping[str, str]) -> str:
    for key, what in _NAMED:
        if marks.get(key):
            return f"{what} {marks[key]}"
    return next((what for key, value, what in _SAID if key in marks and value in ("", marks[key])), "")
