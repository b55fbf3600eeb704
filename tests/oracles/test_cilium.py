"""Verdicts on random clusters equal those of Cilium's own policy engine. `make oracles` builds it beforehand.

Where the answer is unknown, one of a few things has to be the reason, and it has to be named.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from kubectl_genainet.policy import DirectionResult, PolicyEngine, PolicyFlow
from kubectl_genainet.policy.enforcers import named_enforcer
from tests.oracles.cilium.clusters import Cluster, Maker, Raw
from tests.oracles.cilium.engine import Answer, Answers, ask
from tests.unit.policy.policy_cluster import end, snapshot

SCRIPT = Path(__file__).parents[2] / "scripts" / "build-cilium-oracle.sh"
CLUSTERS = 50  # of 40 flows each
CONFIG: Raw = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "cilium-config", "namespace": "kube-system"},
    "data": {"cluster-name": "default", "enable-ipv6": "true"},  # as the oracle has it
}
# What no policy engine can tell: which addresses a name has, what a group holds that is not there, layer 7.
OPEN = re.compile(
    r"the addresses of \S+ are not known|depends on DNS|no DNS rule|CiliumCIDRGroup|layer 7 rules|not in force"
    r"|several values of endPort|several values, and which of them the agent keeps"
)
OPTIONS = re.compile(r"option (cluster-name|labels|enable-node-selector-labels|enable-ipv6)\b.*not read")


@pytest.fixture(scope="module")
def clusters() -> list[Cluster]:
    first = int(os.environ.get("GENAINET_SEED", "0"))
    return [Maker(first + number).cluster() for number in range(CLUSTERS)]


@pytest.fixture(scope="module")
def answers(clusters: list[Cluster]) -> list[Answers]:
    program = subprocess.run([SCRIPT], capture_output=True, text=True, check=True).stdout.strip()
    return ask(program, clusters)


def judged(cluster: Cluster, *more: Raw) -> tuple[PolicyEngine, list[tuple[DirectionResult, DirectionResult]]]:
    judge = PolicyEngine(snapshot(*cluster.objects, *more), named_enforcer("cilium"))
    results = []
    for source, target, port, protocol in cluster.flows:
        explanation = judge.explain(PolicyFlow(end(source), end(target), protocol, port))
        assert judge.verdict(explanation.flow) is explanation.verdict
        results.append((explanation.egress, explanation.ingress))
    return judge, results


def differs(ours: DirectionResult, theirs: Answer, allowed: Sequence[re.Pattern[str]]) -> bool:
    """Whether an answer is another one than the engine's. What a proxy decides further may be unknown here."""
    if ours.verdict.value == "unknown":
        reasons = [note.reason for note in ours.not_evaluated]
        return not reasons or not all(any(p.search(reason) for p in allowed) for reason in reasons)
    return ours.verdict.value != theirs.verdict


def test_verdicts_are_the_engines(clusters: list[Cluster], answers: list[Answers]) -> None:
    """With the agent's options read."""
    wrong = []
    unknown = 0
    for number, (cluster, answer) in enumerate(zip(clusters, answers, strict=True)):
        _, results = judged(cluster, CONFIG)
        for flow, ours, theirs in zip(cluster.flows, results, answer.flows, strict=True):
            for mine, its in zip(ours, theirs, strict=True):
                unknown += mine.verdict.value == "unknown"
                if differs(mine, its, (OPEN,)):
                    wrong.append((number, flow, mine.verdict.value, its))
    assert wrong == []
    assert unknown < 0.01 * 2 * 40 * CLUSTERS


def test_without_the_options_only_what_hangs_on_them_is_unknown(
    clusters: list[Cluster], answers: list[Answers]
) -> None:
    wrong = []
    for number, (cluster, answer) in enumerate(zip(clusters, answers, strict=True)):
        _, results = judged(cluster)
        for flow, ours, theirs in zip(cluster.flows, results, answer.flows, strict=True):
            for mine, its in zip(ours, theirs, strict=True):
                if differs(mine, its, (OPEN, OPTIONS)):
                    wrong.append((number, flow, mine.verdict.value, its))
    assert wrong == []


def test_the_same_policies_are_refused(clusters: list[Cluster], answers: list[Answers]) -> None:
    refused = 0
    for cluster, answer in zip(clusters, answers, strict=True):
        judge, _ = judged(cluster, CONFIG)
        assert {str(r.ref) for r in judge.refused} == set(answer.refused)
        refused += len(answer.refused)
    assert refused > 10
