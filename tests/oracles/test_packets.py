"""Verdicts on random clusters equal what kube-network-policies did to real packets (tests/oracles/packets/record.py)."""

from __future__ import annotations

import json
from typing import Any

from kubectl_genainet.policy import PolicyEngine, PolicyFlow
from kubectl_genainet.policy.enforcers import named_enforcer
from tests.oracles.packets.clusters import digest, plain_clusters
from tests.oracles.packets.record import RECORDED
from tests.unit.policy.policy_cluster import end, snapshot


def in_force(objects: list[dict[str, Any]], refused: list[str]) -> list[dict[str, Any]]:
    """Those that the API server took."""
    return [
        o for o in objects if f"{o['kind']} {o['metadata'].get('namespace', '')}/{o['metadata']['name']}" not in refused
    ]


def test_verdicts_are_what_became_of_the_packets() -> None:
    clusters = plain_clusters()
    recorded = json.loads(RECORDED.read_text())
    assert recorded["clusters"] == digest(clusters), "the clusters are not those that were recorded: record anew"
    wrong = []
    for number, (cluster, (did, refused)) in enumerate(zip(clusters, recorded["answers"], strict=True)):
        objects = in_force(cluster.objects, refused)
        engine = PolicyEngine(snapshot(*objects), named_enforcer("kube-network-policies"))
        for flow, letter in zip(cluster.flows, did, strict=True):
            source, target, port, protocol = flow
            ours = engine.explain(PolicyFlow(end(source), end(target), protocol, port))
            assert engine.verdict(ours.flow) is ours.verdict
            if ours.verdict.value[0] != letter:
                wrong.append((number, flow, ours.verdict.value, letter))
    assert wrong == []
