"""Opens the place that a command's state comes from: live API, lab, bundle or manifests."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import click

from kubectl_genainet.commands.options import Source
from kubectl_genainet.model.cluster import ClusterSnapshot


def load_snapshot(source: Source) -> ClusterSnapshot:
    """The cluster's state, whatever it comes from. Raises GenainetError with what to do."""
    if source.manifests:
        from kubectl_genainet.kube.manifests import load_manifests

        return _said(load_manifests(source.manifests, source.namespace))
    if source.bundle:
        from kubectl_genainet.bundle import read_bundle

        return read_bundle(source.bundle).snapshot
    if source.lab:
        from kubectl_genainet.lab.state import lab_snapshot

        return lab_snapshot(source.lab)
    from kubectl_genainet.kube.snapshot import read_cluster

    return read_cluster(context=source.context, kubeconfig=source.kubeconfig, namespace=source.namespace or None)


def _said(snapshot: ClusterSnapshot) -> ClusterSnapshot:
    """The snapshot, once standard error has what there is to say about how it was read."""
    for note in snapshot.notes:
        click.echo(f"warning: {note}", err=True)
    return snapshot


class Follower(Protocol):
    """The cluster's state as it goes on."""

    def newer(self) -> ClusterSnapshot | None:
        """The state, where it has changed since the last call; else None."""

    def close(self) -> None: ...


class _PolledLab:
    """A lab's objects are a file: it is read again."""

    def __init__(self, name: str, snapshot: ClusterSnapshot) -> None:
        self._name, self._last = name, snapshot

    def newer(self) -> ClusterSnapshot | None:
        from kubectl_genainet.lab.state import lab_snapshot

        now = lab_snapshot(self._name)
        if now.objects == self._last.objects:
            return None
        self._last = now
        return now

    def close(self) -> None:
        pass


def follow(source: Source, snapshot: ClusterSnapshot, warn: Callable[[str], None]) -> Follower:
    """Follows a lab or a cluster from `snapshot` on. `warn` may be called from another thread."""
    if source.lab:
        return _PolledLab(source.lab, snapshot)
    from kubectl_genainet.kube.client import connect
    from kubectl_genainet.kube.live import LiveCluster

    client = connect(context=source.context, kubeconfig=source.kubeconfig)

    def problem(message: str) -> None:
        warn(
            f"the cluster's objects are not followed: {message}"
            if message
            else "the cluster's objects are followed again"
        )

    return LiveCluster(client, problem, snapshot=snapshot)


def default_namespace(source: Source) -> str:
    """The namespace for names given without one: -n, else the kubeconfig context's, else "default"."""
    if source.namespace:
        return source.namespace
    if source.lab or source.bundle or source.manifests:
        return "default"
    from kubectl_genainet.kube.client import context_namespace

    return context_namespace(context=source.context, kubeconfig=source.kubeconfig)
