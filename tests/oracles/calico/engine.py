"""What Calico's own policy engine says of clusters: recorded (answers.json beside this file), or from the program itself.

`scripts/build-calico-oracle.sh` builds the program (main.go) from a checkout of Calico, which no module proxy serves.
With GENAINET_CALICO_ORACLE set to it, the tests ask it; `python -m tests.oracles.calico.engine` records its answers.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
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


def clusters(first: int = 0) -> list[Cluster]:
    return [Maker(first + number).cluster() for number in range(CLUSTERS)]


def answers(asked: list[Cluster]) -> list[Answers]:
    """The program's answers where it is there, else those recorded for the same clusters."""
    program = os.environ.get("GENAINET_CALICO_ORACLE", "")
    if program:
        return ask(program, asked)
    recorded = json.loads(RECORDED.read_text())
    assert recorded["clusters"] == _digest(asked), "the clusters are others than those that were recorded: record anew"
    return [
        Answers(tuple((_WORDS[text[i]], _WORDS[text[i + 1]]) for i in range(0, len(text), 2)), frozenset(refused))
        for text, refused in recorded["answers"]
    ]


def ask(program: str, asked: list[Cluster]) -> list[Answers]:
    documents = "\n".join(json.dumps(_document(c)) for c in asked)
    done = subprocess.run([program], input=documents, capture_output=True, text=True, check=True, timeout=240)
    return [
        Answers(tuple((f["egress"], f["ingress"]) for f in raw["flows"]), frozenset(raw["refused"]))
        for raw in map(json.loads, done.stdout.splitlines())
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


def record() -> None:
    """Writes the program's answers to the clusters of the tests."""
    asked = clusters()
    found = ask(os.environ["GENAINET_CALICO_ORACLE"], asked)
    lines = [["".join(word[0] for flow in one.flows for word in flow), sorted(one.refused)] for one in found]
    text = ",\n".join(json.dumps(line) for line in lines)
    RECORDED.write_text(f'{{"clusters": "{_digest(asked)}", "answers": [\n{text}\n]}}\n')


if __name__ == "__main__":
    record()
