"""Absence is a fault where the source is complete; elsewhere it is not checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.check import Check
from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import cluster_of, findings, unchecked

APP = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: model, namespace: shop}
spec:
  template:
    metadata: {labels: {app: model}}
    spec: {containers: [{name: m, image: "vllm/vllm-openai:v0.9.2", ports: [{containerPort: 8000}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: model, namespace: shop}
spec: {selector: {app: model}, ports: [{port: 80, targetPort: 8000}]}
"""
NODE = """
---
apiVersion: v1
kind: Node
metadata: {name: n1}
"""
CALICO = """
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: calico-node, namespace: kube-system}
spec: {template: {spec: {containers: [{name: calico-node, image: "calico/node:v3.29.0"}]}}}
"""
INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: shop}
spec:
  ingressClassName: nginx
  tls: [{hosts: [shop.test], secretName: shop-tls}]
  rules:
  - host: shop.test
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: BACKEND, port: {number: 80}}}}]}
"""
ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: shop, namespace: shop}
spec:
  parentRefs: [{name: shared, namespace: infra}]
  rules: [{backendRefs: [{name: model, namespace: NS, port: 80}]}]
"""
FOREIGN = """
---
apiVersion: v1
kind: Service
metadata: {name: model, namespace: models}
spec: {selector: {app: model}, ports: [{port: 80}]}
"""


@pytest.mark.parametrize(
    ("check", "more"),
    [
        ("ingress-backend", INGRESS.replace("BACKEND", "elsewhere")),
        ("ingress-controller", INGRESS.replace("BACKEND", "model")),
        ("ingress-tls", INGRESS.replace("BACKEND", "model")),
        ("route-accepted", ROUTE.replace("NS", "shop")),
        ("route-backend", ROUTE.replace("NS", "models")),
        ("kube-proxy-ready", CALICO),
    ],
)
def test_what_a_part_of_a_cluster_lacks_may_be_elsewhere(check: str, more: str) -> None:
    assert findings(APP + more, check) == []
    assert unchecked(APP + more, check)
    if check != "kube-proxy-ready":
        assert len(findings(APP + more, check, complete=True)) == 1


def test_a_backend_with_a_slip_of_the_pen_is_found_anywhere() -> None:
    text = APP + INGRESS.replace("BACKEND", "modle")
    assert [f.evidence[0].value for f in findings(text, "ingress-backend")] == ["modle"]


def test_nodes_show_that_manifests_are_a_dump_of_a_cluster() -> None:
    assert len(findings(APP + CALICO + NODE, "kube-proxy-ready")) == 1
    cluster = cluster_of(APP + NODE)
    assert cluster.partial("NetworkPolicy") == ""
    assert cluster.partial("Service") == ""
    assert cluster.partial("Secret") == "the manifests hold no Secret"  # nobody dumps them


def test_a_node_in_a_file_of_its_own_makes_no_dump_of_a_repository(tmp_path: Path) -> None:
    (tmp_path / "node.yaml").write_text(NODE.lstrip("-\n"))
    (tmp_path / "app.yaml").write_text(APP.lstrip("-\n"))
    cluster = Cluster(load_manifests([str(tmp_path)]))
    assert cluster.nodes
    assert "not known to be the whole cluster" in cluster.partial("Service")
    scheduled = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop}\nspec: {nodeName: n1, containers: []}\n"
    )
    (tmp_path / "pod.yaml").write_text(scheduled)
    assert Cluster(load_manifests([str(tmp_path)])).partial("NetworkPolicy", "shop")


@pytest.mark.parametrize(
    ("ran", "absent"),
    [("", False), ("status: {phase: Running, podIP: 10.0.0.9}", True)],
)
def test_a_pod_that_people_pin_to_a_node_shows_no_namespace_whole(ran: str, absent: bool) -> None:
    pod = (
        "---\napiVersion: v1\nkind: Pod\nmetadata: {name: wipe, namespace: shop}\n"
        "spec: {nodeName: n1, containers: [{name: c, image: 'busybox:1'}]}\n"
    )
    route = (
        "---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: logs, namespace: shop}\n"
        "spec: {rules: [{backendRefs: [{name: logs-server, port: 80}]}]}\n"
    )
    text = APP + pod + ran + "\n" + route
    assert bool(findings(text, "route-backend")) is absent
    assert ("Service shop/logs-server is not here" in unchecked(text, "route-backend")) is not absent


@pytest.mark.parametrize(
    "node",
    [
        "spec: {providerID: 'k3s://n1'}",
        "status: {nodeInfo: {kubeletVersion: v1.33.1+k3s1}}",
    ],
)
def test_kube_proxy_may_run_inside_the_distributions_own_process(node: str) -> None:
    assert findings(APP + CALICO + NODE + node, "kube-proxy-ready") == []


def test_calicos_ebpf_data_plane_does_kube_proxys_work() -> None:
    for kind, spec in (
        ("crd.projectcalico.org/v1\nkind: FelixConfiguration", "{bpfEnabled: true}"),
        ("operator.tigera.io/v1\nkind: Installation", "{calicoNetwork: {linuxDataplane: BPF}}"),
    ):
        more = f"---\napiVersion: {kind}\nmetadata: {{name: default}}\nspec: {spec}\n"
        assert findings(APP + CALICO + NODE + more, "kube-proxy-ready") == []


def test_a_route_into_another_namespace_that_is_there_needs_its_grant_there() -> None:
    text = APP + ROUTE.replace("NS", "models")
    assert findings(text, "reference-grant") == []
    found = findings(text + FOREIGN, "reference-grant")
    assert [(str(f.object), f.severity.value) for f in found] == [("HTTPRoute shop/shop", "warning")]
    assert findings(text + FOREIGN, "reference-grant", complete=True)[0].severity.value == "error"


def target_port() -> Check:
    return next(c for c in all_checks() if c.name == "service-target-port")


def service_of(place: str) -> str:
    spec = "{selector: {app: web}, ports: [{port: 80, targetPort: wrong}]}"
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: web{place}}}\nspec: {spec}\n"


def pods_of(place: str) -> str:
    container = "{name: c, image: acme/web, ports: [{name: right, containerPort: 80}]}"
    pod = f"{{metadata: {{labels: {{app: web}}}}, spec: {{containers: [{container}]}}}}"
    spec = f"{{selector: {{matchLabels: {{app: web}}}}, template: {pod}}}"
    return f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web{place}}}\nspec: {spec}\n"


PODS = {"pods/kustomization.yaml": "resources: [pods.yaml]\n"}
BUILT = {**PODS, "k8s/kustomization.yaml": "resources: [service.yaml, ../pods]\n"}
APART = {**PODS, "k8s/kustomization.yaml": "resources: [service.yaml]\n"}


@pytest.mark.parametrize(
    ("service", "pods", "more", "severity"),
    [
        ("all.yaml", "all.yaml", {}, Severity.ERROR),
        ("k8s/service.yaml", "k8s/pods.yaml", {}, Severity.ERROR),
        ("k8s/service.yaml", "pods/pods.yaml", BUILT, Severity.ERROR),
        ("k8s/service.yaml", "pods/pods.yaml", {}, Severity.INFO),
        ("k8s/services/service.yaml", "k8s/pods/pods.yaml", {}, Severity.INFO),
        ("docs/service.yaml", "k8s/pods.yaml", {}, Severity.INFO),
        ("examples/service.yaml", "examples/pods.yaml", {}, Severity.INFO),
        ("k8s/service.yaml", "pods/pods.yaml", APART, Severity.INFO),
    ],
    ids=["file", "folder", "kustomization", "folders", "siblings", "docs", "examples", "kustomizations"],
)
@pytest.mark.parametrize("place", ["", ", namespace: ml"])
def test_what_one_file_kustomization_or_folder_holds_is_applied_together(
    tmp_path: Path, service: str, pods: str, more: dict[str, str], severity: Severity, place: str
) -> None:
    texts: dict[str, str] = {}
    for name, text in ((service, service_of(place)), (pods, pods_of(place)), *more.items()):
        texts[name] = f"{texts[name]}---\n{text}" if name in texts else text
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for complete, expected in ((False, severity), (True, Severity.ERROR)):
        snapshot = load_manifests([str(tmp_path)])
        (found,) = examine(Cluster(snapshot, complete=complete), [target_port()]).findings
        assert found.severity is expected
        assert ("nothing says that" in found.detail) is (expected is Severity.INFO)


def test_files_that_the_user_names_are_applied_together(tmp_path: Path) -> None:
    for name, text in (("one/service.yaml", service_of("")), ("examples/pods.yaml", pods_of(""))):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    files = [str(tmp_path / "one/service.yaml"), str(tmp_path / "examples/pods.yaml")]
    for given, severity in ((files, Severity.ERROR), ([str(tmp_path)], Severity.INFO)):
        (found,) = examine(Cluster(load_manifests(given)), [target_port()]).findings
        assert found.severity is severity


def test_a_folder_of_examples_that_the_user_names_is_applied(tmp_path: Path) -> None:
    folder = tmp_path / "examples"
    folder.mkdir()
    (folder / "service.yaml").write_text(service_of(""))
    (folder / "pods.yaml").write_text(pods_of(""))
    for given, severity in ((folder, Severity.ERROR), (tmp_path, Severity.INFO)):
        (found,) = examine(Cluster(load_manifests([str(given)])), [target_port()]).findings
        assert found.severity is severity


def test_a_service_leads_to_the_pods_that_are_applied_with_it(tmp_path: Path) -> None:
    for name, text in (
        ("a", service_of("") + "---\n" + pods_of("")),
        ("b", pods_of("").replace("name: web", "name: other")),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "all.yaml").write_text(text)
    cluster = Cluster(load_manifests([str(tmp_path)]))
    assert [w.name for w in cluster.workloads_of(cluster.services[0])] == ["web"]
    (tmp_path / "a" / "more.yaml").write_text(pods_of("").replace("name: web", "name: more"))
    cluster = Cluster(load_manifests([str(tmp_path)]))
    assert sorted(w.name for w in cluster.workloads_of(cluster.services[0])) == ["more", "web"]
    assert len(Cluster(load_manifests([str(tmp_path)]), complete=True).selected("default", {"app": "web"})) == 3


def test_one_object_in_two_environments_is_not_held_against_itself(tmp_path: Path) -> None:
    spec = "{type: NodePort, ports: [{port: 80, nodePort: 30080}]}"
    takes = f"apiVersion: v1\nkind: Service\nmetadata: {{name: NAME, namespace: SPACE}}\nspec: {spec}\n"
    for (one, other), findings_ in (
        ((("api-dev", "ml"), ("api-prod", "ml")), 0),
        ((("api", "dev"), ("api", "prod")), 0),
        ((("api", "ml"), ("web", "ml")), 1),
    ):
        text = "---\n".join(takes.replace("NAME", n).replace("SPACE", s) for n, s in (one, other))
        (tmp_path / "all.yaml").write_text(text)
        report = examine(
            Cluster(load_manifests([str(tmp_path)])), [c for c in all_checks() if c.name == "node-port-twice"]
        )
        assert len(report.findings) == findings_
        assert bool(report.not_checked) is (findings_ == 0)


ENI = """
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: aws-node, namespace: kube-system, uid: u-a}
spec:
  template:
    spec:
      containers:
      - name: aws-node
        image: registry.test/amazon-k8s-cni:v1.19.2
        env: [{name: AWS_VPC_K8S_CNI_CUSTOM_NETWORK_CFG, value: "true"}, {name: ENI_CONFIG_LABEL_DEF, value: zone}]
---
apiVersion: v1
kind: Node
metadata: {name: n1, uid: u-n, labels: {zone: eu-west-1a}}
spec: {providerID: "aws:///eu-west-1a/i-1"}
"""
SECONDARY = APP.replace("metadata: {labels: {app: model}}", "metadata: {labels: {app: model}, annotations: {NETWORKS}}")


@pytest.mark.parametrize(
    ("check", "text", "there"),
    [
        (
            "eniconfig",
            APP + ENI,
            "\n---\napiVersion: crd.k8s.amazonaws.com/v1alpha1\nkind: ENIConfig\nmetadata: {name: eu-west-1a}\n",
        ),
        (
            "sriov-network",
            SECONDARY.replace("NETWORKS", "k8s.v1.cni.cncf.io/networks: rail0"),
            "\n---\napiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: rail0, namespace: shop}",
        ),
        (
            "reference-grant",
            APP + ROUTE.replace("NS", "models") + FOREIGN,
            "\n---\napiVersion: gateway.networking.k8s.io/v1beta1\nkind: ReferenceGrant\n"
            "metadata: {name: g, namespace: models}\nspec: {from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, "
            'namespace: shop}], to: [{group: "", kind: Service}]}\n',
        ),
        (
            "policy-none",
            APP,
            "\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: shop}\n"
            "spec: {podSelector: {}}\n",
        ),
    ],
)
def test_of_a_whole_cluster_it_is_seen_that_there_is_no_object_of_a_kind_at_all(
    check: str, text: str, there: str
) -> None:
    assert len(findings(text, check, complete=True)) == 1
    assert findings(text + there, check, complete=True) == []
