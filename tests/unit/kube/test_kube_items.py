"""Items of lists: what is kept of them, and what many of them share."""

from __future__ import annotations

import json
import re
import sys
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


def test_of_a_pods_state_only_what_is_read_is_kept() -> None:
    times = {"lastTransitionTime": "2026-01-01T00:00:00Z", "lastProbeTime": None, "observedGeneration": 2}
    conditions = [{"type": kind, "status": "True", **times} for kind in ("Initialized", "Ready", "PodScheduled")]
    running = {"name": "model", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, "restartCount": 1}
    ended = {**running, "lastState": {"terminated": {"exitCode": 137}}}
    statuses = [{**running, "lastState": {}, "image": "a", "imageID": "b", "volumeMounts": []}, ended, "odd"]
    status = {"conditions": conditions, "containerStatuses": statuses, "initContainerStatuses": "odd"}
    kept = decoded(ItemDecoder(Served(POD, "v1")), {"metadata": {"name": "a"}, "status": status}).raw["status"]
    timed = {"status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
    assert kept["conditions"] == [
        {"type": "Initialized", "status": "True"},
        {"type": "Ready", **timed},
        {"type": "PodScheduled", **timed},
    ]
    assert kept["containerStatuses"] == [running, ended, "odd"] and kept["initContainerStatuses"] == "odd"


def test_the_state_of_other_kinds_is_kept_whole() -> None:
    conditions = [{"type": "Accepted", "status": "True", "observedGeneration": 2}]
    node = {"metadata": {"name": "n"}, "status": {"conditions": conditions}}
    assert decoded(ItemDecoder(Served(NODE, "v1")), node).raw["status"] == {"conditions": conditions}


def test_objects_with_the_same_members_share_the_table_of_their_names() -> None:
    decoder = ItemDecoder(Served(POD, "v1"))
    numbers = range(100)
    last = [
        decoded(decoder, {"metadata": {"name": f"p{n}", "namespace": "chat", "uid": f"u{n}"}}).raw for n in numbers
    ][-1]
    metadata = last["metadata"]
    assert sys.getsizeof(metadata) < sys.getsizeof(dict(metadata.items()))
    metadata["labels"] = {}  # it is a mapping like any other
    assert json.loads(json.dumps(metadata)) == {"name": "p99", "namespace": "chat", "uid": "u99", "labels": {}}
    assert msgspec.json.decode(msgspec.json.encode(last)) == last


def test_mappings_of_many_names_are_kept_as_they_are() -> None:
    labels = {f"label-{number}": "x" for number in range(100)}
    decoder = ItemDecoder(Served(POD, "v1"))
    many = [{f"name-{number}": "x"} for number in range(1000)]
    assert decoded(decoder, {"metadata": {"name": "a", "labels": labels}}).raw["metadata"]["labels"] == labels
    for each in many:
        assert decoded(decoder, {"metadata": {"name": "a", "labels": each}}).raw["metadata"]["labels"] == each
