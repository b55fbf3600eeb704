"""Public repositories whose parts were not meant for one place, or are not what their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import Report, examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import cluster_of, deployment, findings, service, unchecked

GATEWAY = """
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: front, namespace: mesh}
spec: {selector: {istio: ingressgateway}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
"""
VIRTUAL = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: chatPLACE}
spec: {hosts: ["*"], gateways: [front], http: [{route: [{destination: {host: ui.ml.svc.cluster.local, port: {number: 80}}}]}]}
"""


def report(folder: Path, files: dict[str, str]) -> Report:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return examine(Cluster(load_manifests([str(folder)])), all_checks())


def of(told: Report, check: str) -> tuple[int, str]:
    """How many findings a check has, and what it says of what it did not look at."""
    open_ = "; ".join(n.reason for n in told.not_checked if n.what == check)
    return len([f for f in told.findings if f.check == check]), open_


@pytest.mark.parametrize(("place", "found"), [("", 0), (", namespace: ml", 1)])
def test_a_virtual_service_without_a_namespace_may_be_applied_beside_its_gateway(place: str, found: int) -> None:
    text = GATEWAY + VIRTUAL.replace("PLACE", place)
    assert len(findings(text, "virtual-service-gateway")) == found
    assert ("is not here" in unchecked(text, "virtual-service-gateway")) is not found


def test_a_route_is_judged_by_the_service_of_its_own_overlay(tmp_path: Path) -> None:
    def files(port: str) -> dict[str, str]:
        change = f"[{{op: replace, path: /spec/ports/0/port, value: {port}}}]"
        patch = f"patches: [{{target: {{kind: Service, name: ui}}, patch: '{change}'}}]\n"
        return {
            "base/ui.yaml": service("ui", "{selector: {app: ui}, ports: [{port: 8080}]}"),
            "base/kustomization.yaml": "resources: [ui.yaml]\n",
            "istio/route.yaml": GATEWAY + VIRTUAL.replace("PLACE", ", namespace: ml"),
            "istio/kustomization.yaml": f"resources: [../base, route.yaml]\n{patch}",
            "plain/kustomization.yaml": "resources: [../base]\n",
        }

    found, open_ = of(report(tmp_path / "patched", files("80")), "virtual-service-backend")
    assert found == 0 and "Service ml/ui" in open_
    same = files("8080")
    assert of(report(tmp_path / "same", same), "virtual-service-backend") == (1, "")


@pytest.mark.parametrize("place", ["", ", namespace: ml"])
def test_examples_of_two_folders_are_applied_one_by_one(tmp_path: Path, place: str) -> None:
    def placed(text: str) -> str:
        return text.replace(", namespace: ml", place).replace("app: one", "app: web").replace("app: two", "app: web")

    secure = deployment("one", "image: 'registry.test/a:1', ports: [{containerPort: 443}]")
    front = service("front", "{selector: {app: web}, ports: [{port: 443}]}")
    plain = deployment("two", "image: 'registry.test/b:1', ports: [{containerPort: 80}]")
    told = report(tmp_path, {"https/a.yaml": placed(secure + front), "volumes/b.yaml": placed(plain)})
    assert of(told, "service-selects-others") == (0, "")  # the Service leads to what is applied with it
    beside = report(tmp_path / "one", {"a.yaml": placed(secure + front), "b.yaml": placed(plain)})
    assert of(beside, "service-selects-others") == (1, "")


@pytest.mark.parametrize(
    ("image", "server"),
    [
        ("quay.io/acme/vllm-optimizer-frontend:1", False),
        ("quay.io/acme/vllm-dashboard:1", False),
        ("quay.io/acme/vllm-openai:v0.9", True),
        ("quay.io/acme/vllm-rocm:1", True),
    ],
)
def test_what_is_around_a_server_has_its_name_in_its_image(image: str, server: bool) -> None:
    cluster = cluster_of(deployment("it", f"image: '{image}', ports: [{{containerPort: 8080}}]"))
    assert bool(cluster.genai) is server


def test_ingress_nginx_connects_to_the_target_port_of_an_external_name() -> None:
    named = service(
        "outside", "{type: ExternalName, externalName: nas.acme.net, ports: [{port: 80, targetPort: 5000}]}"
    )
    ingress = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: outside, namespace: ml}
spec:
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: outside, port: {number: 80}}}}]}}]
"""
    assert len(findings(named, "external-name-port")) == 1
    assert findings(named + ingress, "external-name-port") == []
    assert "an Ingress leads to it" in unchecked(named + ingress, "external-name-port")


@pytest.mark.parametrize(
    ("env", "severities"),
    [
        ("[]", [Severity.INFO]),  # the image may set it
        ("[{name: FI_EFA_USE_HUGE_PAGE, value: '0'}]", []),
        ("[{name: FI_EFA_USE_HUGE_PAGE, value: '1'}]", [Severity.WARNING]),
    ],
)
def test_libfabric_can_be_told_to_use_no_huge_pages(env: str, severities: list[Severity]) -> None:
    asked = "resources: {limits: {nvidia.com/gpu: 8, vpc.amazonaws.com/efa: 1}}"
    told = findings(deployment("train", f"image: 'registry.test/a:1', env: {env}, {asked}"), "efa-hugepages")
    assert [f.severity for f in told] == severities
    assert [f.evidence[1].statement for f in told if f.severity is Severity.INFO] == [
        "FI_EFA_USE_HUGE_PAGE is not set here; whether the image sets it is not seen"
        for _ in severities[:1]
        if env == "[]"
    ]


def test_that_gloo_is_told_no_device_is_information_for_the_image_may_tell_it() -> None:
    env = "env: [{name: NCCL_SOCKET_IFNAME, value: '^lo'}], resources: {limits: {nvidia.com/gpu: 8}}"
    text = deployment("train", f"image: 'registry.test/a:1', {env}").replace(
        "spec: {containers", "spec: {hostNetwork: true, containers"
    )
    (told,) = findings(text, "nccl-settings")
    assert told.severity is Severity.INFO
    assert "an image or a script that sets it is not seen" in told.title


@pytest.mark.parametrize(("second", "found"), [("websecure", 0), ("web", 1)])
def test_traefiks_entry_points_are_ports_of_their_own(second: str, found: int) -> None:
    def ingress(name: str, entry: str) -> str:
        return f"""
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: ml, annotations: {{traefik.ingress.kubernetes.io/router.entrypoints: {entry}}}}}
spec:
  rules:
  - host: a.test
    http: {{paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {name}, port: {{number: 80}}}}}}}}]}}
"""

    assert len(findings(ingress("plain", "web") + ingress("tls", second), "ingress-path-conflict")) == found


@pytest.mark.parametrize(
    ("container", "found"),
    [
        ("image: 'acme/model-server:1'", 0),
        ("image: 'acme/model-server:1', resources: {limits: {nvidia.com/gpu: 1}}", 1),
        ("image: 'vllm/vllm-openai:v0.9'", 1),
    ],
)
def test_an_inference_service_of_an_unknown_image_on_cpus_may_be_a_classic_model(container: str, found: int) -> None:
    text = f"""
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {{name: loans, namespace: ml}}
spec: {{predictor: {{containers: [{{name: kserve-container, {container}}}]}}}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: loans, namespace: ml}}
spec: {{hosts: [loans], http: [{{timeout: 10s, route: [{{destination: {{host: loans-predictor}}}}]}}]}}
"""
    assert len(findings(text, "mesh-stream-timeout")) == found


@pytest.mark.parametrize(
    ("searches", "told"),
    [("[]", "6 of 8"), ("[svc.cluster.local, ml.svc.cluster.local.]", "6 of 8"), ("[a.test]", "8 of 10")],
)
def test_a_search_domain_that_is_given_twice_is_asked_once(searches: str, told: str) -> None:
    env = "image: 'vllm/vllm-openai:v0.9', env: [{name: BASE_URL, value: 'https://api.openai.com/v1'}]"
    pods = deployment("llm", env).replace(
        "spec: {containers", f"spec: {{dnsConfig: {{searches: {searches}}}, containers"
    )
    (found,) = findings(pods, "ndots")
    assert found.title.startswith(f"{told} queries for api.openai.com")


@pytest.mark.parametrize(
    ("label", "values", "found"),
    [
        ("name", "values.yaml", 0),
        ("name", "gpu-values.yml", 0),
        ("app.kubernetes.io/name", "values.yaml", 1),  # a slip of the pen for this very workload
        ("name", "../values.yaml", 1),
        ("name", "settings.yaml", 1),
    ],
)
def test_a_service_beside_a_charts_values_may_select_the_charts_pods(
    tmp_path: Path, label: str, values: str, found: int
) -> None:
    old = deployment("ollama", "image: 'ollama/ollama:0.9'").replace("app: ollama", f"{label}: ollamma")
    told = report(
        tmp_path,
        {
            "ollama/gpu.yaml": old,
            "ollama/service.yaml": service(
                "ollama-service", "{selector: {app.kubernetes.io/name: ollama}, ports: [{port: 80}]}"
            ),
            f"ollama/{values}": "ollama: {gpu: {enabled: true}}\n",
        },
    )
    assert len([f for f in told.findings if f.check == "service-selector"]) == found
    assert any("of the chart that" in n.reason for n in told.not_checked) is not bool(found)


@pytest.mark.parametrize(("place", "found"), [("", 0), ("namespace: ml, ", 1)])
def test_a_port_is_not_looked_for_where_a_workload_that_is_selected_names_no_namespace(place: str, found: int) -> None:
    database = deployment("redis", "image: 'redis:8', ports: [{name: redis, containerPort: 6379}]")
    api = deployment("api", "image: 'acme/api:1', ports: [{name: other, containerPort: 80}]")
    front = service("api", "{selector: {part: api}, ports: [{port: 80, targetPort: http}]}")
    text = database.replace("app: redis", "part: api") + api.replace("app: api", "part: api").replace(
        "namespace: ml", place
    ).replace("{name: api, , ", "{name: api, ")
    told = [f for f in findings(text + front, "service-target-port") if f.severity is Severity.ERROR]
    assert len(told) == found
    assert ("names no namespace" in unchecked(text + front, "service-target-port")) is not bool(found)


@pytest.mark.parametrize(("name", "port", "found"), [("SERVICE_NAME", "SERVICE_PORT", 0), ("web", "SERVICE_PORT", 1)])
def test_a_policy_whose_words_are_to_be_replaced_is_not_refused(name: str, port: str, found: int) -> None:
    text = f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: ml}}
spec: {{podSelector: {{}}, ingress: [{{ports: [{{port: {port}}}]}}]}}
"""
    assert len(findings(text, "policy-refused")) == found
    assert ("is a placeholder" in unchecked(text, "policy-refused")) is not bool(found)


@pytest.mark.parametrize(("uid", "found"), [("", 0), (", uid: d1", 1)])
def test_a_saved_load_balancer_among_written_services_is_not_pending(uid: str, found: int) -> None:
    text = """
apiVersion: v1
kind: Service
metadata: {name: red, namespace: ml, uid: c1}
spec: {type: LoadBalancer, selector: {app: red}, ports: [{port: 80}]}
status: {loadBalancer: {}}
"""
    text += service("api", "{selector: {app: api}, ports: [{port: 80}]}").replace(
        "namespace: ml", f"namespace: ml{uid}"
    )
    assert len(findings(text, "load-balancer-pending")) == found
    assert ("of the day it was saved" in unchecked(text, "load-balancer-pending")) is not bool(found)
