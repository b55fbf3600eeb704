"""Reads the cluster's state: paged lists of every kind the tool knows, as raw JSON, several at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubectl_genainet.collector import collector_paused
from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.client import KubeClient, connect
from kubectl_genainet.kube.failures import ApiError
from kubectl_genainet.kube.resources import KINDS, Resource, Served, discover, told_name
from kubectl_genainet.kube.user import NOBODY_ELSE, Impersonation
from kubectl_genainet.model.cluster import ClusterSnapshot, LeftOut
from kubectl_genainet.model.kube import KubeObject

PAGE = 500  # as kubectl
_PARALLEL = 4
_NOT_READ = LeftOut("Secret", "never read: no role of this tool includes Secrets")


class ListMeta(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct, frozen=True):
    items: list[dict[str, Any]] | None = None
    metadata: ListMeta = ListMeta()


_list_decoder = msgspec.json.Decoder(_List)


def read_cluster(
    *,
    context: str = "",
    kubeconfig: str = "",
    namespace: str | None = None,
    kinds: Iterable[Resource] = KINDS,
    progress: Callable[[str], None] | None = None,
    user: Impersonation = NOBODY_ELSE,
) -> ClusterSnapshot:
    """The state of a cluster; see `read_snapshot`. Raises GenainetError where the API server can't be reached."""
    return read_snapshot(
        connect(context=context, kubeconfig=kubeconfig, user=user), namespace=namespace, kinds=kinds, progress=progress
    )


def read_snapshot(
    client: KubeClient,
    *,
    namespace: str | None = None,
    kinds: Iterable[Resource] = KINDS,
    progress: Callable[[str], None] | None = None,
) -> ClusterSnapshot:
    """All objects of the kinds that the server offers and the user may list, in all namespaces.

    A kind that is refused for all namespaces is read in `namespace` (default: the context's) where that is allowed; the
    rest of it, and a kind that can't be read at all, is named in `left_out`. The lists are read one after the other in
    time, not in one transaction: an object may be newer than another by a second or so.
    """
    return read_listings(client, namespace=namespace, kinds=kinds, progress=progress)[0]


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
    kinds: Iterable[Resource] = KINDS,
    progress: Callable[[str], None] | None = None,
) -> tuple[ClusterSnapshot, tuple[Listing, ...]]:
    """As `read_snapshot`, with the listings that it is made of."""
    taken_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    served, left_out = discover(client, kinds)

    def read(one: Served) -> Listing:
        if progress is not None:
            progress(f"reading {one.resource.plural}")
        return _read_kind(client, one, namespace or client.namespace)

    with collector_paused(), ThreadPoolExecutor(_PARALLEL) as pool:
        listings = tuple(pool.map(read, served))
    left_out += [listing.missing for listing in listings if listing.missing is not None]
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
            return Listing(served, "", "", (), LeftOut(kind, error.message))
    try:
        objects, version = list_objects(client, served, namespace)
        missing = LeftOut(kind, f"only those of namespace {namespace}: all namespaces may not be listed", namespace)
        return Listing(served, namespace, version, tuple(objects), missing)
    except ApiError as error:
        return Listing(served, namespace, "", (), LeftOut(kind, error.message))


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

    A list that outlives its snapshot in etcd (410 Gone between pages) is read again, in one piece.
    """
    doing = f"list {served.resource.plural}" + (f" in namespace {namespace}" if namespace else "")
    options = {"limit": str(PAGE), **dict(served.resource.query), **dict(query)}
    first = True
    while True:
        try:
            page = _decode(client.request("GET", served.path(namespace), query=options, doing=doing), doing)
        except ApiError as error:
            if error.status != 410 or "continue" not in options:
                raise
            options.pop("continue"), options.pop("limit")
            first = True
            continue
        yield Page(first, [clean(item, served) for item in page.items or ()], page.metadata.resource_version)
        if not page.metadata.continue_:
            return
        options["continue"], first = page.metadata.continue_, False


def _decode(text: bytes, doing: str) -> _List:
    try:
        return _list_decoder.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise GenainetError(f"can't {doing}: the answer is not a list of the Kubernetes API: {error}") from None


def clean(item: dict[str, Any], served: Served) -> KubeObject:
    """An item of a list as an object: with its kind, without nulls and without what is heavy and never analysed."""
    metadata = item.get("metadata")
    if isinstance(metadata, dict):
        metadata.pop("managedFields", None)
        annotations = metadata.get("annotations")
        if isinstance(annotations, dict):
            annotations.pop("kubectl.kubernetes.io/last-applied-configuration", None)
    item.pop("binaryData", None)
    drop_nulls(item)
    return KubeObject({"apiVersion": served.api_version, "kind": served.resource.kind, **item})


def drop_nulls(value: dict[str, Any] | list[Any]) -> None:
    """Removes null members in place: `model.kube.without_nulls` without the copy, for values that are ours."""
    if isinstance(value, dict):
        nulls = None
        for key, member in value.items():
            if member is None:
                nulls = [key] if nulls is None else [*nulls, key]
            elif member.__class__ is dict or member.__class__ is list:
                drop_nulls(member)
        if nulls:
            for key in nulls:
                del value[key]
    else:
        if None in value:
            value[:] = [v for v in value if v is not None]
        for member in value:
            if member.__class__ is dict or member.__class__ is list:
                drop_nulls(member)
