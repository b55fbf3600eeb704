"""What counts as a change, and how it is told."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.history import ChangeOf, NodeChange
from kubectl_genainet.model.results.timeline import ChangeKind
from kubectl_genainet.timeline.changes import Changes, Noted

AT = 1_700_000_000_000_000_000


def obj(kind: str, name: str, namespace: str = "ai", **parts: Any) -> dict[str, Any]:
    labels = parts.pop("labels", {})
    owners = parts.pop("owners", [])
    metadata = {"name": name, "namespace": namespace, "labels": labels, "ownerReferences": owners}
    return {"kind": kind, "metadata": metadata, **parts}


def noted(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> list[Noted]:
    changes = Changes(before)
    changes.all_objects(AT, after)
    return changes.noted


def deployment(image: str, replicas: int = 2) -> dict[str, Any]:
    return obj(
        "Deployment", "llama", spec={"replicas": replicas, "template": {"spec": {"containers": [{"image": image}]}}}
    )


def test_another_image_is_a_rollout_and_another_number_a_scaling() -> None:
    (rolled,) = noted([deployment("v1")], [deployment("v2")])
    assert (rolled.kind, rolled.what) == (ChangeKind.ROLLOUT, "rolled out: v1 → v2")
    (scaled,) = noted([deployment("v1")], [deployment("v1", 0)])
    assert scaled.what == "scaled from 2 to 0"


def test_a_status_that_moves_is_no_change() -> None:
    assert noted([{**deployment("v1"), "status": {"x": 1}}], [{**deployment("v1"), "status": {"x": 2}}]) == []


def test_endpoints_are_told_by_their_service_and_only_where_ready_addresses_differ() -> None:
    def endpoints(*ready: bool) -> dict[str, Any]:
        items = [{"addresses": [f"10.0.0.{n}"], "conditions": {"ready": r}} for n, r in enumerate(ready, 1)]
        labels = {"kubernetes.io/service-name": "llama-svc"}
        return obj("EndpointSlice", "llama-svc-x1", labels=labels, endpoints=items)

    (gone,) = noted([endpoints(True, True)], [endpoints(True, False)])
    assert (gone.kind, str(gone.object), gone.what) == (
        ChangeKind.ENDPOINTS,
        "Service ai/llama-svc",
        "2 → 1 ready; gone: 10.0.0.2",
    )
    assert noted([endpoints(True, False)], [endpoints(True, False)]) == []


def test_pods_of_one_workload_are_told_once_with_their_number() -> None:
    owner = [{"kind": "ReplicaSet", "name": "llama-5d9c"}]
    pods = [obj("Pod", f"llama-5d9c-{n}", owners=owner, spec={"nodeName": f"n{n}"}) for n in range(3)]
    (removed,) = noted(pods, [])
    assert (removed.what, removed.times, removed.workload) == ("removed", 3, "ai/llama")


def test_a_restart_says_why() -> None:
    def pod(restarts: int) -> dict[str, Any]:
        status = {"restartCount": restarts, "lastState": {"terminated": {"reason": "OOMKilled"}}}
        return obj("Pod", "llama-0", status={"containerStatuses": [status]})

    (restarted,) = noted([pod(0)], [pod(1)])
    assert restarted.what == "restarted (OOMKilled)"


def test_coredns_is_told_by_its_own_kind() -> None:
    def config(text: str) -> dict[str, Any]:
        return obj("ConfigMap", "coredns", "kube-system", data={"Corefile": text})

    (changed,) = noted([config("a")], [config("b")])
    assert (changed.kind, changed.what) == (ChangeKind.COREDNS, "changed: data.Corefile")


def test_leases_and_replica_sets_are_passed_over() -> None:
    assert noted([obj("Lease", "x"), obj("ReplicaSet", "y")], []) == []


def test_rules_that_differ_in_their_counters_only_are_the_same() -> None:
    changes = Changes([])
    changes.rules(AT, "n1", "iptables", "# at 1\n:A - [5:300]\n[4:200] -A A -j B\n")
    changes.rules(AT + 1, "n1", "iptables", "# at 2\n:A - [9:900]\n[8:800] -A A -j B\n")
    assert changes.noted == []
    changes.rules(AT + 2, "n1", "iptables", ":A - [9:900]\n[8:800] -A A -j C\n-A A -j D\n")
    assert [(n.kind, n.what) for n in changes.noted] == [(ChangeKind.RULES, "iptables: 2 lines new, 1 gone")]


def test_a_pods_own_devices_are_no_change_of_the_node() -> None:
    changes = Changes([])
    for uid in ("", "pod-1"):
        changes.node_changed(
            NodeChange(node="n1", at_ns=AT, since_ns=AT, what=ChangeOf.DEVICE, subject="eth0", before="up", pod_uid=uid)
        )
    assert [n.what for n in changes.noted] == ["eth0: up → none"]
