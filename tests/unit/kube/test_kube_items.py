"""Items of lists: what is kept of them, and what many of them share."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec

from kubectl_genainet.kube import items
from kubectl_genainet.kube.items import Item, ItemDecoder
from kubectl_genainet.kube.resources import NODE, POD, Served
from kubectl_genainet.model.kube import KubeObject, without_nulls

PACKAGE = Path(items.__file__).parents[1]
_item = msgspec.json.Decoder(Item)


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": {"app": "model"},
            "creationTimestamp": None,
            "managedFields": [{"manager": "kubelet"}],
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "chat"},
        },
        "spec": {"containers": [{"name": "model", "env": [None, {"name": "A", "value": None}]}], **spec},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}]},
    }


def decoded(decoder: ItemDecoder, obj: dict[str, Any]) -> KubeObject:
    return decoder.object(_item.decode(json.dumps(obj)))


def test_an_object_has_its_kind_and_neither_nulls_nor_what_is_heavy() -> None:
    found = decoded(ItemDecoder(Served(POD, "v1")), {**pod("a"), "binaryData": {"x": "eA=="}, "extra": None}).raw
    wanted = without_nulls(pod("a"))
    del wanted["metadata"]["managedFields"]
    wanted["metadata"]["annotations"] = {"team": "chat"}
    assert found == {"apiVersion": "v1", "kind": "Pod", **wanted}


def test_objects_share_what_they_have_in_common_and_differ_in_the_rest() -> None:
    decoder = ItemDecoder(Served(POD, "v1"))
    first, second = (decoded(decoder, pod(name, nodeName=name)).raw for name in ("a", "b"))
    assert first["spec"]["containers"] is second["spec"]["containers"]
    assert first["metadata"]["labels"] is second["metadata"]["labels"]
    assert first["spec"] is not second["spec"] and first["spec"]["nodeName"] == "a"


def test_what_is_remembered_has_a_bound() -> None:
    decoder = ItemDecoder(Served(POD, "v1"))
    for number in range(items._REMEMBERED * 2):
        decoded(decoder, {"metadata": {"name": f"p{number}"}})
    assert len(decoder._remembered) <= items._REMEMBERED


def test_a_list_in_the_place_of_an_object_is_kept_as_it_is() -> None:
    found = decoded(ItemDecoder(Served(POD, "v1")), {"metadata": {"name": "a"}, "spec": ["odd"], "status": None}).raw
    assert found["spec"] == ["odd"] and "status" not in found


def test_images_of_nodes_are_not_kept() -> None:
    node = {"metadata": {"name": "n"}, "status": {"images": [{"names": ["a"]}], "volumesInUse": ["v"], "capacity": {}}}
    assert decoded(ItemDecoder(Served(NODE, "v1")), node).raw["status"] == {"capacity": {}}


def test_nothing_in_the_package_reads_what_is_not_kept() -> None:
    pattern = re.compile("|".join(rf"\b{name}\b" for name in items._NOT_KEPT))
    readers = [path for path in PACKAGE.rglob("*.py") if path.name != "items.py" and pattern.search(path.read_text())]
    assert [path.name for path in readers] == ["proposal.py"]  # which drops it from objects of files
