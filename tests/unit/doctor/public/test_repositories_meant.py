"""What public repositories mean as they wrote it: rules for several servers, pods closed off, variants of one Ingress."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.manifests import load_manifests
from tests.unit.doctor.worlds.manifests import findings, unchecked


def deployment(
    name: str, container: str = "image: 'registry.test/app:1'", kind: str = "Deployment", more: str = ""
) -> str:
    return f"""
---
apiVersion: apps/v1
kind: {kind}
metadata: {{name: {name}, namespace: ml}}
spec:
  {more}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}, tier: {name[:2]}}}}}
    spec: {{containers: [{{name: c, {container}}}]}}
"""


def policy(name: str, selector: str, rules: str) -> str:
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: ml}}
spec: {{podSelector: {selector}, {rules}}}
"""


def egress(rules: str, selector: str = "{matchLabels: {app: chat}}") -> str:
    return policy("chat-egress", selector, f"policyTypes: [Egress], egress: {rules}")


PORT = "image: 'registry.test/db:1', ports: [{containerPort: 5432}]"
STORES = (
    deployment("chat")
    + deployment("db-one", PORT)
    + deployment("db-two", PORT)
    + policy(
        "stores",
        "{matchLabels: {tier: db}}",
        "ingress: [{from: [{podSelector: {matchLabels: {app: chat}}}], ports: [{port: 5432}]}]",
    )
)
TO = "[{{to: [{{podSelector: {{matchLabels: {{app: {}}}}}}}], ports: [{{port: 5432}}]}}]"


@pytest.mark.parametrize(("reached", "found"), [("db-one", 0), ("cache", 1)])
def test_a_rule_for_several_servers_is_served_by_the_one_that_the_client_reaches(reached: str, found: int) -> None:
    assert len(findings(STORES + egress(TO.format(reached)), "policy-one-sided")) == found


def test_a_rule_that_no_egress_serves_is_told_once_for_all_its_servers() -> None:
    (finding,) = findings(STORES + egress("[{ports: [{port: 53, protocol: UDP}]}]"), "policy-one-sided")
    assert str(finding.object) == "Deployment ml/chat"
    assert "Deployment ml/db-one" in finding.title


CALLS = "image: 'registry.test/app:1', env: [{name: API, value: 'https://api.openai.com'}]"


@pytest.mark.parametrize(
    ("selector", "container", "found"),
    [
        ("{matchLabels: {app: chat}}", "image: 'registry.test/app:1'", 0),
        ("{matchLabels: {app: chat}}", CALLS, 1),
        ("{}", "image: 'registry.test/app:1'", 1),  # a baseline for all, to which rules were to be added
    ],
)
def test_a_policy_that_shuts_in_the_very_pods_that_it_names_is_meant(selector: str, container: str, found: int) -> None:
    assert len(findings(deployment("chat", container) + egress("[]", selector), "egress-without-dns")) == found


def test_all_that_one_policy_cuts_off_from_dns_are_named_together() -> None:
    objects = deployment("chat", CALLS) + deployment("embed", CALLS) + egress("[]", "{}")
    (finding,) = findings(objects, "egress-without-dns")
    assert finding.object is not None
    assert {finding.object.name, finding.title.rpartition(" ")[2]} == {"chat", "embed"}
    assert "; nor may Deployment " in finding.title


@pytest.mark.parametrize(("peer", "found"), [("{podSelector: {}}", 1), ("{namespaceSelector: {}}", 0)])
def test_a_rule_for_dns_that_ends_at_the_namespace_reaches_no_dns(peer: str, found: int) -> None:
    rule = f"[{{to: [{peer}], ports: [{{port: 53, protocol: UDP}}]}}]"
    assert len(findings(deployment("chat", CALLS) + egress(rule), "egress-without-dns")) == found


@pytest.mark.parametrize(("replicas", "found"), [(1, 0), (2, 1)])
def test_a_single_pod_has_no_peer_that_looks_it_up(replicas: int, found: int) -> None:
    alone = deployment("controller", kind="StatefulSet", more=f"serviceName: controller\n  replicas: {replicas}")
    assert len(findings(alone, "headless-missing", complete=True)) == found


VIRTUAL = """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge NAMESPACE}
spec: {servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: chat, namespace: ml}
spec: {hosts: [chat.example.com], gateways: [edge], http: []}
"""


def test_a_gateway_whose_manifest_names_no_namespace_may_be_in_the_one_that_is_asked() -> None:
    assert findings(VIRTUAL.replace(" NAMESPACE", ""), "virtual-service-gateway") == []
    assert "is not here" in unchecked(VIRTUAL.replace(" NAMESPACE", ""), "virtual-service-gateway")
    (finding,) = findings(VIRTUAL.replace(" NAMESPACE", ", namespace: edge"), "virtual-service-gateway")
    assert "but one in edge" in finding.evidence[0].statement


INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: chat, namespace: ml}
spec:
  rules:
  - host: chat.example.com
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: chat, port: {number: 80}}}}]}
"""
OVERLAY = """
resources: [../../base]
namePrefix: {}-
"""


def conflicts(root: Path) -> list[str]:
    report = examine(Cluster(load_manifests([str(root)])), all_checks())
    return [f.title for f in report.findings if f.check == "ingress-path-conflict"]


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_two_builds_of_one_ingress_are_variants_for_two_environments(tmp_path: Path) -> None:
    write(tmp_path / "base/ingress.yaml", INGRESS)
    write(
        tmp_path / "base/service.yaml",
        "apiVersion: v1\nkind: Service\nmetadata: {name: chat}\nspec: {ports: [{port: 80}]}\n",
    )
    write(tmp_path / "base/kustomization.yaml", "resources: [ingress.yaml, service.yaml]\n")
    for name in ("staging", "prod"):
        write(tmp_path / f"overlays/{name}/kustomization.yaml", OVERLAY.format(name))
    assert conflicts(tmp_path) == []
    write(
        tmp_path / "base/other.yaml",
        INGRESS.replace("name: chat,", "name: other,").replace("{name: chat, port", "{name: ui, port"),
    )
    write(tmp_path / "base/kustomization.yaml", "resources: [ingress.yaml, other.yaml, service.yaml]\n")
    assert len(conflicts(tmp_path)) == 1


@pytest.mark.parametrize(("port", "found"), [(80, 1), (8080, 0)])
def test_an_egress_rule_names_the_port_that_the_pods_listen_on(port: int, found: int) -> None:
    text = (
        deployment("chat")
        + deployment("db-one", "image: 'registry.test/db:1', ports: [{containerPort: 8080}]")
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: ml}\n"
        "spec: {selector: {app: db-one}, ports: [{port: 80, targetPort: 8080}]}\n"
        + egress(TO.format("db-one").replace("5432", str(port)))
    )
    told = findings(text, "policy-service-port")
    assert len(told) == found
    assert all(f.remedy is not None and f.remedy.trial.startswith("tried: ") for f in told)


@pytest.mark.parametrize("name", ["dns:///db:9000", "passthrough:///db:9000"])
def test_a_grpc_name_is_a_call_whatever_resolver_it_asks(name: str) -> None:
    text = (
        deployment("chat", f"image: 'registry.test/app:1', env: [{{name: DB, value: '{name}'}}]")
        + "---\napiVersion: v1\nkind: Service\nmetadata: {name: db, namespace: ml}\nspec: {ports: [{port: 9001}]}\n"
    )
    (finding,) = findings(text, "call-port")
    assert "port 9000 of Service ml/db" in finding.title


WEB = (
    deployment("web", "image: 'registry.test/web:1', ports: [{containerPort: 8080}]")
    + deployment("db-one", PORT)
    + "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: ml}\n"
    "spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n"
)
ADMITS = "ingress: [{from: [PEER], ports: [{port: NUMBER}]}]"


def ingress(name: str, selector: str, peer: str, number: int) -> str:
    return policy(name, selector, ADMITS.replace("PEER", peer).replace("NUMBER", str(number)))


CLIENT, OTHER = "{podSelector: {matchLabels: {app: db-one}}}", "{podSelector: {matchLabels: {app: web}}}"
ONE = "{matchLabels: {app: web}}"


@pytest.mark.parametrize(
    ("policies", "found"),
    [
        (ingress("np", ONE, CLIENT, 80), 1),
        (ingress("np", "{}", CLIENT, 80), 0),  # a pod that is not here may listen on 80
        (ingress("np", ONE, CLIENT, 80) + ingress("more", "{}", CLIENT, 8080), 0),
        (ingress("np", ONE, CLIENT, 80) + ingress("more", ONE, "{ipBlock: {cidr: 10.0.0.0/8}}", 8080), 0),
        (ingress("np", ONE, CLIENT, 80) + ingress("more", ONE, OTHER, 8080), 1),  # for another client
        (ingress("np", ONE, CLIENT, 80) + ingress("more", "{matchLabels: {app: db-one}}", CLIENT, 8080), 1),
    ],
)
def test_a_services_port_in_a_policy_is_a_fault_where_nothing_else_can_be_meant(policies: str, found: int) -> None:
    assert len(findings(WEB + policies, "policy-service-port")) == found


def test_a_port_for_all_pods_is_judged_where_all_pods_are_known() -> None:
    everywhere = WEB + ingress("np", "{}", CLIENT, 80)
    assert len(findings(everywhere, "policy-service-port", complete=True)) == 1
    assert "pods that are not here may listen on port 80" in unchecked(everywhere, "policy-service-port")
    listens = deployment("proxy", "image: 'registry.test/p:1', ports: [{containerPort: 80}]")
    assert findings(everywhere + listens, "policy-service-port", complete=True) == []
