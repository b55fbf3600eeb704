"""What must hold for a patch in every dialect: it is valid by the API's schemas, admits its flow, and survives a rollout."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_genainet.model.workload_kinds.generated_labels import changes
from kubectl_genainet.policy import Patcher, PolicyEngine, PolicyFlow, PolicyVerdict, patch, pod_endpoint
from kubectl_genainet.policy.enforcers import named_enforcer
from kubectl_genainet.policy.patches.patch import PatchOption
from tests.unit.policy.policy_cluster import Raw, admin, end, engine, labels, namespace, netpol, node, pod, snapshot
from tests.unit.policy.policy_schemas import problems

some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
NAMESPACES = ("core", "edge")
PORTS = (("TCP", 8000), ("UDP", 53))
GENERATED = (
    "pod-template-hash",
    "rollouts-pod-template-hash",
    "pod-template-generation",
    "apps.kubernetes.io/pod-index",
    "jobset.sigs.k8s.io/job-index",
    "leaderworkerset.sigs.k8s.io/worker-index",
    "ray.io/identifier",
    "helm.sh/revision",
    "controller-revision-hash",
    "statefulset.kubernetes.io/pod-name",
    "app.kubernetes.io/version",
    "app.kubernetes.io/managed-by",
    "helm.sh/chart",
    "leaderworkerset.sigs.k8s.io/group-index",
    "serving.knative.dev/revision",
    "batch.kubernetes.io/controller-uid",
)


def choice(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


NAMED = st.fixed_dictionaries({"app": choice("llm", "vec")}, optional={"app.kubernetes.io/component": choice("a", "b")})
LABELS = NAMED | st.fixed_dictionaries({"app": choice("llm", "vec")})


@st.composite
def pods(draw: st.DrawFn) -> list[Raw]:
    found = []
    for i in range(draw(st.integers(3, 5))):
        generated = dict.fromkeys(draw(st.sets(choice(*GENERATED), max_size=3)), f"v1-{i}")
        name, labels = f"{draw(choice(*NAMESPACES))}/p{i}", {**draw(LABELS), **generated}
        found.append(pod(name, f"10.9.0.{i + 1}", labels=labels, ports=(("web", "TCP", 8000),), node=f"n{i % 2}"))
    return found


def selector(app: str) -> Raw:
    return {"matchLabels": {"app": app}}


def kubernetes(number: int, where: str, app: str, direction: str) -> Raw:
    side = "from" if direction == "Ingress" else "to"
    rules = {direction.lower(): [{side: [{"podSelector": selector(app)}], "ports": [{"port": 9}]}]}
    return netpol(f"{where}/k{number}", policyTypes=[direction], **rules)


def administrators(number: int, where: str, app: str, direction: str, *, nested: bool = False) -> Raw:
    """`nested`: with peers as network-policy-api 0.1.1 has them, and of the kinds that it has."""
    side = "from" if direction == "Ingress" else "to"
    names = {"matchLabels": {"kubernetes.io/metadata.name": where}}
    among: Raw = {"namespaces": {"namespaceSelector": {}}} if nested else {"namespaceSelector": {}}
    rule = {"action": "Deny", side: [{"pods": {**among, "podSelector": selector(app)}}]}
    spec = {"subject": {"namespaces": names}, direction.lower(): [rule]}
    if number == 2:
        return admin("BaselineAdminNetworkPolicy", "default", **spec)
    if number and not nested:
        return admin("ClusterNetworkPolicy", f"c{number}", tier="Admin", priority=number + 1, **spec)
    return admin("AdminNetworkPolicy", f"a{number}", priority=number + 1, **spec)


def nested_administrators(number: int, where: str, app: str, direction: str) -> Raw:
    return administrators(number, where, app, direction, nested=True)


def cilium(number: int, where: str, app: str, direction: str) -> Raw:
    side = "fromEndpoints" if direction == "Ingress" else "toEndpoints"
    rule = {side: [selector(app)], "toPorts": [{"ports": [{"port": "9"}]}]}
    spec: Raw = {"endpointSelector": {}, direction.lower(): [rule]}
    kind, metadata = "CiliumNetworkPolicy", {"name": f"c{number}", "namespace": where}
    if number == 2:
        kind, metadata = "CiliumClusterwideNetworkPolicy", {"name": "c2"}
        spec["endpointSelector"] = {"matchLabels": {"io.kubernetes.pod.namespace": where}}
    return {"apiVersion": "cilium.io/v2", "kind": kind, "metadata": metadata, "spec": spec}


def calico(number: int, where: str, app: str, direction: str) -> Raw:
    side = "source" if direction == "Ingress" else "destination"
    rule = {"action": "Deny" if number % 2 else "Allow", side: {"selector": f"app == '{app}'"}}
    spec = {"selector": "all()", "order": 10 * (number + 1), "types": [direction], direction.lower(): [rule]}
    metadata = {"name": f"p{number}", "namespace": where}
    kind = "NetworkPolicy"
    if number == 2:
        kind, metadata = "GlobalNetworkPolicy", {"name": f"p{number}"}
    return {"apiVersion": "projectcalico.org/v3", "kind": kind, "metadata": metadata, "spec": spec}


NESTED = "admin of network-policy-api 0.1.1"
DIALECTS = {
    "kubernetes": (kubernetes, "unknown"),
    "admin": (administrators, "unknown"),
    NESTED: (nested_administrators, "unknown"),
    "cilium": (cilium, "cilium"),
    "calico": (calico, "calico"),
}


@st.composite
def policies(draw: st.DrawFn, dialect: str) -> list[Raw]:
    make, _ = DIALECTS[dialect]
    found = []
    for number in range(draw(st.integers(1, 3))):
        maker = kubernetes if draw(choice(0, 0, 0, 1)) else make
        found.append(
            maker(number, draw(choice(*NAMESPACES)), draw(choice("llm", "vec")), draw(choice("Ingress", "Egress")))
        )
    return found


def judge(dialect: str, objects: list[Raw]) -> PolicyEngine:
    around = [namespace(n) for n in NAMESPACES] + [node(f"n{i}", f"192.168.9.{i + 1}") for i in range(2)]
    return PolicyEngine(snapshot(*around, *objects), named_enforcer(DIALECTS[dialect][1]))


def flows(made: list[Raw]) -> list[PolicyFlow]:
    names = [f"{o['metadata']['namespace']}/{o['metadata']['name']}" for o in made]
    pairs = [*product(names, (*names, "203.0.113.7")), *product(("203.0.113.7",), names)]
    return [PolicyFlow(end(a), end(b), *port) for a, b in pairs if a != b for port in PORTS]


@pytest.mark.parametrize("dialect", DIALECTS)
@some
@given(data=st.data())
def test_a_patch_is_valid_admits_its_flow_and_survives_a_rollout(dialect: str, data: st.DataObject) -> None:
    made = data.draw(pods())
    found = data.draw(policies(dialect))
    before = judge(dialect, [*made, *found])
    verdicts = {flow: before.explain(flow).verdict for flow in flows(made)}
    assert all(before.verdict(flow) is verdict for flow, verdict in verdicts.items())
    denied = [flow for flow, verdict in verdicts.items() if verdict is PolicyVerdict.DENY]
    if not denied:
        return
    asked = data.draw(st.sampled_from(denied))
    answer = patch(before, asked)
    assert answer is not None
    for option in filter(None, (answer.edit, answer.new)):
        assert [p for c in option.changes for p in problems(c.object, nested_peers=dialect == NESTED)] == []
        after = applied(found, option)
        assert judge(dialect, [*made, *after]).explain(asked).verdict is PolicyVerdict.ALLOW
        later = [rolled_out(one) for one in made]
        assert judge(dialect, [*later, *after]).explain(asked).verdict is PolicyVerdict.ALLOW


def rolled_out(one: Raw) -> Raw:
    """A pod of the next release: every label that a controller or a release tool sets has another value."""
    labels = {k: "v2-next" if k in GENERATED else v for k, v in one["metadata"]["labels"].items()}
    return {**one, "metadata": {**one["metadata"], "labels": labels}}


def applied(found: list[Raw], option: PatchOption) -> list[Raw]:
    def key(obj: Raw) -> tuple[str, str, str, str]:
        meta = obj["metadata"]
        return obj["apiVersion"].split("/")[0], obj["kind"], meta.get("namespace", ""), meta["name"]

    objects = {key(one): one for one in found}
    objects |= {key(c.object): c.object for c in option.changes}
    return list(objects.values())


def test_the_labels_that_change_are_those_that_tools_set() -> None:
    assert [key for key in GENERATED if not changes(key)] == []
    assert [
        key for key in ("app", "app.kubernetes.io/name", "app.kubernetes.io/component", "role") if changes(key)
    ] == []


def test_the_validator_refuses_what_an_api_server_refuses() -> None:
    fine = netpol("core/x", ingress=[{"from": [{"podSelector": {}}]}])
    assert problems(fine) == []
    wrong = netpol("core/x", ingress=[{"from": [{"podSelecto": {}}], "ports": [{"endPort": "9"}]}])
    assert {text.split(": ", 1)[1].split(":")[0] for text in problems(wrong)} == {
        "spec.ingress[0].from[0].podSelecto",
        "spec.ingress[0].ports[0].endPort is no integer",
    }
    bare = {**fine, "spec": {"ingress": []}}
    assert problems(bare) == ["networking.k8s.io/v1 NetworkPolicy, Kubernetes 1.33: spec.podSelector is missing"]


def test_replicas_that_differ_in_changing_labels_have_the_patch_that_each_would_have_alone() -> None:
    """The patch of the first is tried for the others; a policy that is for one replica alone counts."""
    key = "statefulset.kubernetes.io/pod-name"
    replicas = [
        pod(f"ai/{n}-{i}", f"10.1.{k}.{i}", labels={"app": n, key: f"{n}-{i}"})
        for k, n in enumerate("ab")
        for i in range(3)
    ]
    one = netpol("ai/one", podSelector=labels(**{key: "b-2"}), policyTypes=["Ingress"])
    judge = engine(namespace("ai"), *replicas, netpol("ai/closed", policyTypes=["Ingress"]), one)
    together = Patcher(judge)
    flows = [
        PolicyFlow(pod_endpoint("ai", f"a-{i}"), pod_endpoint("ai", f"b-{j}"), "TCP", 80)
        for i in range(3)
        for j in range(3)
    ]
    for flow in flows:
        alone = Patcher(judge).patch(flow)
        assert alone is not None
        assert together.patch(flow) == alone
