"""Workloads of all kinds stand for their pods: owned through others, selected, or labelled by their controller."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kubectl_genainet.errors import InputError
from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.model.target import parse_target
from kubectl_genainet.policy.flows.targets import pods_named
from tests.unit.policy.policy_cluster import Raw, namespace, pod, snapshot


def workload(version: str, kind: str, name: str, owner: tuple[str, str] | None = None, **spec: object) -> Raw:
    owners = [{"kind": owner[0], "name": owner[1]}] if owner else []
    metadata = {"name": name, "namespace": "ai", "ownerReferences": owners}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}


def owned(raw: Raw, kind: str, name: str) -> Raw:
    raw["metadata"]["ownerReferences"] = [{"kind": kind, "name": name}]
    return raw


def test_a_chain_of_owners_leads_to_the_workload() -> None:
    objects = (
        namespace("ai"),
        workload("serving.kserve.io/v1beta1", "InferenceService", "llama", predictor={}),
        workload("apps/v1", "Deployment", "llama-predictor", ("InferenceService", "llama")),
        workload("apps/v1", "ReplicaSet", "llama-predictor-1", ("Deployment", "llama-predictor")),
        owned(pod("ai/llama-predictor-1-x"), "ReplicaSet", "llama-predictor-1"),
        pod("ai/other"),
    )
    found = pods_named(snapshot(*objects), parse_target("isvc/llama"), "ai")
    assert [p.metadata.name for p in found] == ["llama-predictor-1-x"]


def test_labels_of_the_controller_lead_to_the_workload() -> None:
    group = workload("ray.io/v1", "RayCluster", "r", headGroupSpec={"template": {"spec": {}}})
    labels = {
        "ray.io/cluster": "r",
        "ray.io/node-type": "head",
        "ray.io/group": "headgroup",
        "ray.io/identifier": "r-head",
    }
    objects = (namespace("ai"), group, pod("ai/r-head-x", labels=labels), pod("ai/other"))
    found = pods_named(snapshot(*objects), parse_target("raycluster/r"), "ai")
    assert [p.metadata.name for p in found] == ["r-head-x"]


@pytest.mark.parametrize("unread", ["Pod", "Deployment"])
def test_what_was_not_read_is_not_said_to_be_absent(unread: str) -> None:
    objects = (namespace("ai"), *([workload("apps/v1", "Deployment", "llama")] if unread == "Pod" else []))
    cluster = replace(snapshot(*objects), left_out=(LeftOut(unread, "the API server is overloaded"),))
    with pytest.raises(InputError, match="in namespace ai were not read: the API server is overloaded"):
        pods_named(cluster, parse_target("deploy/llama"), "ai")


def test_a_namespace_that_was_read_is_known_where_others_were_not() -> None:
    left_out = LeftOut("Pod", "only those of namespace ai", "ai")
    cluster = replace(snapshot(namespace("ai"), workload("apps/v1", "Deployment", "llama")), left_out=(left_out,))
    with pytest.raises(InputError, match="has no pods"):
        pods_named(cluster, parse_target("deploy/llama"), "ai")
    with pytest.raises(InputError, match="namespace chat were not read"):
        pods_named(cluster, parse_target("pod/x"), "chat")
