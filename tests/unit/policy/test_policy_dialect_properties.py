"""What must hold in every dialect, of Cilium's and Calico's policies as of the others."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_genainet.policy import PolicyEngine, PolicyFlow, PolicyVerdict, patch
from tests.unit.policy.policy_cluster import Raw, end
from tests.unit.policy.test_policy_patch_properties import DIALECTS, applied, judge, pods, policies

some = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
Pair = tuple[str, str]


def names(made: list[Raw]) -> list[str]:
    return sorted({f"{o['metadata']['namespace']}/{o['metadata']['name']}" for o in made})


def verdicts(engine: PolicyEngine, made: list[Raw], protocol: str, port: int) -> dict[Pair, PolicyVerdict]:
    """Of all pairs of pods, by explaining each; the bare verdict is the same."""
    found = {}
    for a, b in permutations(names(made), 2):
        explanation = engine.explain(PolicyFlow(end(a), end(b), protocol, port))
        assert engine.verdict(explanation.flow) is explanation.verdict
        found[a, b] = explanation.verdict
    return found


def of(found: dict[Pair, PolicyVerdict], verdict: PolicyVerdict) -> set[Pair]:
    return {pair for pair, one in found.items() if one is verdict}


@pytest.mark.parametrize("dialect", DIALECTS)
@some
@given(data=st.data())
def test_the_matrix_is_what_explaining_each_pair_says(dialect: str, data: st.DataObject) -> None:
    made, found = data.draw(pods()), data.draw(policies(dialect))
    engine = judge(dialect, [*made, *found])
    explained = verdicts(engine, made, "TCP", 8000)
    matrix = engine.matrix("TCP", 8000)
    in_matrix = {
        ("/".join(a), "/".join(b)): matrix.verdict(one.index, other.index)
        for one in matrix.classes
        for other in matrix.classes
        for a in one.pods
        for b in other.pods
        if a != b
    }
    assert in_matrix == explained


@pytest.mark.parametrize("dialect", DIALECTS)
@some
@given(data=st.data())
def test_the_order_of_objects_is_nothing_to_a_verdict(dialect: str, data: st.DataObject) -> None:
    made, found = data.draw(pods()), data.draw(policies(dialect))
    shuffled = data.draw(st.permutations([*made, *found]))
    forward = verdicts(judge(dialect, [*made, *found]), made, "TCP", 9)
    assert verdicts(judge(dialect, shuffled), made, "TCP", 9) == forward


@pytest.mark.parametrize("dialect", DIALECTS)
@some
@given(data=st.data())
def test_a_patch_admits_what_it_lists_and_stops_only_where_it_isolates(dialect: str, data: st.DataObject) -> None:
    made, found = data.draw(pods()), data.draw(policies(dialect))
    engine = judge(dialect, [*made, *found])
    before = verdicts(engine, made, "TCP", 8000)
    denied = sorted(of(before, PolicyVerdict.DENY))
    if not denied:
        return
    source, target = data.draw(st.sampled_from(denied))
    answer = patch(engine, PolicyFlow(end(source), end(target), "TCP", 8000))
    assert answer is not None
    for option in filter(None, (answer.edit, answer.new)):
        after = verdicts(judge(dialect, [*made, *applied(found, option)]), made, "TCP", 8000)
        gained = of(before, PolicyVerdict.DENY) - of(after, PolicyVerdict.DENY)
        lost = of(before, PolicyVerdict.ALLOW) - of(after, PolicyVerdict.ALLOW)
        assert gained | {(source, target)} == {(source, target), *option.also_admits}
        assert all(a in option.isolates or b in option.isolates for a, b in lost)


CLOSING: dict[str, tuple[str, str]] = {
    "kubernetes": ("networking.k8s.io/v1", "NetworkPolicy"),
    "cilium": ("cilium.io/v2", "CiliumNetworkPolicy"),
    "calico": ("projectcalico.org/v3", "NetworkPolicy"),
}


def closing(dialect: str, app: str) -> Raw:
    """A policy that only denies: nothing passes to pods of an app that did not before."""
    select = {"matchLabels": {"app": app}}
    specs: dict[str, Raw] = {
        "kubernetes": {"podSelector": select, "policyTypes": ["Ingress"]},
        "cilium": {
            "endpointSelector": select,
            "ingressDeny": [{"fromEntities": ["cluster"]}],
            "enableDefaultDeny": {"ingress": False},
        },
        "calico": {"selector": f"app == '{app}'", "order": 1, "types": ["Ingress"], "ingress": [{"action": "Deny"}]},
    }
    version, kind = CLOSING[dialect]
    metadata = {"name": "x", "namespace": "core"}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": specs[dialect]}


@pytest.mark.parametrize("dialect", CLOSING)
@some
@given(data=st.data())
def test_a_policy_that_only_denies_admits_nothing(dialect: str, data: st.DataObject) -> None:
    """It closes what it selects: where rules were the only ones, isolation by another policy does not end."""
    made, found = data.draw(pods()), data.draw(policies(dialect))
    app = data.draw(st.sampled_from(["llm", "vec"]))
    before = verdicts(judge(dialect, [*made, *found]), made, "TCP", 9)
    after = verdicts(judge(dialect, [*made, *found, closing(dialect, app)]), made, "TCP", 9)
    if dialect == "kubernetes":
        isolated = {f"core/{o['metadata']['name']}" for o in made if o["metadata"]["labels"]["app"] == app}
        unchanged = {pair for pair in before if pair[1] not in isolated}
        assert {p: after[p] for p in unchanged} == {p: before[p] for p in unchanged}
    else:
        closed = {
            f"core/{o['metadata']['name']}"
            for o in made
            if o["metadata"]["namespace"] == "core" and o["metadata"]["labels"]["app"] == app
        }
        assert {after[p] for p in after if p[1] in closed} <= {PolicyVerdict.DENY}
    assert of(after, PolicyVerdict.ALLOW) <= of(before, PolicyVerdict.ALLOW)
