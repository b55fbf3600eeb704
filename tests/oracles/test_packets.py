"""Verdicts on random clusters equal what enforcers did to real packets (tests/oracles/packets/record.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubectl_genainet.policy import Explanation, PolicyEngine, PolicyFlow
from kubectl_genainet.policy.enforcers import named_enforcer
from tests.oracles.packets.clusters import digest
from tests.oracles.packets.record import RECORDINGS, recorded_in
from tests.oracles.test_calico import ASKED_VERSION
from tests.unit.policy.policy_cluster import daemon_set, end, snapshot

# As it was started for the recording.
AGENT = daemon_set(
    "example/kube-network-policies:v0.8.0",
    "netpol",
    "--admin-network-policy=true",
    "--baseline-admin-network-policy=true",
)
ENFORCERS = {
    "kube-network-policies": ("kube-network-policies", AGENT),
    "kube-network-policies-ipv6": ("kube-network-policies", AGENT),
    "calico": ("calico", ASKED_VERSION),
}


def in_force(objects: list[dict[str, Any]], refused: list[str]) -> list[dict[str, Any]]:
    """Those that the API server took."""
    return [
        o for o in objects if f"{o['kind']} {o['metadata'].get('namespace', '')}/{o['metadata']['name']}" not in refused
    ]


def refused_by_calico(explanation: Explanation) -> bool:
    """Whether a verdict is unknown because of a policy that Calico's API server refuses; the recording's takes it."""
    notes = [note for side in (explanation.egress, explanation.ingress) for note in side.not_evaluated]
    return bool(notes) and all("its API server refuses the policy" in note.reason for note in notes)


@pytest.mark.parametrize("name", RECORDINGS)
def test_verdicts_are_what_became_of_the_packets(name: str) -> None:
    clusters = RECORDINGS[name].clusters()
    recorded = json.loads(recorded_in(name).read_text())
    assert recorded["clusters"] == digest(clusters), "the clusters are not those that were recorded: record anew"
    enforcer, agent = ENFORCERS[name]
    wrong, unknown, flows = [], 0, 0
    for number, (cluster, (did, refused)) in enumerate(zip(clusters, recorded["answers"], strict=True)):
        objects = in_force(cluster.objects, refused)
        engine = PolicyEngine(snapshot(*objects, agent), named_enforcer(enforcer))
        for flow, letter in zip(cluster.flows, did, strict=True):
            source, target, port, protocol = flow
            ours = engine.explain(PolicyFlow(end(source), end(target), protocol, port))
            assert engine.verdict(ours.flow) is ours.verdict
            flows += 1
            if enforcer == "calico" and refused_by_calico(ours):
                unknown += 1
            elif ours.verdict.value[0] != letter:
                wrong.append((number, flow, ours.verdict.value, letter))
    assert wrong == []
    assert unknown < 0.3 * flows
