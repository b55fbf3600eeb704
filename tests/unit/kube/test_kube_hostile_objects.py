"""Objects that their creators made to keep others from being read: nested without end, of kinds without a schema."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import msgspec
import pytest

from kubectl_genainet.errors import GenainetError
from kubectl_genainet.kube import snapshot
from kubectl_genainet.kube.client import KubeClient
from kubectl_genainet.kube.failures import decoded_answer
from kubectl_genainet.kube.items import Item, ItemDecoder
from kubectl_genainet.kube.nesting import TOO_DEEP, without_deep_values
from kubectl_genainet.kube.resources import POD, Served
from kubectl_genainet.kube.snapshot import list_objects
from kubectl_genainet.kube.watch import ObjectChange, Selection, watch_once

SERVED = Served(POD, "v1")


def nested(depth: int) -> bytes:
    return b'{"a":[' * (depth // 2) + b"1" + b"]}" * (depth // 2)


def item(name: str, deep: bytes = b"1") -> bytes:
    return b'{"metadata":{"name":"%s","resourceVersion":"7"},"spec":{"x":%s,"y":"]}[{\\""},"extra":%s}' % (
        name.encode(),
        deep,
        deep,
    )


class Server:
    """Answers every request with the same bytes."""

    def __init__(self, *answers: bytes) -> None:
        self._answers = answers

    def request(self, method: str, path: str, **_: Any) -> bytes:
        return self._answers[0]

    @contextmanager
    def lines(self, path: str, query: Any, **_: Any) -> Iterator[Iterator[bytes]]:
        yield iter(self._answers)


def client(*answers: bytes) -> KubeClient:
    return cast(KubeClient, Server(*answers))


def depth_of(value: Any) -> int:
    depth, level = 0, [value]
    while level := [m for v in level if isinstance(v, dict | list) for m in (v.values() if isinstance(v, dict) else v)]:
        depth += 1
    return depth


@pytest.mark.parametrize("depth", [250, 900, 10_000])
def test_an_object_nested_without_end_hides_no_other(depth: int) -> None:
    page = b'{"items":[%s],"metadata":{"resourceVersion":"7"}}' % b",".join(
        (item("a"), item("b", nested(depth)), item("c"))
    )
    objects, version = list_objects(client(page), SERVED)
    assert ([obj.name for obj in objects], version) == (["a", "b", "c"], "7")
    assert objects[0].raw["spec"] == objects[2].raw["spec"] == {"x": 1, "y": ']}[{"'}
    deep = objects[1].raw
    assert deep["spec"]["y"] == ']}[{"'
    assert depth_of(deep) < 300 and TOO_DEEP in str(deep["spec"]) and TOO_DEEP in str(deep["extra"])


@pytest.mark.parametrize(("bound", "value"), [("LIST_S", 0.05), ("MAX_LIST", 100_000)])
def test_a_list_whose_pages_have_no_end_is_given_up(bound: str, value: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, bound, value)
    page = b'{"items":[%s],"metadata":{"resourceVersion":"7","continue":"more"}}' % item("a")
    with pytest.raises(GenainetError, match="can't list pods: the list does not end: 0 MB within"):
        list_objects(client(page), SERVED)


def test_a_watch_goes_on_after_an_object_nested_without_end() -> None:
    events = [
        b'{"type":"MODIFIED","object":%s}' % item("a", nested(10_000)),
        b'{"type":"ADDED","object":%s}' % item("b"),
    ]
    changes = [c for c in watch_once(client(*events), Selection(SERVED), "1") if isinstance(c, ObjectChange)]
    assert [change.object.name for change in changes] == ["a", "b"]


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"ADDED","object":{"metadata":{"name":"\xff"}}}',
        b'{"type":"NEW","object":{}}',
        b'{"type":"ERROR","object":{"code":"x"}}',
        b"[" * 5000,
        b"<html>",
    ],
)
def test_a_line_of_a_watch_that_is_none_is_an_error_of_the_watch(line: bytes) -> None:
    with pytest.raises(GenainetError):
        list(watch_once(client(line), Selection(SERVED), "1"))


@pytest.mark.parametrize("text", [b"\xff", b'{"a":"\xff"}', b"[" * 100_000, b"]" * 10, b"<html>", b'"\\ud800"', b""])
def test_an_answer_that_is_no_json_is_said_to_be_none(text: bytes) -> None:
    with pytest.raises(GenainetError, match="can't list pods"):
        decoded_answer(text, Any, "list pods")


def test_what_is_cut_is_whole_values_and_costs_as_much_as_it_is_long() -> None:
    assert without_deep_values(b'{"a":[[1,[2]],"[[["],"b":{}}', 2) == b'{"a":["%s","[[["],"b":{}}' % TOO_DEEP.encode()
    begun = time.process_time()
    for token in (b'"', b'"\\', b"[", b"{", b"]", b'["'):
        without_deep_values(token * (2 << 20), 200)
    assert time.process_time() - begun < 10
    text = nested(20_000)
    assert depth_of(msgspec.json.decode(without_deep_values(text, 100))) == 100


def test_objects_with_ever_other_members_are_not_remembered_without_end() -> None:
    """Labels may have any name: a type for each set of them would stay for good."""
    decoder = ItemDecoder(SERVED)
    pods = [f'{{"metadata":{{"name":"p","labels":{{"l{n}":"x"}}}}}}'.encode() for n in range(2_000)]
    objects = [decoder.object(msgspec.json.decode(pod, type=Item)) for pod in pods]
    assert objects[-1].raw["metadata"]["labels"] == {"l1999": "x"}
    assert len(decoder._compact._shapes) <= decoder._compact._MOST_SHAPES


@pytest.mark.parametrize("annotations", [b"null", b"[]", b'"x"', b"7", b'{"a":null}', b'{"a":[1]}'])
def test_annotations_that_are_none_hide_no_object(annotations: bytes) -> None:
    page = b'{"items":[{"metadata":{"name":"a","annotations":%s}}],"metadata":{}}' % annotations
    (obj,), _ = list_objects(client(page), SERVED)
    assert obj.name == "a"


@pytest.mark.parametrize("part", [b"null", b"[]", b'"x"', b"7"])
def test_parts_that_are_none_hide_no_object(part: bytes) -> None:
    page = b'{"items":[{"metadata":{"name":"a"},"spec":%s,"status":%s},%s],"metadata":{}}' % (part, part, item("b"))
    assert [obj.name for obj in list_objects(client(page), SERVED)[0]] == ["a", "b"]
