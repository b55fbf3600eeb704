"""Keeps a selection of objects up to date: list, then watch from that resource version, again after 410 Gone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from typing import Generic, Literal, Self, TypeVar

import msgspec

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import ApiError, Unreachable, decoded_answer
from kubectl_genainet.kube.items import Item, ItemDecoder
from kubectl_genainet.kube.resources import Served
from kubectl_genainet.kube.snapshot import list_pages
from kubectl_genainet.model.kube import KubeObject

T = TypeVar("T")
NamespacedName = tuple[str, str]  # namespace and name

_SERVER_TIMEOUT_S = 300  # the server ends the watch then; a new one goes on from the last version
_BACKOFF_S = (0.5, 1.0, 2.0, 5.0)


class ObjectChangeKind(Enum):
    ADDED = "ADDED"
    MODIFIED = "MODIFIED"
    DELETED = "DELETED"


class ObjectChange(msgspec.Struct, frozen=True):
    kind: ObjectChangeKind
    object: KubeObject


class Selection(msgspec.Struct, frozen=True):
    """What to watch: a kind, in one namespace or all, with a label selector ("kubernetes.io/service-name=x")."""

    served: Served
    namespace: str = ""
    labels: str = ""

    @property
    def query(self) -> tuple[tuple[str, str], ...]:
        return (("labelSelector", self.labels),) if self.labels else ()


class _WatchEvent(msgspec.Struct, frozen=True):
    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"]
    object: Item


class Expired(Exception):
    """The resource version is too old (410 Gone): list again."""


def watch_once(client: KubeClient, selection: Selection, version: str) -> Iterator[ObjectChange | str]:
    """One watch request: changes, and resource versions to go on from (str), until the server ends it. The first item
    is `version` itself, and says that the server has accepted the request.

    Raises Expired for 410 (as a status or inside the stream), ApiError and Unreachable for the rest.
    """
    query = {
        "watch": "true",
        "resourceVersion": version,
        "allowWatchBookmarks": "true",
        "timeoutSeconds": str(_SERVER_TIMEOUT_S),
        **dict(selection.query),
    }
    path, doing = selection.served.path(selection.namespace), f"watch {selection.served.resource.plural}"
    items = ItemDecoder(selection.served)
    try:
        with client.lines(path, query, read_timeout_s=_SERVER_TIMEOUT_S + 30, doing=doing) as lines:
            yield version
            for line in lines:
                event: _WatchEvent = decoded_answer(line, _WatchEvent, doing)
                if event.type == "ERROR":
                    raise _refusal(event.object, doing)
                changed = items.object(event.object)
                yield str(changed.metadata.get("resourceVersion", version))
                if event.type != "BOOKMARK":
                    yield ObjectChange(ObjectChangeKind(event.type), changed)
    except ApiError as error:
        if error.status == 410:
            raise Expired from None
        raise


def _refusal(status: Item, doing: str) -> Exception:
    """What an ERROR event, whose object is a Status, comes to."""
    code = int(decoded_answer(status.get("code", b"500"), int, doing))
    if code == 410:
        return Expired()
    message = decoded_answer(status.get("message", b'""'), str, doing)
    return ApiError(f"can't {doing}: {message}", "", code, "")


class SelectionFollower(Generic[T]):
    """Follows a selection in a thread of its own until `close`, and keeps `keep(object)` of each object (None: nothing).

    `on_change` is called after each change with what is kept, by namespace and name; it may read the mapping during the
    call only. `on_problem` is called once with a message when the API server can't be followed, and with "" when it
    can again. Both run in the watch's thread. With `known` and `version` (of a list that was read before) nothing is
    listed at first. Where the user may not watch (401, 403) it ends, unless it is `persistent`: then it asks again.
    """

    def __init__(
        self,
        client: KubeClient,
        selection: Selection,
        keep: Callable[[KubeObject], T | None],
        on_change: Callable[[Mapping[NamespacedName, T]], None],
        on_problem: Callable[[str], None] = lambda message: None,
        *,
        known: Iterable[KubeObject] = (),
        version: str = "",
        persistent: bool = False,
    ) -> None:
        self._client, self._selection = client, selection
        self._keep, self._on_change, self._on_problem = keep, on_change, on_problem
        self._lock = threading.Lock()
        self._kept: dict[NamespacedName, T] = {}
        self._take(self._kept, known)
        self._version = version
        self._persistent = persistent
        self._stop = threading.Event()
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"watch {selection.served.resource.plural}", daemon=True)
        self._thread.start()

    def kept(self) -> dict[NamespacedName, T]:
        """A copy of what is kept now."""
        with self._lock:
            return self._kept.copy()

    def close(self) -> None:
        """Ends it. The open request is left to its daemon thread, which is told nothing more."""
        self._stop.set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take(self, kept: dict[NamespacedName, T], objects: Iterable[KubeObject]) -> None:
        for obj in objects:
            reduced = self._keep(obj)
            if reduced is not None:
                kept[obj.namespace, obj.name] = reduced

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._version:
                    self._list()
                self._follow()
            except Expired:
                self._version = ""
            except Unreachable as error:
                self._failed(error)
            except ApiError as error:
                self._failed(error)
                if error.status in (401, 403) and not self._persistent:
                    return  # it won't get better by asking
                self._version = ""
            except GenainetError as error:
                self._failed(error)
                self._version = ""

    def _list(self) -> None:
        listed: dict[NamespacedName, T] = {}
        version = ""
        selection = self._selection
        for page in list_pages(self._client, selection.served, selection.namespace, selection.query):
            if page.first:
                listed.clear()
            self._take(listed, page.objects)
            version = page.version
        self._kept, self._version = listed, version
        self._tell()

    def _follow(self) -> None:
        for item in watch_once(self._client, self._selection, self._version):
            if self._stop.is_set():
                return
            self._recovered()
            if isinstance(item, str):
                self._version = item
                continue
            key = (item.object.namespace, item.object.name)
            with self._lock:
                before = self._kept.pop(key, None)
                if item.kind is not ObjectChangeKind.DELETED:
                    self._take(self._kept, (item.object,))
            if self._kept.get(key) != before:
                self._tell()

    def _tell(self) -> None:
        self._recovered()
        if not self._stop.is_set():
            self._on_change(self._kept)

    def _recovered(self) -> None:
        if self._failures and not self._stop.is_set():
            self._failures = 0
            self._on_problem("")

    def _failed(self, error: GenainetError) -> None:
        if not self._failures and not self._stop.is_set():
            self._on_problem(error.message)
        self._stop.wait(_BACKOFF_S[min(self._failures, len(_BACKOFF_S) - 1)])
        self._failures += 1


class ObjectWatch(SelectionFollower[KubeObject]):
    """Keeps the objects whole. `on_change` is called when any has changed since `objects` was last called.

    So that a burst of changes in 50,000 objects costs no more than its own.
    """

    def __init__(
        self,
        client: KubeClient,
        selection: Selection,
        on_change: Callable[[], None],
        on_problem: Callable[[str], None] = lambda message: None,
        *,
        known: Iterable[KubeObject] = (),
        version: str = "",
    ) -> None:
        self._seen: tuple[KubeObject, ...] | None = None
        if version:
            known = tuple(known)
            self._seen = _sorted({(obj.namespace, obj.name): obj for obj in known})
        self._told = False

        def changed(_: Mapping[NamespacedName, KubeObject]) -> None:
            if not self._told:
                self._told = True
                on_change()

        super().__init__(client, selection, lambda obj: obj, changed, on_problem, known=known, version=version)

    def objects(self) -> tuple[KubeObject, ...] | None:
        """All of the selection, sorted; None where all are as they were at the last call."""
        self._told = False
        current = _sorted(self.kept())
        if current == self._seen:
            return None
        self._seen = current
        return current


def _sorted(objects: Mapping[NamespacedName, KubeObject]) -> tuple[KubeObject, ...]:
    return tuple(objects[key] for key in sorted(objects))
