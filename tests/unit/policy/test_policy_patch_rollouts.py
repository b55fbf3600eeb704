"""A patch is still right after each end was released again, by a model of controllers that shares nothing with the code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kubectl_genainet.policy import PolicyEngine, PolicyFlow, PolicyVerdict, patch, patch_all, pod_endpoint
from kubectl_genainet.policy.enforcers import named_enforcer
from kubectl_genainet.policy.patches.patch import PatchOption
from tests.unit.policy.policy_cluster import Raw, admin, namespace, netpol, node, snapshot
from tests.unit.policy.policy_schemas import problems
from tests.unit.policy.rollout_labels import of_a_person, of_a_release
from tests.unit.policy.rollouts import KINDS, WITHOUT_A_NAME, Made

some = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EVERY_POD: Raw = {"namespaces": {}}
ALL = {"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy", "metadata": {"name": "shut", "namespace": "ai"}}
CILIUM = {"apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "shut", "namespace": "ai"}}
SHUT: dict[str, tuple[str, Raw]] = {
    "kubernetes": ("unknown", netpol("ai/shut", policyTypes=["Ingress"])),
    "admin": (
        "unknown",
        admin(
            "AdminNetworkPolicy",
            "shut",
            priority=5,
            subject=EVERY_POD,
            ingress=[{"action": "Deny", "from": [EVERY_POD]}],
        ),
    ),
    "cilium": ("cilium", {**CILIUM, "spec": {"endpointSelector": {}, "ingress": [{}]}}),
    "calico": (
        "calico",
        {**ALL, "spec": {"selector": "all()", "order": 50, "types": ["Ingress"], "ingress": [{"action": "Deny"}]}},
    ),
}


@dataclass
class Workload:
    """A workload of one kind in namespace ai, with the labels of its pod template."""

    name: str
    kind: str
    number: int
    person: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    added: dict[str, str] = field(default_factory=dict)

    def pods(self, release: int, replicas: int = 2) -> list[Raw]:
        chosen = of_a_person(self.name)
        template = {key: chosen[key] for key in self.person}
        template |= {key: of_a_release(self.name, release)[key] for key in self.tools} | self.added
        return [
            KINDS[self.kind](self.name, release, i).pod("ai", template, f"10.{self.number}.{release}.{i + 1}")
            for i in range(replicas)
        ]


def judge(dialect: str, objects: Sequence[Raw]) -> PolicyEngine:
    enforcer, _ = SHUT[dialect]
    return PolicyEngine(snapshot(namespace("ai"), node("n1", "192.168.9.1"), *objects), named_enforcer(enforcer))


def flow(source: Raw, target: Raw) -> PolicyFlow:
    return PolicyFlow(
        pod_endpoint("ai", source["metadata"]["name"]), pod_endpoint("ai", target["metadata"]["name"]), "TCP", 8000
    )


def admitted(engine: PolicyEngine, sources: list[Raw], targets: list[Raw]) -> set[PolicyVerdict]:
    return {engine.verdict(flow(a, b)) for a in sources for b in targets}


def check(dialect: str, client: Workload, server: Workload, other: Workload) -> list[PatchOption]:
    """Patches the flow between the first pods of two workloads, and judges what each option does after all were released
    again: it admits what it admitted, and not a workload that it did not."""
    workloads = (client, server, other)
    _, shut = SHUT[dialect]
    before = judge(dialect, [shut, *(pod for w in workloads for pod in w.pods(1))])
    asked = flow(client.pods(1)[0], server.pods(1)[0])
    assert before.verdict(asked) is PolicyVerdict.DENY
    answer = patch(before, asked)
    assert answer is not None
    options = [option for option in (answer.edit, answer.new) if option is not None]
    for option in options:
        assert [text for c in option.changes for text in problems(c.object)] == []
        labelled(workloads, option)
        kept = [] if any(not c.is_new and c.ref.name == "shut" for c in option.changes) else [shut]
        policies = [*kept, *(c.object for c in option.changes)]
        for release, replicas in ((1, 2), (2, 3), (3, 1)):
            pods = {w.name: w.pods(release, replicas) for w in workloads}
            after = judge(dialect, [*policies, *(pod for made in pods.values() for pod in made)])
            assert admitted(after, pods[client.name], pods[server.name]) == {PolicyVerdict.ALLOW}, (release, policies)
            beside = {str(flow(pod, pod).source) for pod in other.pods(1)}
            if not any(source in beside for source, _ in option.also_admits):
                assert admitted(after, pods[other.name], pods[server.name]) == {PolicyVerdict.DENY}, release
        for workload in workloads:
            workload.added = {}
    return options


def labelled(workloads: Sequence[Workload], option: PatchOption) -> None:
    for label in option.labels:
        (named,) = [w for w in workloads if set(label.pods) == {f"ai/{p['metadata']['name']}" for p in w.pods(1)}]
        named.added[label.key] = label.value


@pytest.mark.parametrize("dialect", SHUT)
@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_outlasts_releases_of_pods_with_nothing_but_what_controllers_write(kind: str, dialect: str) -> None:
    client, server = Workload("rag", kind, 1), Workload("llm", "deployment", 2, ("app",))
    options = check(dialect, client, server, Workload("chat", "deployment", 3, ("app",)))
    assert options
    if kind in WITHOUT_A_NAME:
        needed = {label.pods for option in options for label in option.labels}
        assert needed == {tuple(f"ai/{p['metadata']['name']}" for p in client.pods(1))}


@pytest.mark.parametrize("kind", KINDS)
def test_a_patch_outlasts_releases_of_the_server(kind: str) -> None:
    client, server = Workload("rag", "deployment", 1, ("app",)), Workload("llm", kind, 2)
    assert check("kubernetes", client, server, Workload("chat", kind, 3, ("app",)))


@pytest.mark.parametrize("dialect", SHUT)
@some
@given(data=st.data())
def test_a_patch_outlasts_releases_whatever_labels_people_and_tools_add(dialect: str, data: st.DataObject) -> None:
    def workload(name: str, number: int) -> Workload:
        kind = data.draw(st.sampled_from(sorted(KINDS)))
        person = data.draw(st.sets(st.sampled_from(sorted(of_a_person(name))), max_size=2))
        tools = data.draw(st.sets(st.sampled_from(sorted(of_a_release(name, 1))), max_size=4))
        return Workload(name, kind, number, tuple(sorted(person)), tuple(sorted(tools)))

    check(dialect, workload("rag", 1), workload("llm", 2), workload("chat", 3))


@pytest.mark.parametrize("key", sorted(of_a_release("rag", 1)))
def test_a_label_that_a_release_changes_is_never_the_one(key: str) -> None:
    """It is the only label beside the hash: another one has to be added first."""
    client, server = Workload("rag", "deployment", 1, (), (key,)), Workload("llm", "deployment", 2, ("app",))
    options = check("kubernetes", client, server, Workload("chat", "deployment", 3, ("app",)))
    assert all(option.labels for option in options)
    assert {(label.kind, label.name) for option in options for label in option.labels} == {("Deployment", "rag")}


def test_a_run_gives_its_label_the_name_without_its_number() -> None:
    client, server = Workload("rag", "argo_workflow", 1), Workload("llm", "deployment", 2, ("app",))
    options = check("kubernetes", client, server, Workload("chat", "deployment", 3, ("app",)))
    assert {label.value for option in options for label in option.labels} == {"rag"}


def test_one_change_for_all_replicas_adds_one_label_and_one_rule() -> None:
    client, server = Workload("rag", "argo_workflow", 1), Workload("llm", "cron_job", 2)
    engine = judge("kubernetes", [SHUT["kubernetes"][1], *client.pods(1), *server.pods(1)])
    flows = [flow(a, b) for a in client.pods(1) for b in server.pods(1)]
    together = patch_all(engine, flows)
    assert together is not None
    (change,) = together.changes
    assert len(change.object["spec"]["ingress"]) == 1
    assert {label.name for label in together.labels} <= {
        f"{client.pods(1)[0]['metadata']['name'].split('-embed')[0]}",
        "llm",
    }
    assert [label.kind for label in together.labels if label.kind == "Workflow"] == ["Workflow"]


def test_the_name_of_the_workload_goes_before_a_role() -> None:
    """A role may be another workload's tomorrow."""
    made = KINDS["leader"]("llm", 1, 0).pod("ai", {"role": "leader"}, "10.1.1.1")
    target = KINDS["deployment"]("rag", 1, 0).pod("ai", {"app": "rag"}, "10.2.1.1")
    answer = patch(judge("kubernetes", [SHUT["kubernetes"][1], made, target]), flow(made, target))
    assert answer is not None and answer.edit is not None
    keys = selector_keys(answer.edit.changes[0].object["spec"]["ingress"])
    assert keys == {"leaderworkerset.sigs.k8s.io/name"}


def selector_keys(value: Any) -> set[str]:
    """The keys of all matchLabels in an object."""
    if isinstance(value, list):
        return {key for item in value for key in selector_keys(item)}
    if not isinstance(value, dict):
        return set()
    own = set(value.get("matchLabels", {}))
    return own.union(*(selector_keys(item) for item in value.values()))


def test_a_pod_that_is_named_as_its_workload_is_known_by_that_name() -> None:
    """As the pod of a Sandbox is, which has no replicas."""
    made = Made("rag", {}, (("Sandbox", "rag"),)).pod("ai", {"app": "rag"}, "10.1.1.1")
    target = KINDS["deployment"]("llm", 1, 0).pod("ai", {"app": "llm"}, "10.2.1.1")
    answer = patch(judge("kubernetes", [SHUT["kubernetes"][1], made, target]), flow(made, target))
    assert answer is not None and answer.edit is not None and answer.edit.labels == ()
    assert selector_keys(answer.edit.changes[0].object["spec"]["ingress"]) == {"app"}


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ({"app": "rag", "build-id": "4711"}, {"app"}),
        ({"app": "rag-3f2a9c1", "team": "search"}, {"team"}),
        ({"app.kubernetes.io/name": "rag", "helm.sh/chart": "rag-1.2.3"}, {"app.kubernetes.io/name"}),
        ({"model": "llama-3.1-8b-instruct", "model-version": "7"}, {"model"}),
        ({"release": "rag", "chart": "rag-1.2.3"}, {"release"}),
        ({"deployment": "vllm"}, {"deployment"}),
        ({"run": "debug"}, {"run"}),
    ],
)
def test_the_labels_that_people_write_are_used(labels: dict[str, str], wanted: set[str]) -> None:
    made = KINDS["deployment"]("rag", 1, 0).pod("ai", labels, "10.1.1.1")
    target = KINDS["deployment"]("llm", 1, 0).pod("ai", {"app": "llm"}, "10.2.1.1")
    answer = patch(judge("kubernetes", [SHUT["kubernetes"][1], made, target]), flow(made, target))
    assert answer is not None and answer.edit is not None and answer.edit.labels == ()
    assert selector_keys(answer.edit.changes[0].object["spec"]["ingress"]) == wanted
