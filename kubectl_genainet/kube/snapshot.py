"""Reads the cluster's state: paged lists of every kind the tool knows, as raw JSON, several at a time."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator
from datetime import UTC, datetime

import msgspec

from kubectl_genainet.collector import collector_paused
from kubectl_genainet.deadline import Pending, side_by_side
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import ApiError, decoded_answer
from kubectl_genainet.kube.items import Item, ItemDecoder
from kubectl_genainet.kube.resources import KINDS, Resource, Served, discover, told_name, unknown_policies
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.kube import KubeObject

PAGE = 500  # as kubectl
# All pages of a list, however many the server says there are.
LIST_S, MAX_LIST = 600.0, 4 << 30
_PARALLEL = 4
_NOT_READ = LeftOut("Secret", "never read: no role of this tool includes Secrets")
NOT_ASKED_FOR = "only doctor and diagnose ask for them"


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True):
    items: list[Item] | None = None
    metadata: ListMeta = ListMeta()


class Listing(msgspec.Struct, frozen=True):
    """What a kind was read as: in one namespace or all (""), at which version; a watch can go on from there."""

    served: Served
    namespace: str
    version: str
    objects: tuple[KubeObject, ...]
    missing: LeftOut | None = None


def read_listings(
    client: KubeClient,
    *,
    namespace: str | None = None,
    kinds: Collection[Resource] = KINDS,
) -> tuple[ClusterSnapshot, tuple[Listing, ...]]:
    """All objects of the kinds that the server offers and the user may list, in all namespaces; and the lists they came in.

    A kind that is refused for all namespaces is read in `namespace` (default: the context's) where that is allowed;
    the rest of it, a kind that can't be read at all, and one that is not among `kinds` are named in `left_out`. The
    lists are read one after the other in time, not in one transaction: an object may be newer than another by a
    second or so. Raises GenainetError where the API server can't be reached.
    """
    taken_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    served, left_out = discover(client, kinds)
    if any(kind.kind == "NetworkPolicy" for kind in kinds):
        served += unknown_policies(client)

    def read(resource: Served) -> Listing:
        return _read_kind(client, resource, namespace or client.namespace)

    with collector_paused():
        listings = tuple(side_by_side(read, served, _PARALLEL, name="list"))
    left_out += [listing.missing for listing in listings if listing.missing is not None]
    left_out += [LeftOut(told_name(kind), NOT_ASKED_FOR) for kind in KINDS if kind.for_checks and kind not in kinds]
    objects = tuple(obj for listing in listings for obj in listing.objects)
    return ClusterSnapshot(objects, (*left_out, _NOT_READ), taken_at), listings


def _read_kind(client: KubeClient, served: Served, namespace: str) -> Listing:
    kind = told_name(served.resource)
    try:
        objects, version = list_objects(client, served)
        return Listing(served, "", version, tuple(objects))
    except ApiError as error:
        if error.status == 401:
            raise
        if error.status == 404:  # a CRD that was removed since discovery
            return Listing(served, "", "", ())
        if error.status != 403 or not served.resource.namespaced:
            return Listing(served, "", "", (), LeftOut(kind, error.message, hint=error.hint))
    try:
        objects, version = list_objects(client, served, namespace)
        missing = LeftOut(kind, f"only those of namespace {namespace}: all namespaces may not be listed", namespace)
        return Listing(served, namespace, version, tuple(objects), missing)
    except ApiError as error:
        return Listing(served, namespace, "", (), LeftOut(kind, error.message, hint=error.hint))


def list_objects(
    client: KubeClient, served: Served, namespace: str = "", query: Iterable[tuple[str, str]] = ()
) -> tuple[list[KubeObject], str]:
    """All objects of one kind, and the resource version to watch from."""
    objects: list[KubeObject] = []
    version = ""
    for page in list_pages(client, served, namespace, query):
        if page.first:
            objects.clear()
        objects += page.objects
        version = page.version
    return objects, version


class Page(msgspec.Struct, frozen=True):
    """Some of a kind's objects. `first`: what came before, if anything, does not count."""

    first: bool
    objects: list[KubeObject]
    version: str


def list_pages(
    client: KubeClient, served: Served, namespace: str = "", query: Iterable[tuple[str, str]] = ()
) -> Iterator[Page]:
    """All objects of one kind, page by page: a caller that keeps little of each needs little memory.

    A list that outlives its snapshot in etcd (410 Gone between pages) is read again, in one piece. Raises GenainetError for one
    without end.
    """
    doing = f"list {served.resource.plural}" + (f" in namespace {namespace}" if namespace else "")
    options = {"limit": str(PAGE), **dict(served.resource.query), **dict(query)}
    first, items = True, ItemDecoder(served)
    begun, size = time.monotonic(), 0

    def read() -> _List:
        nonlocal size
        answer = client.request("GET", served.path(namespace), query=dict(options), doing=doing)
        size += len(answer)
        took_s = time.monotonic() - begun
        if size > MAX_LIST or took_s > LIST_S:
            raise GenainetError(f"can't {doing}: the list does not end: {size >> 20} MB within {took_s:.0f} s")
        page: _List = decoded_answer(answer, _List, doing)
        return page

    page: _List | None = read()
    while page is not None:
        following = None
        if page.metadata.continue_:
            options["continue"] = page.metadata.continue_
            following = Pending(read, "list")  # the server prepares a page while this one's objects are made
        yield Page(first, [items.object(item) for item in page.items or ()], page.metadata.resource_version)
        first, page = False, None
        try:
            page = following.result() if following is not None else None
        except ApiError as error:
            if error.status != 410:
                raise
            options.pop("continue"), options.pop("limit")
            first, page = True, read()
