"""A patch says where the policy that it edits comes from, and keeps away from what the next release writes again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from kubectl_genainet.cli import cli
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.policy import PolicyFlow, pod_endpoint
from kubectl_genainet.policy.patches.origin import keeper_of
from kubectl_genainet.policy.patches.patch import patch, patch_all
from tests.unit.policy.policy_cluster import Raw, engine, labels, namespace, netpol, pod

PODS = (namespace("ai"), pod("ai/rag", "10.1.0.2"), pod("ai/llama", "10.1.0.3"))
FLOW = PolicyFlow(pod_endpoint("ai", "rag"), pod_endpoint("ai", "llama"), "TCP", 8080)
HELM = {"annotations": {"meta.helm.sh/release-name": "llm", "meta.helm.sh/release-namespace": "ai"}}


def closed(**metadata: Any) -> Raw:
    policy = netpol("ai/closed", podSelector=labels(app="llama"), policyTypes=["Ingress"])
    return {**policy, "metadata": {**policy["metadata"], **metadata}}


@pytest.mark.parametrize(
    ("metadata", "keeper"),
    [
        ({}, ""),
        (HELM, "Helm release llm"),
        ({"labels": {"app.kubernetes.io/managed-by": "Helm"}}, "Helm"),
        ({"labels": {"app.kubernetes.io/managed-by": "kubectl"}}, ""),
        ({"labels": {"app.kubernetes.io/managed-by": "kustomize-v5.7.1"}}, "Kustomize"),
        ({"annotations": {"config.kubernetes.io/origin": "path: base/np.yaml\n"}}, "Kustomize, from base/np.yaml"),
        (
            {
                "annotations": {
                    "config.kubernetes.io/origin": "path: np.yaml\nrepo: https://example.org/net\nref: v2\n"
                },
                "labels": {"app.kubernetes.io/managed-by": "kustomize-v5.7.1"},
            },
            "Kustomize, from np.yaml of https://example.org/net at v2",
        ),
        (
            {"annotations": {"config.kubernetes.io/origin": "configuredIn: gen.yaml\nconfiguredBy:\n  kind: Gen\n"}},
            "Kustomize, from gen.yaml",
        ),
        (
            {**HELM, "annotations": {"argocd.argoproj.io/tracking-id": "shop:apps/Deployment:ai/x"}},
            "Argo CD application shop",
        ),
        (
            {
                "labels": {
                    "kustomize.toolkit.fluxcd.io/name": "apps",
                    "kustomize.toolkit.fluxcd.io/namespace": "flux-system",
                }
            },
            "Flux Kustomization flux-system/apps",
        ),
        ({"labels": {"helm.toolkit.fluxcd.io/name": "llm"}}, "Flux HelmRelease llm"),
        ({"annotations": {**HELM["annotations"], "meta.helm.sh/release-namespace": "ops"}}, "Helm release ops/llm"),
        ({"labels": {"generate.kyverno.io/policy-name": "isolate"}}, "Kyverno policy isolate"),
        (
            {"labels": {"hnc.x-k8s.io/inherited-from": "parent"}},
            "Hierarchical Namespace Controller, which copies it from namespace parent",
        ),
        ({"annotations": {"objectset.rio.cattle.io/owner-name": "traefik"}}, "Addon traefik"),
        ({"labels": {"olm.owner": "etcd.v1"}}, "Operator Lifecycle Manager, for etcd.v1"),
        ({"annotations": {"config.k8s.io/owning-inventory": "ops-7"}}, "inventory ops-7"),
        ({"labels": {"kapp.k14s.io/app": "1603"}}, "kapp"),
        ({"annotations": {"configmanagement.gke.io/managed": "enabled"}}, "Config Sync"),
        ({"annotations": {"configmanagement.gke.io/managed": "disabled"}}, ""),
        ({"labels": {"addonmanager.kubernetes.io/mode": "Reconcile"}}, "the addon manager"),
        ({"labels": {"addonmanager.kubernetes.io/mode": "EnsureExists"}}, ""),
        ({"ownerReferences": [{"kind": "Tenant", "name": "ai", "controller": True}]}, "Tenant ai"),
        ({"ownerReferences": [{"kind": "Tenant", "name": "ai"}]}, ""),
    ],
)
def test_what_writes_a_policy_again_is_read_from_its_metadata(metadata: dict[str, Any], keeper: str) -> None:
    assert keeper_of(KubeObject(closed(**metadata))) == keeper


def test_of_two_patches_that_admit_the_same_the_one_that_lasts_is_chosen() -> None:
    by_hand = patch(engine(*PODS, closed()), FLOW)
    kept = patch(engine(*PODS, closed(**HELM)), FLOW)
    assert by_hand is not None and kept is not None
    assert [change.is_new for change in by_hand.smallest.changes] == [False]
    assert [change.is_new for change in kept.smallest.changes] == [True]
    assert kept.edit is not None
    assert [change.keeper for change in kept.edit.changes] == ["Helm release llm"]


def test_a_patch_for_several_flows_names_the_files_of_what_it_edits() -> None:
    option = patch_all(engine(*PODS, closed()), [FLOW])
    assert option is not None
    assert [(change.ref.name, change.file) for change in option.changes] == [("closed", "test.yaml")]


def test_explain_says_where_to_make_the_change(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "all.yaml").write_text(yaml.safe_dump_all([*PODS, closed(**HELM)]))
    (base / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    overlay = tmp_path / "overlay"
    overlay.mkdir()
    operations = "[{op: add, path: /spec/ingress, value: []}]"
    (overlay / "kustomization.yaml").write_text(
        f"resources: [../base]\npatches: [{{target: {{kind: NetworkPolicy}}, patch: '{operations}'}}]\n"
    )
    command = ["explain", "--manifests", str(overlay), "pod/ai/rag", "pod/ai/llama:8080"]
    answer = json.loads(CliRunner().invoke(cli, [*command, "-o", "json"]).stdout)
    (change,) = answer["patch"]["edit"]["changes"]
    assert change["kept_by"] == "Helm release llm"
    assert change["file"] == f"{base / 'all.yaml'}, document 4, patched in {overlay}"
    text = CliRunner().invoke(cli, command).stdout
    assert "is kept by Helm release llm: make the change there, or the next release undoes it." in text
    assert f"It was read from {base / 'all.yaml'}, document 4, patched in {overlay}." in text


def test_a_kustomization_with_the_label_of_its_builder_is_answered_as_one_without(tmp_path: Path) -> None:
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all([*PODS, closed()]))
    answers = []
    for more in ("", "buildMetadata: [managedByLabel, originAnnotations, transformerAnnotations]\n"):
        (tmp_path / "kustomization.yaml").write_text(f"resources: [all.yaml]\n{more}")
        command = ["explain", "--manifests", str(tmp_path), "pod/ai/rag", "pod/ai/llama:8080"]
        answers.append(CliRunner().invoke(cli, command).stdout)
    assert answers[0] == answers[1]
    assert f"NetworkPolicy ai/closed is in {tmp_path / 'all.yaml'}, document 4: make the change there." in answers[0]
    assert "managed-by" not in answers[0]
