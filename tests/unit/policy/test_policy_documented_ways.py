"""Connections by the names of Services and pods, as they arrive: what is documented is what `explain` says."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.target import parse_target
from kubectl_genainet.policy.flows.targets import flows_between
from kubectl_genainet.run.policies.explain import Explainer
from tests.unit.policy.documented.ways import WAYS, Way, around
from tests.unit.policy.policy_cluster import snapshot

_NAMESPACES = {"web": "a", "chat": "b", "y": "b"}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.says}: {way.target}")
def test_what_is_documented_becomes_of_the_connection(way: Way) -> None:
    cluster = snapshot(*around(way.objects))
    client = f"pod/{_NAMESPACES[way.source]}/{way.source}" if way.source in _NAMESPACES else way.source
    (sent,) = flows_between(cluster, parse_target(client), parse_target(way.target), namespace="a", protocol="")
    assert Explainer(cluster, "").explained(sent, by_name=False).explanation.verdict.value == way.verdict
