"""Commands that results suggest run as they are printed: with the options that say where the facts came from."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Remedy
from kubectl_genainet.run.as_used import AsUsed
from kubectl_genainet.run.sources.base import Source
from kubectl_genainet.run.sources.bundle import BundleSource
from kubectl_genainet.run.sources.cluster import ClusterSource
from kubectl_genainet.run.sources.lab import LabSource
from kubectl_genainet.run.sources.manifests import ManifestsSource

EXPLAIN = "kubectl genainet explain pod/a/b pod/a/c:80 --patch"


@pytest.mark.parametrize(
    ("source", "command", "shown"),
    [
        (LabSource(), EXPLAIN, f"{EXPLAIN} --lab"),
        (LabSource("two", namespace="ai"), EXPLAIN, f"{EXPLAIN} --lab two -n ai"),
        (BundleSource("my bundle.gnb"), EXPLAIN, f"{EXPLAIN} --from 'my bundle.gnb'"),
        (ManifestsSource(("k8s",)), EXPLAIN, f"{EXPLAIN} --manifests k8s"),
        (ClusterSource(), EXPLAIN, EXPLAIN),
        (ClusterSource(context="prod", user="jane"), EXPLAIN, f"{EXPLAIN} --context prod --as jane"),
        (LabSource(namespace="ai"), "kubectl genainet dns -n other", "kubectl genainet dns -n other --lab"),
        (LabSource(), "kubectl get pods", "kubectl get pods"),
        (LabSource(), "kubectl genainet lab down", "kubectl genainet lab down"),
    ],
)
def test_the_options_of_the_source_are_added_once(source: Source, command: str, shown: str) -> None:
    assert AsUsed(source).command(command) == shown


def test_a_command_within_a_sentence_has_them_too() -> None:
    remedy = Remedy("Look at kube-proxy; `kubectl genainet rules` compares its rules. Not `ip rule`.")
    used = AsUsed(LabSource("two")).remedy(remedy)
    assert used is not None and used.command == ""
    assert used.text == "Look at kube-proxy; `kubectl genainet rules --lab two` compares its rules. Not `ip rule`."
