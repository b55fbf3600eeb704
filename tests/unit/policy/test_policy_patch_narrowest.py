"""Leaving out policies that another makes needless to edit does not change the patch."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from kubectl_genainet.policy import Patcher, PolicyFlow, PolicyVerdict
from kubectl_genainet.policy.patches import patch as patches
from kubectl_genainet.policy.patches.trial import tried
from tests.unit.policy.policy_cluster import Raw, end, engine, labels, namespace, netpol, pod
from tests.unit.policy.test_policy_properties import clusters, flows


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(clusters(policies=6))
def test_the_patch_is_that_of_trying_every_policy(objects: list[Raw]) -> None:
    judge = engine(*objects)
    asked = [PolicyFlow(end(a), end(b), protocol, port) for a, b, protocol, port in flows(objects)]
    denied = [flow for flow in asked if judge.verdict(flow) is PolicyVerdict.DENY][:12]
    quick = [Patcher(judge).patch(flow) for flow in denied]
    with pytest.MonkeyPatch.context() as every:
        every.setattr(patches, "narrowest", lambda engine, changes, kept: changes)
        assert [Patcher(judge).patch(flow) for flow in denied] == quick


def test_of_policies_for_the_same_pods_only_the_shortest_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one for all pods of the namespace is not: the rule would admit more there."""
    app = labels(app="llama")
    judge = engine(
        namespace("ai"),
        pod("ai/llama", "10.1.0.1"),
        pod("ai/rag", "10.1.0.2"),
        netpol("ai/all"),
        netpol("ai/short", podSelector=app),
        netpol("ai/long", podSelector=app, ingress=[{"from": [{"podSelector": labels(app="other")}]}]),
    )
    edited: list[str] = []

    def noted(engine: object, flow: object, changes: list[patches.PolicyChange], **more: object) -> object:
        edited.extend(change.ref.name for change in changes if not change.is_new)
        return tried(engine, flow, changes, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(patches, "tried", noted)
    patch = Patcher(judge).patch(PolicyFlow(end("ai/rag"), end("ai/llama"), "TCP", 80))
    assert patch is not None and patch.edit is not None
    assert [change.ref.name for change in patch.edit.changes] == edited == ["short"]
