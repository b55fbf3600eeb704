"""A policy among manifests that does not say what it is, or has no name, is one unevaluated policy: never left out."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.policy import PolicyEngine, PolicyFlow
from kubectl_genainet.policy.left_out.served import RefusedBy
from tests.unit.policy.policy_cluster import end, namespace, pod

PODS = (namespace("ai"), pod("ai/llama", "10.1.0.1"), pod("web/w", "10.2.0.1"), pod("default/d", "10.3.0.1"))
INTO_AI, INTO_WEB, INTO_DEFAULT = ("ai/llama", "web/w", "default/d")
NAMED = "metadata: {name: p, namespace: ai}"
CLOSED = "spec: {podSelector: {}}"
CALICO = "spec: {selector: all(), ingress: [{action: Deny}]}"
CILIUM = "spec: {endpointSelector: {}, ingressDeny: [{fromEntities: [all]}]}"


def judged(tmp_path: Path, text: str) -> PolicyEngine:
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(PODS))
    (tmp_path / "policy.yaml").write_text(text)
    return PolicyEngine(load_manifests([str(tmp_path / "pods.yaml"), str(tmp_path / "policy.yaml")]))


def into(engine: PolicyEngine, target: str) -> str:
    source = "web/w" if target != "web/w" else "default/d"
    return engine.verdict(PolicyFlow(end(source), end(target), "TCP", 80)).value


@pytest.mark.parametrize(
    ("text", "name", "reason"),
    [
        (f"kind: NetworkPolicy\n{NAMED}\n{CLOSED}", "NetworkPolicy ai/p", "the apiVersion is missing"),
        (f"apiVersion: ''\nkind: NetworkPolicy\n{NAMED}\n{CLOSED}", "NetworkPolicy ai/p", "the apiVersion is missing"),
        (
            f"apiVersion: 1\nkind: NetworkPolicy\n{NAMED}\n{CLOSED}",
            "NetworkPolicy ai/p",
            "the apiVersion is 1, and not",
        ),
        (f"apiVersion: [a]\nkind: NetworkPolicy\n{NAMED}\n{CLOSED}", "NetworkPolicy ai/p", "the apiVersion is ['a']"),
        (f"apiVersion: networking.k8s.io/v1\n{NAMED}\n{CLOSED}", "policy ai/p", "the kind is missing"),
        (f"apiVersion: networking.k8s.io/v1\nkind: 7\n{NAMED}\n{CLOSED}", "policy ai/p", "the kind is 7"),
        (f"apiVersion: networking.k8s.io/v1\nkind: [Pod]\n{NAMED}\n{CLOSED}", "policy ai/p", "the kind is ['Pod']"),
        (
            f"apiVersion: networking.k8s.io/v1\nkind: {{a: b}}\n{NAMED}\n{CLOSED}",
            "policy ai/p",
            "the kind is {'a': 'b'}",
        ),
        (
            f"apiVersion: networking.k8s.io/v1\nKind: NetworkPolicy\n{NAMED}\n{CLOSED}",
            "policy ai/p",
            "the kind is missing",
        ),
        (f"{NAMED}\n{CLOSED}", "policy ai/p", "the apiVersion is missing"),
        (f"kind: CiliumNetworkPolicy\n{NAMED}\n{CILIUM}", "CiliumNetworkPolicy ai/p", "is of cilium.io/v2"),
        (f"apiVersion: cilium.io/v2\n{NAMED}\n{CILIUM}", "policy ai/p", "the kind is missing"),
        (f"kind: NetworkPolicy\n{NAMED}\n{CALICO}", "NetworkPolicy ai/p", "is of projectcalico.org/v3"),
        (f"apiVersion: projectcalico.org/v3\n{NAMED}\n{CALICO}", "policy ai/p", "the kind is missing"),
        (f"kind: FQDNNetworkPolicy\n{NAMED}\n{CLOSED}", "FQDNNetworkPolicy ai/p", "the apiVersion is missing"),
        (f"kind: EgressPolicy\n{NAMED}\nspec: {{rules: []}}", "EgressPolicy ai/p", "the apiVersion is missing"),
        (
            f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: ai}}\n{CLOSED}",
            "NetworkPolicy ai/(without a name)",
            "the name is missing",
        ),
        (
            f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: 5, namespace: ai}}\n{CLOSED}",
            "NetworkPolicy ai/5",
            "the name is 5, and not a text",
        ),
        (
            f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetdata: {{name: p, namespace: ai}}\n{CLOSED}",
            "NetworkPolicy ai/p",
            "there is no field metdata here: did you mean metadata?",
        ),
        (
            f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\nitems: {{p: {{{NAMED}, {CLOSED}}}}}",
            "NetworkPolicy ai/p",
            "",
        ),
    ],
)
def test_a_policy_without_a_readable_head_is_named_and_the_verdict_unknown(
    tmp_path: Path, text: str, name: str, reason: str
) -> None:
    e = judged(tmp_path, text)
    if not reason:
        assert into(e, INTO_AI) == "deny"  # the list is refused, and what it holds is read
        return
    (one,) = e.unevaluated
    assert (str(one.ref), one.source.endswith("policy.yaml, document 1")) == (name, True)
    assert reason in one.reason
    assert one.refused_by is (RefusedBy.API if "metdata" in reason else RefusedBy.CLIENT)
    assert "kubectl refuses the file" in one.reason or "metdata" in reason
    assert into(e, INTO_AI) == "unknown"
    assert into(e, INTO_WEB) == "allow"


def test_without_a_namespace_it_is_one_of_the_default_namespace(tmp_path: Path) -> None:
    e = judged(tmp_path, f"kind: NetworkPolicy\nmetadata: {{name: p}}\n{CLOSED}")
    assert [into(e, target) for target in (INTO_DEFAULT, INTO_AI)] == ["unknown", "allow"]


def test_two_policies_without_names_are_two(tmp_path: Path) -> None:
    one = f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{namespace: NS}}\n{CLOSED}\n"
    e = judged(tmp_path, one.replace("NS", "ai") + "---\n" + one.replace("NS", "web"))
    assert [into(e, target) for target in (INTO_AI, INTO_WEB)] == ["unknown", "unknown"]


def test_a_namespace_that_is_no_text_is_read_as_what_it_must_mean_or_as_any(tmp_path: Path) -> None:
    policy = f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: NS}}\n{CLOSED}"
    e = judged(tmp_path, policy.replace("NS", "12"))
    assert "the namespace is 12, and not a text" in e.unevaluated[0].reason
    assert into(e, INTO_AI) == "allow"
    assert into(judged(tmp_path, policy.replace("NS", "{a: b}")), INTO_AI) == "unknown"


def test_what_may_be_of_the_whole_cluster_is_unknown_in_every_namespace(tmp_path: Path) -> None:
    e = judged(tmp_path, f"apiVersion: example.org/v1\nkind: EgressPolicy\nmetadata: {{name: p}}\n{CLOSED}")
    assert [into(e, target) for target in (INTO_DEFAULT, INTO_AI)] == ["unknown", "unknown"]


@pytest.mark.parametrize(
    "text",
    [
        "kind: Deployment\nmetadata: {name: w}\nspec: {selector: {matchLabels: {app: x}}}",
        "metadata: {name: w}\nspec: {selector: {app: x}, ports: [{port: 80}]}",
        "kind: PodDisruptionBudget\nmetadata: {name: w}\nspec: {selector: {matchLabels: {app: x}}}",
        "kind: ValidatingAdmissionPolicy\nmetadata: {name: w}\nspec: {matchConstraints: {}}",
        "spec: {replicas: 3}\npodSelector: {}",
    ],
)
def test_what_is_no_policy_is_left_out_as_before(tmp_path: Path, text: str) -> None:
    e = judged(tmp_path, text)
    assert e.unevaluated == ()
    assert len(e.snapshot.notes) == 1 and "not a Kubernetes object" in e.snapshot.notes[0]
    assert into(e, INTO_AI) == "allow"


BROKEN = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p\n"


@pytest.mark.parametrize(
    "kustomization",
    ["resources: [pods.yaml, policy.yaml]", "resources: [pods.yaml, policy.yaml]\npatches: 5\nimages: 7"],
    ids=["a file that is no YAML", "a kustomization that can't be built"],
)
def test_policies_of_a_kustomization_that_can_not_be_read_are_not_taken_for_none(
    tmp_path: Path, kustomization: str
) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(PODS))
    for name, text in (("kustomization", kustomization), ("pods", yaml.safe_dump_all(PODS)), ("policy", BROKEN)):
        (tmp_path / "app" / f"{name}.yaml").write_text(text)
    e = PolicyEngine(load_manifests([str(tmp_path)]))
    assert "NetworkPolicy objects could not be read" in e.unevaluated[0].reason
    assert into(e, INTO_AI) == "unknown"


def test_items_of_a_typed_list_in_a_kustomization_are_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [pods.yaml, policies.yaml]")
    (tmp_path / "pods.yaml").write_text(yaml.safe_dump_all(PODS))
    items = f"items: [{{{NAMED}, {CLOSED}}}]"
    (tmp_path / "policies.yaml").write_text(f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicyList\n{items}")
    e = PolicyEngine(load_manifests([str(tmp_path)]))
    assert e.unevaluated == ()
    assert into(e, INTO_AI) == "deny"
