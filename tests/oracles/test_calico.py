"""Verdicts on random clusters equal those of Calico's own policy engine (tests/oracles/calico/engine.py)."""

from __future__ import annotations

import pytest

from kubectl_genainet.policy import PolicyEngine, PolicyFlow
from kubectl_genainet.policy.enforcers import named_enforcer
from tests.oracles.calico.clusters import Cluster
from tests.oracles.calico.engine import Answers, answers, clusters
from tests.unit.policy.policy_cluster import end, snapshot


@pytest.fixture(scope="module")
def asked() -> list[Cluster]:
    return clusters()


@pytest.fixture(scope="module")
def answered(asked: list[Cluster]) -> list[Answers]:
    return answers(asked)


# The version that was asked: which of the administrators' kinds Calico reads hangs on it.
ASKED_VERSION = {
    "apiVersion": "projectcalico.org/v3",
    "kind": "ClusterInformation",
    "metadata": {"name": "default"},
    "spec": {"calicoVersion": "v3.34.0"},
}


def judge(cluster: Cluster) -> PolicyEngine:
    return PolicyEngine(snapshot(*cluster.objects, ASKED_VERSION), named_enforcer("calico"))


def test_verdicts_are_the_engines(asked: list[Cluster], answered: list[Answers]) -> None:
    """Unknown is what hangs on a policy that the API refuses, and nothing else."""
    wrong, decided = [], 0
    for number, (cluster, answer) in enumerate(zip(asked, answered, strict=True)):
        engine = judge(cluster)
        for flow, theirs in zip(cluster.flows, answer.flows, strict=True):
            source, target, port, protocol = flow
            ours = engine.explain(PolicyFlow(end(source), end(target), protocol, port))
            assert engine.verdict(ours.flow) is ours.verdict
            for result, word in zip((ours.egress, ours.ingress), theirs, strict=True):
                if result.verdict.value == "unknown":
                    right = all("refuses the policy" in note.reason for note in result.not_evaluated)
                else:
                    right = result.verdict.value == word
                    decided += 1
                if not right:
                    wrong.append((number, flow, result.verdict.value, word))
    assert wrong == []
    assert decided > 0.8 * sum(2 * len(cluster.flows) for cluster in asked)


def test_the_same_policies_are_refused(asked: list[Cluster], answered: list[Answers]) -> None:
    refused = 0
    for cluster, answer in zip(asked, answered, strict=True):
        ours = {
            f"{one.ref.kind.split('.')[0]} {one.ref.namespace}/{one.ref.name}" for one in judge(cluster).unevaluated
        }
        assert ours == answer.refused
        refused += len(ours)
    assert refused > 10
