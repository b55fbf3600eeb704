"""What must hold for any cluster and any policies, checked against a second, naive evaluator."""

from __future__ import annotations

from itertools import product
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy import Direction, PolicyEngine, PolicyFlow, PolicyVerdict, patch
from kubectl_genainet.policy.patches.patch import PatchOption
from tests.unit.policy import policy_naive
from tests.unit.policy.policy_cluster import Raw, end, engine, namespace, netpol, pod

OUTSIDE = ("203.0.113.9", "10.0.0.250")
PORTS = (("TCP", 80), ("TCP", 8080), ("UDP", 53))
many = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def choice(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


labels = st.dictionaries(choice("app", "tier"), choice("x", "y"), max_size=2)
expression = st.one_of(
    st.fixed_dictionaries({"key": choice("app", "tier"), "operator": choice("In", "NotIn"), "values": st.just(["x"])}),
    st.fixed_dictionaries({"key": choice("app", "tier"), "operator": choice("Exists", "DoesNotExist")}),
)
selector = st.one_of(
    labels.map(lambda found: {"matchLabels": found}),
    st.lists(expression, max_size=2).map(lambda found: {"matchExpressions": found}),
)
block = choice(
    {"cidr": "10.0.0.0/24"},
    {"cidr": "10.0.0.0/24", "except": ["10.0.0.2/31"]},
    {"cidr": "0.0.0.0/0"},
    {"cidr": "10.0.0.9/29"},
    {"cidr": "203.0.113.0/24"},
    {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]},
)
peer = st.one_of(
    selector.map(lambda s: {"podSelector": s}),
    selector.map(lambda s: {"namespaceSelector": s}),
    st.tuples(selector, selector).map(lambda s: {"namespaceSelector": s[0], "podSelector": s[1]}),
    block.map(lambda b: {"ipBlock": b}),
)
port = choice(
    {"port": 80},
    {"port": 8080, "protocol": "TCP"},
    {"port": 53, "protocol": "UDP"},
    {"port": "web"},
    {"port": 80, "endPort": 8080},
    {"protocol": "UDP"},
    {"port": "web", "protocol": "UDP"},
)


def rule(side: str) -> st.SearchStrategy[Raw]:
    return st.fixed_dictionaries({}, optional={side: st.lists(peer, max_size=2), "ports": st.lists(port, max_size=2)})


spec = st.fixed_dictionaries(
    {"podSelector": selector},
    optional={
        "policyTypes": choice(["Ingress"], ["Egress"], ["Ingress", "Egress"]),
        "ingress": st.lists(rule("from"), max_size=2),
        "egress": st.lists(rule("to"), max_size=2),
    },
)


@st.composite
def clusters(draw: st.DrawFn, policies: int = 4) -> list[Raw]:
    """Two namespaces, up to six pods with addresses, some policies."""
    objects = [namespace("a", **draw(labels)), namespace("b", **draw(labels))]
    for i in range(draw(st.integers(2, 6))):
        ports = draw(choice((), (("web", "TCP", 8080),), (("web", "TCP", 80), ("web", "UDP", 53))))
        where = draw(choice("a", "b"))
        objects.append(pod(f"{where}/p{i}", f"10.0.0.{i + 1}", labels=draw(labels), ports=ports))
    for i, found in enumerate(draw(st.lists(spec, max_size=policies))):
        objects.append(netpol(f"{draw(choice('a', 'b'))}/n{i}", **found))
    return objects


def ends(objects: list[Raw]) -> list[str]:
    return [f"{o['metadata']['namespace']}/{o['metadata']['name']}" for o in objects if o["kind"] == "Pod"]


def flows(objects: list[Raw]) -> list[tuple[str, str, str, int]]:
    pods = ends(objects)
    pairs = [*product(pods, pods), *product(pods, OUTSIDE), *product(OUTSIDE, pods)]
    return [(a, b, protocol, number) for a, b in pairs for protocol, number in PORTS]


def passing(judge: PolicyEngine, wanted: list[tuple[str, str, str, int]]) -> set[tuple[str, str, str, int]]:
    return {f for f in wanted if judge.verdict(PolicyFlow(end(f[0]), end(f[1]), f[2], f[3])) is PolicyVerdict.ALLOW}


@many
@given(clusters())
def test_explanation_verdict_and_matrix_agree_with_the_naive_evaluator(objects: list[Raw]) -> None:
    judge = engine(*objects)
    matrices = {p: judge.matrix(*p) for p in PORTS}
    classes = judge.rows.classes.of_pod
    for source, target, protocol, number in flows(objects):
        expected = policy_naive.admits(objects, source, target, protocol, number)
        flow = PolicyFlow(end(source), end(target), protocol, number)
        assert (judge.explain(flow).verdict is PolicyVerdict.ALLOW) is expected, flow
        assert (judge.verdict(flow) is PolicyVerdict.ALLOW) is expected, flow
        if "/" in source and "/" in target and source != target:
            i, j = classes[tuple(source.split("/"))], classes[tuple(target.split("/"))]  # type: ignore[index]
            assert (matrices[(protocol, number)].verdict(i, j) is PolicyVerdict.ALLOW) is expected, flow


@many
@given(clusters(), spec, choice("a", "b"))
def test_a_policy_added_to_unisolated_pods_never_admits_more(objects: list[Raw], added: Raw, where: str) -> None:
    before = engine(*(o for o in objects if o["kind"] != "NetworkPolicy"))
    after = engine(*(o for o in objects if o["kind"] != "NetworkPolicy"), netpol(f"{where}/added", **added))
    wanted = flows(objects)
    assert passing(after, wanted) <= passing(before, wanted)


@many
@given(clusters(policies=0), spec, spec)
def test_the_union_of_policies_admits_the_union(objects: list[Raw], one: Raw, other: Raw) -> None:
    """For policies that isolate the same pods."""
    same = {"podSelector": {}, "policyTypes": ["Ingress"]}
    first, second = netpol("a/one", **{**one, **same}), netpol("a/other", **{**other, **same})
    wanted = [f for f in flows(objects) if f[1].startswith("a/")]
    union = passing(engine(*objects, first), wanted) | passing(engine(*objects, second), wanted)
    assert passing(engine(*objects, first, second), wanted) == union


@few
@given(clusters(), st.data())
def test_a_patch_admits_its_flow_and_no_other_that_it_does_not_list(objects: list[Raw], data: st.DataObject) -> None:
    judge = engine(*objects)
    wanted = flows(objects)
    before = passing(judge, wanted)
    denied = [f for f in wanted if f not in before]
    if not denied:
        return
    asked = data.draw(st.sampled_from(denied))
    found = patch(judge, PolicyFlow(end(asked[0]), end(asked[1]), asked[2], asked[3]))
    assert found is not None, "a flow that NetworkPolicies stop can always be admitted"
    assert found.edit is not None
    for option in filter(None, (found.edit, found.new)):
        after = {f for f in wanted if policy_naive.admits(_applied(objects, option), *f)}
        listed = {(a, b, asked[2], asked[3]) for a, b in option.also_admits}
        assert asked in after
        assert before <= after
        assert after - before - {asked} == listed & (set(wanted) - before)
        assert not listed & before


@few
@given(st.lists(st.tuples(spec, choice("a", "b")), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_what_a_patch_admits_is_listed_in_a_cluster_of_many_different_pods(
    specs: list[tuple[Raw, str]], random: Random
) -> None:
    """Many classes are compared by what they have in common, few one by one."""
    pods = [f"{'ab'[i % 2]}/p{i}" for i in range(90)]
    own = [{"app": random.choice("xy"), "tier": random.choice("xy"), "pod": str(i)} for i in range(90)]
    made = [pod(n, f"10.0.0.{i + 1}", labels=found) for i, (n, found) in enumerate(zip(pods, own, strict=True))]
    objects = [namespace("a", app="x"), namespace("b", tier="y"), *made]
    objects += [netpol(f"{where}/n{i}", **found) for i, (found, where) in enumerate(specs)]
    judge = engine(*objects)
    before = between_pods(judge)
    denied = sorted((a, b) for a in pods for b in pods if a != b and (a, b) not in before)
    if not denied:
        return
    source, target = random.choice(denied)
    found = patch(judge, PolicyFlow(end(source), end(target), "TCP", 80))
    assert found is not None
    for option in filter(None, (found.edit, found.new)):
        after = between_pods(engine(*_applied(objects, option)))
        assert after - before == {(source, target), *option.also_admits}
        assert before <= after or option.isolates
        changed = judge.with_changes([KubeObject(c.object) for c in option.changes])
        assert changed is not None
        assert between_pods(changed.engine) == after
        fresh = engine(*_applied(objects, option))
        for direction in Direction:
            assert isolated(changed.engine, direction) == isolated(fresh, direction)
        more = netpol("a/more", podSelector={"matchLabels": {"app": "x"}}, ingress=[{"from": [{"podSelector": {}}]}])
        again = changed.engine.with_changes([KubeObject(more)])  # from a state that was changed already
        assert again is not None
        assert between_pods(again.engine) == between_pods(engine(*_applied(objects, option), more))


def isolated(judge: PolicyEngine, direction: Direction) -> set[tuple[str, str]]:
    found = judge.rows.isolated(direction)
    return {pod for one in judge.rows.classes.classes if found >> one.index & 1 for pod in one.pods}


def between_pods(judge: PolicyEngine) -> set[tuple[str, str]]:
    """The pairs of pods between which TCP 80 passes."""
    matrix = judge.matrix("TCP", 80)
    return {
        ("/".join(a), "/".join(b))
        for one in matrix.classes
        for other in matrix.classes
        if matrix.verdict(one.index, other.index) is PolicyVerdict.ALLOW
        for a in one.pods
        for b in other.pods
        if a != b
    }


def _applied(objects: list[Raw], option: PatchOption) -> list[Raw]:
    """The objects after an option, with the labels that pods need first."""
    changed = {(c.ref.kind, c.ref.namespace, c.ref.name): c.object for c in option.changes}
    added = {pod: {label.key: label.value} for label in option.labels for pod in label.pods}
    objects = [_labelled(o, added) if o["kind"] == "Pod" else o for o in objects]
    kept = [o for o in objects if (o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]) not in changed]
    return [*kept, *changed.values()]


def _labelled(made: Raw, added: dict[str, dict[str, str]]) -> Raw:
    metadata = made["metadata"]
    labels_of_pod = {**metadata["labels"], **added.get(f"{metadata['namespace']}/{metadata['name']}", {})}
    return {**made, "metadata": {**metadata, "labels": labels_of_pod}}
