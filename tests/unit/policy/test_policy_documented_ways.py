"""Connections by the names of Services and pods, as they arrive: what is documented is what `explain` says."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.target import parse_target
from kubectl_genainet.policy.enforcers import enforcer_of
from kubectl_genainet.policy.flows.targets import flows_between
from kubectl_genainet.run.policies.explain import Explainer
from tests.unit.policy.documented.ways import AGENTS, WAYS, Way, around
from tests.unit.policy.policy_cluster import daemon_set, snapshot

_NAMESPACES = {"web": "a", "chat": "b", "y": "b"}


@pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.says}: {way.target}")
def test_what_is_documented_becomes_of_the_connection(way: Way) -> None:
    cluster = snapshot(*around(way.objects))
    client = f"pod/{_NAMESPACES[way.source]}/{way.source}" if way.source in _NAMESPACES else way.source
    (sent,) = flows_between(cluster, parse_target(client), parse_target(way.target), namespace="a", protocol="")
    assert Explainer(cluster, "").explained(sent, by_name=False).explanation.verdict.value == way.verdict


@pytest.mark.parametrize(("enforcer", "image", "container"), AGENTS.values(), ids=AGENTS)
def test_an_enforcer_is_found_by_its_image_as_distributions_name_it(enforcer: str, image: str, container: str) -> None:
    assert enforcer_of(snapshot(daemon_set(image, container))).name.value == enforcer
    assert enforcer_of(snapshot(daemon_set(f"example.org/not-{image.rpartition('/')[2]}", "x"))).name.value == "unknown"
