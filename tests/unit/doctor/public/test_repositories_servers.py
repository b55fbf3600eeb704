"""What manifests show of servers, ports, probes and policies: false findings beside the faults that they resembled."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.registry import all_checks
from kubectl_genainet.doctor.report import examine
from kubectl_genainet.kube.manifests import load_manifests
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service, unchecked

CLIENT = "image: 'registry.test/app:1', env: [{name: STORE_URL, value: 'http://HOST'}]"
CLOSED = """
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed, namespace: ml}
spec: {podSelector: {}, policyTypes: [Egress], egress: []}
"""


@pytest.mark.parametrize(
    ("container", "found"),
    [
        ("image: 'qdrant/qdrant:v1.15.0'", 0),
        ("image: 'redis:7'", 0),
        ("image: 'vllm/vllm-openai:v0.11.0', args: [--model, /models/llama]", 0),
        ("image: 'vllm/vllm-openai:v0.11.0', args: [--model, Qwen/Qwen3-8B]", 1),
        (
            "image: 'vllm/vllm-openai:v0.11.0', args: [--model, Qwen/Qwen3-8B], env: [{name: HF_HUB_OFFLINE, value: '1'}]",
            0,
        ),
        ("image: 'qdrant/qdrant:v1.15.0', env: [{name: S3, value: 'https://s3.amazonaws.com'}]", 1),
        ("image: 'registry.test/app:1'", 1),
    ],
)
def test_a_server_that_only_answers_may_be_closed_off(container: str, found: int) -> None:
    assert len(findings(deployment("server", container) + CLOSED, "egress-without-dns")) == found


PAIR = deployment("chat", "image: 'a:1', ports: [{containerPort: 3000}]") + deployment(
    "llm", "image: 'vllm/vllm-openai:v0.11.0', ports: [{containerPort: 8000}]"
)


@pytest.mark.parametrize(("declared", "found"), [("8000", 1), ("3000", 0)])
def test_a_label_of_all_components_is_no_selector_for_one(declared: str, found: int) -> None:
    labels = PAIR.replace("labels: {app: chat}", "labels: {app: chat, part: x}").replace(
        "labels: {app: llm}", "labels: {app: llm, part: x}"
    )
    same = labels.replace("containerPort: 8000", f"containerPort: {declared}")
    text = same + service("llm", "{selector: {part: x}, ports: [{port: 80, targetPort: DECLARED}]}")
    assert len(findings(text.replace("DECLARED", declared), "service-selects-others")) == found
    named = text.replace("DECLARED", "api").replace("containerPort: 8000", "name: api, containerPort: 8000")
    assert findings(named, "service-selects-others") == []


def test_policies_are_asked_about_the_pods_that_a_service_is_for() -> None:
    labels = PAIR.replace("labels: {app: chat}", "labels: {app: chat, part: x}").replace(
        "labels: {app: llm}", "labels: {app: llm, part: x}"
    )
    store = service("store", "{selector: {part: x}, ports: [{port: 3000}]}")
    caller = deployment(
        "front", "image: 'a:1', env: [{name: A, value: 'http://store:3000'}, {name: B, value: 'http://llm'}]"
    )
    llm = service("llm", "{selector: {app: llm}, ports: [{port: 80, targetPort: 8000}]}")
    isolated = CLOSED.replace("podSelector: {}", "podSelector: {matchLabels: {app: llm}}").replace("Egress", "Ingress")
    found = findings(
        labels + store + caller + llm + isolated.replace("egress: []", "ingress: []"), "policy-blocks-call"
    )
    assert ["llm" in f.title for f in found] == [True]


@pytest.mark.parametrize(("model", "severity"), [("BAAI/bge-small", Severity.INFO), ("org/llama-8b", Severity.WARNING)])
def test_a_model_that_answers_at_once_is_small(model: str, severity: Severity) -> None:
    probe = "livenessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10}"
    (found,) = findings(
        deployment("m", f"image: 'vllm/vllm-openai:v0.11.0', args: [--model, {model}], {probe}"), "startup-budget"
    )
    assert found.severity is severity


@pytest.mark.parametrize(
    ("name", "command", "found"),
    [
        ("mlflow", "[mlflow, server, --host, 0.0.0.0]", 1),
        ("mlflow", "[mlflow, server, --port, '5000']", 0),
        ("langflow", "[langflow, run, --port=7860]", 0),
        ("vllm", "[vllm, serve, m, --port, '8000']", 1),
    ],
)
def test_a_port_on_the_command_line_goes_before_the_variable_of_a_service(name: str, command: str, found: int) -> None:
    text = deployment("app", f"image: 'registry.test/x:1', command: {command}")
    assert (
        len(findings(text + service(name, "{selector: {app: app}, ports: [{port: 80}]}"), "service-variable")) == found
    )


def test_remedies_write_the_value_that_the_finding_knows() -> None:
    text = deployment("llm", "image: 'vllm/vllm-openai:v0.11.0', args: [--port, '8200', --host=127.0.0.1]") + service(
        "llm", "{selector: {app: llm}, ports: [{port: 80, targetPort: 8000}]}"
    )
    commands = [
        f.remedy.command for check in ("server-port", "server-loopback") for f in findings(text, check) if f.remedy
    ]
    assert '"/spec/ports/0/targetPort", "value": 8200' in commands[0]
    assert '"/spec/template/spec/containers/0/args/2", "value": "--host=0.0.0.0"' in commands[1]


def test_a_value_that_may_hold_a_secret_is_not_written_into_a_command() -> None:
    db = service("vectors", "{selector: {app: v}, ports: [{port: 5432}]}")
    (plain,) = findings(deployment("app", CLIENT.replace("HOST", "vectors:9999")) + db, "call-port")
    (secret,) = findings(deployment("app", CLIENT.replace("HOST", "me:pass@vectors:9999")) + db, "call-port")
    assert plain.remedy is not None and '"value": "http://vectors:5432"' in plain.remedy.command
    assert secret.remedy is not None and secret.remedy.command == "kubectl -n ml edit deployment/app"


def test_a_probe_of_another_kind_takes_the_place_of_the_one_before() -> None:
    probe = "ports: [{containerPort: 11434}], readinessProbe: {tcpSocket: {port: 11434}, periodSeconds: 5}"
    (found,) = findings(deployment("llm", f"image: 'ollama/ollama:0.9', {probe}"), "readiness-probe-model")
    assert found.remedy is not None and '"tcpSocket": null' in found.remedy.command


def test_a_policy_that_is_not_among_the_manifests_may_admit_what_they_do_not() -> None:
    text = deployment("app", "image: 'registry.test/app:1'") + CLOSED
    (part,) = findings(text, "egress-without-dns")
    (whole,) = findings(text, "egress-without-dns", complete=True)
    assert (part.severity, whole.severity) == (Severity.WARNING, Severity.ERROR)
    assert "another NetworkPolicy of namespace ml may admit it" in part.detail and whole.detail == ""


BUCKET = "image: 'minio/mc:1', command: [/bin/sh, -c], args: ['mc mb local/mlflow-artifacts']"


@pytest.mark.parametrize(
    ("container", "found", "unread"),
    [
        ("image: 'ghcr.io/mlflow/mlflow:v3.1.0', command: [mlflow, server]", 1, ""),
        ("image: 'ghcr.io/mlflow/mlflow:v3.1.0'", 0, ""),  # Python's prompt, and no server
        ("image: 'bitnami/mlflow:3.1.0'", 1, ""),
        (BUCKET, 0, ""),
        (
            "image: 'ghcr.io/mlflow/mlflow:v3.1.0', command: [mlflow, server], envFrom: [{configMapRef: {name: settings}}]",
            0,
            "ConfigMap settings",
        ),
        (
            "image: 'ghcr.io/mlflow/mlflow:v3.1.0', command: [mlflow, server], envFrom: [{secretRef: {name: keys}}]",
            0,
            "Secret keys",
        ),
        (
            "image: 'ghcr.io/mlflow/mlflow:v3.1.0', command: [mlflow, server],"
            " env: [{name: MLFLOW_PORT, valueFrom: {secretKeyRef: {name: a, key: b}}}]",
            0,
            "",
        ),
    ],
)
def test_a_variable_of_a_service_meets_a_server_that_reads_it(container: str, found: int, unread: str) -> None:
    text = deployment("app", container) + service("mlflow", "{selector: {app: app}, ports: [{port: 80}]}")
    assert len(findings(text, "service-variable")) == found
    assert unread in unchecked(text, "service-variable")


@pytest.mark.parametrize(("image", "found"), [("echo:2", 1), ("echo:1", 0)])
def test_the_same_program_listens_on_the_same_ports_whatever_its_pods_declare(image: str, found: int) -> None:
    pods = deployment("echo", "image: 'echo:1', ports: [{containerPort: 9000}]") + deployment(
        "canary", f"image: '{image}', ports: [{{containerPort: 9001}}]"
    )
    shared = pods.replace("labels: {app: echo}", "labels: {app: echo, part: x}").replace(
        "labels: {app: canary}", "labels: {app: canary, part: x}"
    )
    text = shared + service("echo", "{selector: {part: x}, ports: [{port: 50051, targetPort: 9000}]}")
    assert len(findings(text, "service-selects-others")) == found


INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: NAME, namespace: ml, annotations: {ANNOTATIONS}}
spec:
  ingressClassName: CLASS
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: NAME, port: {number: 80}}}}]}}]
"""


@pytest.mark.parametrize(
    ("ingress_class", "annotations", "found"),
    [
        ("nginx", "", 1),
        ("alb", "", 0),
        ("alb", "alb.ingress.kubernetes.io/group.name: shared", 1),
        ("gce", "", 0),
        ("tailscale", "", 0),
    ],
)
def test_ingresses_with_an_address_each_do_not_meet(ingress_class: str, annotations: str, found: int) -> None:
    one = INGRESS.replace("CLASS", ingress_class).replace("ANNOTATIONS", annotations)
    assert len(findings(one.replace("NAME", "a") + one.replace("NAME", "b"), "ingress-path-conflict")) == found


def test_ingresses_of_several_folders_may_belong_to_several_clusters(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        text = INGRESS.replace("CLASS", "nginx").replace("ANNOTATIONS", "").replace("NAME", folder)
        (tmp_path / folder / "ingress.yaml").write_text(text)
    snapshot = load_manifests([str(tmp_path)])
    for complete, severity in ((False, Severity.INFO), (True, Severity.WARNING)):
        report = examine(Cluster(snapshot, complete=complete), all_checks())
        assert [f.severity for f in report.findings if f.check == "ingress-path-conflict"] == [severity]


SIMULATED = """
---
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {name: m, namespace: ml}
spec:
  template:
    containers:
    - {name: main, image: 'IMAGE', livenessProbe: {httpGet: {path: /health, port: 8000}}}
"""


@pytest.mark.parametrize(("image", "found"), [("vllm/vllm-openai:v1", 1), ("ghcr.io/llm-d/llm-d-inference-sim:v1", 0)])
def test_a_simulator_loads_no_model(image: str, found: int) -> None:
    assert len(findings(SIMULATED.replace("IMAGE", image), "startup-budget")) == found


@pytest.mark.parametrize(
    ("spec", "found"),
    [("type: LoadBalancer", 1), ("type: LoadBalancer, loadBalancerClass: tailscale", 0), ("type: ClusterIP", 0)],
)
def test_a_load_balancer_of_a_private_network_exposes_nothing(spec: str, found: int) -> None:
    text = deployment("db", "image: 'qdrant/qdrant:v1.15.0', ports: [{containerPort: 6333}]") + service(
        "db", f"{{{spec}, selector: {{app: db}}, ports: [{{port: 6333}}]}}"
    )
    assert len(findings(text, "vector-database-exposed")) == found


@pytest.mark.parametrize(
    ("annotation", "installed", "found"),
    [("backend-protocol", False, 0), ("type", False, 1), ("backend-protocol", True, 2)],
)
def test_the_annotation_of_one_service_does_not_put_another_on_aws(
    annotation: str, installed: bool, found: int
) -> None:
    note = f"service.beta.kubernetes.io/aws-load-balancer-{annotation}"
    lb = "{type: LoadBalancer, selector: {app: x}, ports: [{port: 80}]}"
    noted = service("envoy", lb).replace("namespace: ml", f"namespace: ml, annotations: {{{note}: nlb}}")
    controller = deployment("aws-load-balancer-controller", "image: 'controller:v2.4.7'") if installed else ""
    assert len(findings(noted + service("game", lb) + controller, "nlb-legacy", complete=installed)) == found


@pytest.mark.parametrize(
    ("image", "annotation", "found"),
    [("v2.4.7", "scheme: internal", 1), ("v2.13.3", "scheme: internal", 0), ("v2.13.3", "type: nlb", 1)],
)
def test_the_controller_among_the_manifests_gives_its_class(image: str, annotation: str, found: int) -> None:
    lb = service("game", "{type: LoadBalancer, selector: {app: x}, ports: [{port: 80}]}")
    noted = lb.replace(
        "namespace: ml", f"namespace: ml, annotations: {{service.beta.kubernetes.io/aws-load-balancer-{annotation}}}"
    )
    name = "aws-load-balancer-controller"
    controller = deployment(name, f"image: 'public.ecr.aws/eks/{name}:{image}'", "kube-system")
    assert len(findings(noted + controller, "nlb-legacy", complete=True)) == found
    assert len(findings(noted, "nlb-legacy", complete=True)) == 1
    said = unchecked(noted + controller, "nlb-legacy", complete=True)
    assert ("gives its class to new Services" in said) == (not found)


ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ml}
spec: {gatewayClassName: eg, listeners: [{name: web, port: 80, protocol: HTTP, hostname: 'LISTENER'}]}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: chat, namespace: ml}
spec: {parentRefs: [{name: gw}], hostnames: ['chat.example.org']}
"""


@pytest.mark.parametrize(("listener", "found"), [("*.example.net", 1), ("*.${DOMAIN}", 0), ("*.{{ domain }}", 0)])
def test_a_host_with_a_placeholder_may_be_any(listener: str, found: int) -> None:
    assert len(findings(ROUTE.replace("LISTENER", listener), "route-listener")) == found


def test_a_host_that_a_variable_is_part_of_is_not_called_by_its_beginning() -> None:
    store = service("store", "{selector: {app: s}, ports: [{port: 6070}]}")
    app = deployment("app", CLIENT.replace("HOST", "store.${NAMESPACE}.svc.cluster.local:6070"))
    assert findings(app + store, "call-port") == []


def test_a_finding_that_rests_on_a_placeholder_is_not_checked() -> None:
    text = ROUTE.replace("LISTENER", "*.example.org")
    named = text.replace("parentRefs: [{name: gw}]", "parentRefs: [{name: gw, sectionName: '${SECTION}'}]")
    assert findings(named, "route-listener") == []
    assert "${SECTION}, a placeholder" in unchecked(named, "route-listener")


def test_a_replacement_without_its_source_leaves_a_placeholder(tmp_path: Path) -> None:
    (tmp_path / "route.yaml").write_text(ROUTE.replace("LISTENER", "*.replace-me"))
    (tmp_path / "kustomization.yaml").write_text(
        "resources: [route.yaml]\n"
        "configMapGenerator: [{name: domain, envs: [absent.env]}]\n"
        "replacements:\n"
        "- source: {kind: ConfigMap, name: domain, fieldPath: data.domain}\n"
        "  targets:\n"
        "  - select: {kind: Gateway}\n"
        "    options: {delimiter: '.', index: 1}\n"
        "    fieldPaths: [spec.listeners.0.hostname]\n"
    )
    snapshot = load_manifests([str(tmp_path)])
    (gateway,) = snapshot.of("Gateway")
    assert gateway.raw["spec"]["listeners"][0]["hostname"] == "*.${ConfigMap domain}"
    assert [f for f in examine(Cluster(snapshot), all_checks()).findings if f.check == "route-listener"] == []
