"""Opens the place that a command's state comes from: live API, lab, bundle or manifests."""

from __future__ import annotations

from kubectl_genainet.commands.options import Source
from kubectl_genainet.model.cluster import ClusterSnapshot


def load_snapshot(source: Source) -> ClusterSnapshot:
    """The cluster's state, whatever it comes from. Raises GenainetError with what to do."""
    if source.manifests:
        from kubectl_genainet.kube.manifests import load_manifests

        return load_manifests(source.manifests)
    if source.bundle:
        from kubectl_genainet.bundle import read_bundle

        return read_bundle(source.bundle).snapshot
    if source.lab:
        from kubectl_genainet.lab.state import lab_snapshot

        return lab_snapshot(source.lab)
    from kubectl_genainet.kube.snapshot import read_cluster

    return read_cluster(context=source.context, kubeconfig=source.kubeconfig, namespace=source.namespace or None)


def default_namespace(source: Source) -> str:
    """The namespace for names given without one: -n, else the kubeconfig context's, else "default"."""
    if source.namespace:
        return source.namespace
    if source.lab or source.bundle or source.manifests:
        return "default"
    from kubectl_genainet.kube.client import context_namespace

    return context_namespace(context=source.context, kubeconfig=source.kubeconfig)
