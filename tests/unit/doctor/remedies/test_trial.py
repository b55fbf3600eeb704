"""Remedies are tried on a copy: what they change, what is then found, and which flows are closed."""

from __future__ import annotations

import msgspec
import pytest

from kubectl_genainet.doctor.changes import CannotApplyError, applied, changes_something
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.predicates.policy_text import adding
from kubectl_genainet.doctor.trial import tried
from kubectl_genainet.model.finding import Finding, ObjectRef, Remedy
from tests.unit.doctor.worlds.clusters import eks
from tests.unit.doctor.worlds.manifests import cluster_of, report_of
from tests.unit.doctor.worlds.policies import egress_policy
from tests.unit.doctor.worlds.world import NS, World


def after(remedy: Remedy, world: World | None = None) -> Cluster:
    return Cluster(applied((world or eks()).cluster().snapshot, remedy))


def found(world: World, check: str) -> Finding:
    return next(f for f in world.report().findings if f.check == check)


def trial(finding: Finding) -> str:
    assert finding.remedy is not None
    return finding.remedy.trial


def test_a_merge_patch_sets_and_takes_away() -> None:
    command = (
        """kubectl -n chatbot patch service rag-app --type=merge -p '{"spec":{"type":"NodePort","selector":null}}'"""
    )
    service = after(Remedy("", command)).services_by_key[(NS, "rag-app")]
    assert (service.spec.type, service.spec.selector) == ("NodePort", {})


def test_a_strategic_patch_joins_containers_by_name_and_reaches_the_pods() -> None:
    patch = '{"spec":{"template":{"spec":{"containers":[{"name":"rag","image":"registry.test/rag:3"}]}}}}'
    cluster = after(Remedy("", f"kubectl -n chatbot patch deployment/rag-app --type=strategic -p '{patch}'"))
    workload = next(w for w in cluster.workloads if w.name == "rag-app")
    assert workload.containers[0].image == "registry.test/rag:3"
    assert workload.containers[0].ports == [(80, "http", "TCP")]
    assert {c.image for p in workload.pods for c in p.pod.spec.containers} == {"registry.test/rag:3"}


def test_a_json_patch_names_the_place_in_a_custom_resource() -> None:
    text = """
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata: {name: t, namespace: lab}
spec:
  replicatedJobs:
  - name: w
    template: {spec: {template: {spec: {containers: [{name: c, image: "x:1"}]}}}}
"""
    path = "/spec/replicatedJobs/0/template/spec/template/spec/dnsPolicy"
    patch = f'[{{"op":"add","path":"{path}","value":"Default"}}]'
    command = f"kubectl -n lab patch jobset.jobset.x-k8s.io/t --type=json -p '{patch}'"
    changed = Cluster(applied(cluster_of(text).snapshot, Remedy("", command)))
    assert changed.workloads[0].template.spec["dnsPolicy"] == "Default"
    assert changed.workloads[0].pods[0].obj.raw["spec"]["dnsPolicy"] == "Default"


def test_variables_are_set_and_unset() -> None:
    command = "kubectl -n chatbot set env deployment/rag-app -c rag QDRANT_URL- EXTRA=1"
    workload = next(w for w in after(Remedy("", command)).workloads if w.name == "rag-app")
    assert "QDRANT_URL" not in workload.containers[0].env
    assert workload.containers[0].env["EXTRA"] == "1"


@pytest.mark.parametrize(
    "command",
    ["helm upgrade x y", "kubectl -n chatbot edit service rag-app", "kubectl -n chatbot annotate service gone a=b"],
)
def test_what_another_program_or_an_editor_does_is_not_tried(command: str) -> None:
    with pytest.raises(CannotApplyError):
        after(Remedy("", command))


def test_a_command_that_only_looks_changes_nothing() -> None:
    assert not changes_something(Remedy("", "kubectl -n chatbot describe pod x\nkubectl get ingressclass"))
    assert not changes_something(Remedy("Nothing to change."))
    assert changes_something(Remedy("", "kubectl -n chatbot get pods\nkubectl -n chatbot delete pod x"))


def test_the_report_says_that_a_remedy_heals() -> None:
    world = eks()
    world.get("Service", "chatbot-ui")["metadata"]["annotations"].popitem()
    assert trial(found(world, "nlb-idle-timeout")) == "tried: heals it and causes no other finding"


def test_dns_is_admitted_for_the_isolated_pods_and_no_other_becomes_isolated() -> None:
    world = eks()
    rule = {"to": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "qdrant"}}}]}
    world.add(egress_policy("rag-app-egress", "rag-app", rule))
    finding = found(world, "egress-without-dns")
    assert finding.remedy is not None
    assert "podSelector: {}" not in finding.remedy.yaml
    assert "app.kubernetes.io/name: rag-app" in finding.remedy.yaml
    assert trial(finding).startswith("tried: heals it")


def test_a_policy_for_an_open_workload_names_its_callers() -> None:
    world = eks()
    world.remove("NetworkPolicy", "qdrant-ingress-policy")
    finding = found(world, "policy-none")
    assert finding.remedy is not None
    assert "CALLER" not in finding.remedy.yaml
    assert "app.kubernetes.io/name: rag-app" in finding.remedy.yaml
    assert "port: 6333" in finding.remedy.yaml
    assert trial(finding) == "tried: heals it and causes no other finding"


UNKNOWN = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: llama, namespace: shop}
spec:
  template:
    metadata: {labels: {app: my-llama}}
    spec: {containers: [{name: m, image: "registry.test/finetuned:1", ports: [{containerPort: 8080}]}]}
"""


def test_no_path_is_made_up_for_a_server_that_is_not_known() -> None:
    finding = next(f for f in report_of(UNKNOWN).findings if f.check == "readiness-probe")
    assert finding.remedy is not None
    assert "/health" not in finding.remedy.text + finding.remedy.command


def test_a_remedy_may_open_the_flows_that_it_names_and_no_others() -> None:
    world = eks()
    world.get("NetworkPolicy", "my-llama-ingress-policy")["spec"]["ingress"][0]["ports"][0]["port"] = 80
    finding = found(world, "policy-service-port")
    assert trial(finding).startswith("tried: heals it")
    everyone = adding("Admit it.", {**ADMIT_ALL, "metadata": {"name": "all", "namespace": NS}})
    elsewhere = msgspec.structs.replace(
        finding, object=ObjectRef("Service", "other", NS), evidence=(), title="", remedy=everyone
    )
    (judged,) = tried(world.cluster(), [elsewhere], lambda _: [])
    assert judged.remedy is not None
    assert judged.remedy.trial.startswith("tried: it opens ") and not judged.remedy.yaml


ADMIT_ALL = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": [{}]},
}
