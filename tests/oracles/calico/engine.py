"""What Calico's own policy engine (its master of August 2026) said of clusters, as recorded in answers.json beside this file.

The engine is no Go module that can be had, so its answers can't be recorded anew here.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tests.oracles.calico.clusters import Cluster, Maker, Raw

RECORDED = Path(__file__).with_name("answers.json")
CLUSTERS = 60  # of 40 flows each


@dataclass(frozen=True)
class Answers:
    """For each flow "allow" or "deny", of egress and of ingress; `refused` are policies that are not in force."""

    flows: tuple[tuple[str, str], ...]
    refused: frozenset[str]


def clusters() -> list[Cluster]:
    return [Maker(number).cluster() for number in range(CLUSTERS)]


def answers(asked: list[Cluster]) -> list[Answers]:
    """The answers that were recorded for these clusters."""
    recorded = json.loads(RECORDED.read_text())
    assert recorded["clusters"] == _digest(asked), "the clusters are others than those that were recorded"
    return [
        Answers(tuple((_WORDS[text[i]], _WORDS[text[i + 1]]) for i in range(0, len(text), 2)), frozenset(refused))
        for text, refused in recorded["answers"]
    ]


_WORDS = {"a": "allow", "d": "deny"}


def _document(cluster: Cluster) -> Raw:
    address = cluster.addresses
    flows = [
        {"from": address.get(a, a), "to": address.get(b, b), "port": port, "protocol": protocol}
        for a, b, port, protocol in cluster.flows
    ]
    return {"objects": cluster.objects, "flows": flows}


def _digest(asked: list[Cluster]) -> str:
    return hashlib.sha256(json.dumps([_document(c) for c in asked]).encode()).hexdigest()[:16]
