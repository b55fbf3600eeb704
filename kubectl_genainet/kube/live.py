"""A snapshot that stays up to date while a live command runs: watches instead of reading everything again."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.resources import ENDPOINT_SLICE, POD, SERVICE, Resource
from kubectl_genainet.kube.snapshot import Listing, read_listings
from kubectl_genainet.kube.watch import ObjectWatch, Selection
from kubectl_genainet.model.cluster import ClusterSnapshot

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
        self._changed: set[_Kind] = set()
        self._problems: dict[_Kind, str] = {}
        self._on_problem = on_problem
        followed = [listing for listing in listings if listing.served.resource in kinds and listing.version]
        self._watches = {_kind(listing): self._follow(client, listing) for listing in followed}

    def _follow(self, client: KubeClient, listing: Listing) -> ObjectWatch:
        kind = _kind(listing)

        def has_changed() -> None:
            with self._lock:
                self._changed.add(kind)

        def has_problem(message: str) -> None:
            with self._lock:
                self._problems[kind] = message
                remaining = next(filter(None, self._problems.values()), "")
            self._on_problem(message or remaining)

        selection = Selection(listing.served, listing.namespace)
        return ObjectWatch(client, selection, has_changed, has_problem, known=listing.objects, version=listing.version)

    def newer(self) -> ClusterSnapshot | None:
        """The cluster as it is now, where something has changed since the last call; else None."""
        with self._lock:
            kinds, self._changed = self._changed, set()
        changed = {kind: objects for kind in kinds if (objects := self._watches[kind].objects()) is not None}
        if not changed:
            return None
        self.snapshot = self.snapshot.with_kinds(changed, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
        return self.snapshot

    def close(self) -> None:
        for watch in self._watches.values():
            watch.close()

    def __enter__(self) -> LiveCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _kind(listing: Listing) -> _Kind:
    return listing.served.resource.group, listing.served.resource.kind
