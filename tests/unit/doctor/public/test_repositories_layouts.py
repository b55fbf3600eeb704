"""What unseen repositories showed to be no fault: a program deployed in two ways, policies of another part, names of the mesh."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.public.test_repositories_apart import of, report
from tests.unit.doctor.worlds.manifests import deployment, findings
from tests.unit.doctor.worlds.manifests import service as services

LAYOUT = """
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {selector: SELECTOR, ports: [{name: a, port: PORT, targetPort: PORT}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME}
spec:
  selector: {matchLabels: LABELS}
  template:
    metadata: {labels: LABELS}
    spec: {containers: [{name: c, image: "IMAGE", args: [--rank, "NAME"], ports: [{containerPort: PORT}]}]}
"""


def layout(name: str, port: int, selector: str, labels: str, image: str = "acme/source:1") -> str:
    parts = {"NAME": name, "PORT": str(port), "SELECTOR": selector, "LABELS": labels, "IMAGE": image}
    text = LAYOUT
    for word, value in parts.items():
        text = text.replace(word, value)
    return text


WHOLE = layout("sources", 6556, "{app: sources}", "{app: sources}")
RANK = ("rank-0", 6555, "{app: sources, rank: '0'}", "{app: sources, rank: '0'}")


def test_one_program_that_two_files_deploy_is_deployed_in_one_way(tmp_path: Path) -> None:
    found, open_ = of(report(tmp_path, {"one.yaml": WHOLE, "two.yaml": layout(*RANK)}), "service-selects-others")
    assert found == 0
    assert "runs the same image" in open_


@pytest.mark.parametrize("together", [True, False])
def test_what_one_file_or_one_kustomization_deploys_is_deployed_together(tmp_path: Path, together: bool) -> None:
    files = {"one.yaml": f"{WHOLE}---{layout(*RANK)}"}
    if together:
        files = {
            "one.yaml": WHOLE,
            "two.yaml": layout(*RANK),
            "kustomization.yaml": "resources: [one.yaml, two.yaml]\n",
        }
    assert of(report(tmp_path, files), "service-selects-others")[0] == 1


def test_another_program_is_no_other_way(tmp_path: Path) -> None:
    files = {"one.yaml": WHOLE, "two.yaml": layout(*RANK, image="acme/other:1")}
    assert of(report(tmp_path, files), "service-selects-others")[0] == 1


POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec: {podSelector: SELECTED, policyTypes: [Egress], egress: [{ports: [{port: 443}]}]}
"""
APP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec: {containers: [{name: c, image: acme/app, env: [{name: OPENAI_BASE_URL, value: "https://api.openai.com/v1"}]}]}
"""
DNS = "egress-without-dns"


@pytest.mark.parametrize(
    ("selected", "policy", "app", "found"),
    [
        ("{}", "network/policies/deny.yaml", "apps/chat/app.yaml", Severity.INFO),
        ("{matchLabels: {app: app}}", "network/policies/deny.yaml", "apps/chat/app.yaml", Severity.INFO),
        ("{}", "policies/deny.yaml", "apps/chat/app.yaml", Severity.INFO),
        ("{}", "k8s/deny.yaml", "k8s/app.yaml", Severity.WARNING),
    ],
)
def test_a_policy_is_for_pods_that_are_applied_with_it(
    tmp_path: Path, selected: str, policy: str, app: str, found: Severity
) -> None:
    told = report(tmp_path, {policy: POLICY.replace("SELECTED", selected), app: APP})
    (finding,) = (f for f in told.findings if f.check == DNS)
    assert finding.severity is found
    assert ("nothing says that" in finding.detail) is (found is Severity.INFO)


ISTIO = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: ml}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*.acme.io"]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: ml}
spec: {hosts: HOSTS, gateways: [front], http: [{route: [{destination: {host: web}}]}]}
"""


@pytest.mark.parametrize(
    ("hosts", "found"),
    [("[www.acme.io, web]", 0), ("[www.acme.io, acme.io, web]", 1), ("[web]", 1), ("[www.acme.io, web.other.io]", 1)],
)
def test_the_name_of_a_service_beside_a_host_of_the_gateway_is_for_the_mesh(hosts: str, found: int) -> None:
    assert len(findings(ISTIO.replace("HOSTS", hosts), "virtual-service-gateway")) == found


STREAMLIT = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: ml}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {containers: [{name: c, image: "IMAGE", CONTAINER}]}
---
apiVersion: v1
kind: Service
metadata: {name: NAME, namespace: ml}
spec: {selector: {app: NAME}, ports: [{port: 8000}]}
"""
ROUTE = """
---
apiVersion: route.openshift.io/v1
kind: Route
metadata: {name: ui, namespace: ml}
spec: {to: {kind: Service, name: ui}}
"""


@pytest.mark.parametrize(
    ("how", "severity"),
    [
        ('env: [{name: STREAMLIT_SERVER_PORT, value: "8000"}, {name: API, value: "http://llm:8000"}]', Severity.INFO),
        (
            'readinessProbe: {httpGet: {path: /_stcore/health, port: 8000}}, env: [{name: API, value: "http://llm:8000"}]',
            Severity.INFO,
        ),
        ('env: [{name: API, value: "http://llm:8000"}]', Severity.WARNING),
    ],
)
def test_streamlit_is_known_by_its_settings_and_paths_too(how: str, severity: Severity) -> None:
    ui = STREAMLIT.replace("NAME", "ui").replace("IMAGE", "acme/planner-ui:1").replace("CONTAINER", how)
    gpu = "resources: {limits: {nvidia.com/gpu: 1}}, args: [--model, llama]"
    llm = STREAMLIT.replace("NAME", "llm").replace("IMAGE", "vllm/vllm-openai:v0.9.2").replace("CONTAINER", gpu)
    assert [f.severity for f in findings(f"{ui}---{llm}{ROUTE}", "openshift-route-timeout")] == [severity]


@pytest.mark.parametrize(
    ("caller", "service", "found"),
    [
        ("infra/k8s/web.yaml", "k8s/gateway.yaml", 0),
        ("k8s/apps/web.yaml", "k8s/services/gateway.yaml", 0),
        ("k8s/web.yaml", "k8s/gateway.yaml", 1),
    ],
)
def test_a_name_that_is_nearly_there_is_looked_for_beside_the_caller(
    tmp_path: Path, caller: str, service: str, found: int
) -> None:
    web = deployment("web", 'image: acme/web, env: [{name: API, value: "http://gateway-service.ml.svc.cluster.local"}]')
    files = {caller: web, service: services("gateway", "{selector: {app: gateway}, ports: [{port: 80}]}")}
    assert of(report(tmp_path, files), "call-host")[0] == found


@pytest.mark.parametrize(
    ("kustomization", "found"), [("namePrefix: staging-\n", 1), ("", 0), ("namespace: staging\n", 0)]
)
def test_a_prefix_renames_the_services_and_not_the_addresses(tmp_path: Path, kustomization: str, found: int) -> None:
    web = deployment("web", 'image: acme/web, env: [{name: API, value: "http://agent:8000"}]')
    agent = services("agent", "{selector: {app: agent}, ports: [{port: 8000}]}")
    files = {"base/web.yaml": web, "base/agent.yaml": agent}
    files["base/kustomization.yaml"] = "resources: [web.yaml, agent.yaml]\n"
    files["staging/kustomization.yaml"] = f"resources: [../base]\n{kustomization}"
    told = report(tmp_path, files)
    assert [f.object.name for f in told.findings if f.check == "call-host" and f.object] == ["staging-web"] * found
