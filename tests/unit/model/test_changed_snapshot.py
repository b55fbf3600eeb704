"""A snapshot after a change: what is the same object as before is not decoded again."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.events import ClusterChanged
from kubectl_genainet.model.kube import KubeObject


def pod(name: str, ip: str) -> KubeObject:
    raw: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "a"}}
    return KubeObject({**raw, "status": {"podIP": ip, "podIPs": [{"ip": ip}]}})


NAMESPACE = KubeObject({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}})
STAYS, MOVES, GOES = pod("stays", "10.0.0.1"), pod("moves", "10.0.0.2"), pod("goes", "10.0.0.3")


def test_a_change_has_the_new_objects_and_keeps_what_was_decoded() -> None:
    before = ClusterSnapshot((NAMESPACE, STAYS, MOVES, GOES))
    stays = before.pod("a", "stays")
    after = before.with_kinds({("", "Pod"): (pod("moves", "10.0.0.9"), pod("new", "10.0.0.4"), STAYS)}, "later")
    assert after.pod("a", "stays") is stays
    assert {ip: (found.metadata.name if (found := after.pod_at(ip)) else None) for ip in ADDRESSES} == ADDRESSES
    assert (after.of("Namespace"), after.taken_at) == ((NAMESPACE,), "later")
    assert before.pod_at("10.0.0.3") is not None


ADDRESSES = {"10.0.0.1": "stays", "10.0.0.2": None, "10.0.0.3": None, "10.0.0.4": "new", "10.0.0.9": "moves"}


def test_a_change_is_the_same_snapshot_for_all_that_learn_it() -> None:
    snapshot = ClusterSnapshot((NAMESPACE, STAYS))
    changed = ClusterChanged.of(snapshot)
    assert changed.snapshot is snapshot
    assert ClusterChanged(objects=changed.objects).snapshot.pods == snapshot.pods


def test_objects_are_found_by_their_name_within_their_namespace() -> None:
    elsewhere = KubeObject({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stays", "namespace": "b"}})
    snapshot = ClusterSnapshot((STAYS, elsewhere))
    assert snapshot.named("Pod", "b", "stays") == (elsewhere,)
    assert snapshot.named("Pod", "c", "stays") == snapshot.named("Service", "a", "stays") == ()
