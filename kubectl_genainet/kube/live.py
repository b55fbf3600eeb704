"""A snapshot that stays up to date while a live command runs: watches instead of reading everything again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import replace
from datetime import UTC, datetime

from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.resources import ENDPOINT_SLICE, POD, SERVICE, Resource
from kubectl_genainet.kube.snapshot import Listing, read_listings
from kubectl_genainet.kube.watch import ObjectWatch, Selection
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.kube import KubeObject

FOLLOWED = (POD, SERVICE, ENDPOINT_SLICE)
_Kind = tuple[str, str]  # API group and kind


class LiveCluster:
    """Follows the objects of some kinds until `close`; use as a context manager.

    `snapshot` is the state at the start, which `listings` made: they are not listed again, the watches go on from their
    versions. Without them the cluster is read first. `newer` gives the state after changes, once. `on_problem` gets a
    message when a kind can't be followed, and "" when all can again; it runs in another thread.
    """

    def __init__(
        self,
        client: KubeClient,
        on_problem: Callable[[str], None] = lambda message: None,
        *,
        snapshot: ClusterSnapshot | None = None,
        listings: tuple[Listing, ...] = (),
        kinds: Collection[Resource] = FOLLOWED,
    ) -> None:
        if snapshot is None:
            snapshot, listings = read_listings(client)
        self.snapshot = snapshot
        self._lock = threading.Lock()
        self._changed: dict[_Kind, tuple[KubeObject, ...]] = {}
        self._problems: dict[_Kind, str] = {}
        self._on_problem = on_problem
        followed = [one for one in listings if one.served.resource in kinds and one.version]
        self._watches = [self._follow(client, one) for one in followed]

    def _follow(self, client: KubeClient, listing: Listing) -> ObjectWatch:
        kind = (listing.served.resource.group, listing.served.resource.kind)

        def changed(objects: tuple[KubeObject, ...]) -> None:
            with self._lock:
                self._changed[kind] = objects

        def has_problem(message: str) -> None:
            with self._lock:
                self._problems[kind] = message
                remaining = next(filter(None, self._problems.values()), "")
            self._on_problem(message or remaining)

        selection = Selection(listing.served, listing.namespace)
        return ObjectWatch(client, selection, changed, has_problem, known=listing.objects, version=listing.version)

    def newer(self) -> ClusterSnapshot | None:
        """The cluster as it is now, where something has changed since the last call; else None."""
        with self._lock:
            changed, self._changed = self._changed, {}
        if not changed:
            return None
        unchanged = tuple(o for o in self.snapshot.objects if (o.group, o.kind) not in changed)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        objects = unchanged + tuple(o for objects_of_kind in changed.values() for o in objects_of_kind)
        self.snapshot = replace(self.snapshot, objects=objects, taken_at=now)
        return self.snapshot

    def close(self) -> None:
        for watch in self._watches:
            watch.close()

    def __enter__(self) -> LiveCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
