"""What public repositories taught: objects that people write by hand, versions that mind no longer, GPUs for other work."""

from __future__ import annotations

import pytest

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.worlds.manifests import deployment, findings, service

NODE = """
---
apiVersion: v1
kind: Node
metadata: {name: gpu-1, labels: {nvidia.com/gpu.present: "true", node.kubernetes.io/instance-type: p5.48xlarge}}
STATUS
"""


@pytest.mark.parametrize(("status", "found"), [("", 0), ("status: {allocatable: {cpu: '8'}}", 1)])
def test_a_node_that_people_write_to_label_it_tells_not_what_it_offers(status: str, found: int) -> None:
    assert len(findings(NODE.replace("STATUS", status), "gpu-advertised")) == found


RAIL = """
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: rail, namespace: ml, annotations: {k8s.v1.cni.cncf.io/resourceName: fast.test/roce}}
"""


@pytest.mark.parametrize(("status", "found"), [("", 0), ("status: {allocatable: {cpu: '8'}}", 1)])
def test_a_node_without_a_status_has_devices_that_nobody_sees(status: str, found: int) -> None:
    pod = deployment("rank", "image: 'registry.test/t:1', resources: {limits: {nvidia.com/gpu: 8, fast.test/roce: 1}}")
    pod = pod.replace("labels: {app: rank}}", "labels: {app: rank}, annotations: {k8s.v1.cni.cncf.io/networks: rail}}")
    text = pod + RAIL + NODE.replace("STATUS", status)
    assert len([f for f in findings(text, "sriov-network") if f.title.startswith("no node has")]) == found


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("n8nio/n8n:1.29.0", 1),
        ("docker.n8n.io/n8nio/n8n:0.236.3", 1),
        ("n8nio/n8n:1.53.0", 0),
        ("docker.n8n.io/n8nio/n8n:2.36.3", 0),
        ("n8nio/n8n:latest", 0),
        ("n8nio/n8n", 0),
    ],
)
def test_a_version_that_passes_over_what_is_no_number_starts(image: str, found: int) -> None:
    text = deployment("n8n", f"image: '{image}'") + service("n8n", "{selector: {app: n8n}, ports: [{port: 5678}]}")
    assert len(findings(text, "service-variable")) == found


MODEL = deployment("model", "image: 'vllm/vllm-openai:v0.10.1', ports: [{containerPort: 8000}]") + service(
    "model", "{selector: {app: model}, ports: [{port: 80, targetPort: 8000}]}"
)
INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: edge, namespace: ml}
spec:
  ingressClassName: nginx
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: api, port: {number: 80}}}}]}}]
"""


@pytest.mark.parametrize(
    ("url", "severity"), [("http://agent:9090", Severity.WARNING), ("ws://agent:9090", Severity.INFO)]
)
def test_what_comes_over_a_web_socket_is_no_answer_to_a_request(url: str, severity: Severity) -> None:
    agent = deployment("agent", "image: 'registry.test/a:1', env: [{name: LLM_URL, value: 'http://model/v1'}]")
    api = deployment("api", f"image: 'registry.test/b:1', env: [{{name: AGENT_URL, value: '{url}'}}]")
    text = MODEL + agent + api + INGRESS
    text += service("agent", "{selector: {app: agent}, ports: [{port: 9090}]}")
    text += service("api", "{selector: {app: api}, ports: [{port: 80}]}")
    assert [f.severity for f in findings(text, "ingress-stream-timeout")] == [severity]


CILIUM = """
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cilium, namespace: kube-system}
spec: {template: {spec: {containers: [{name: cilium-agent, image: "quay.io/cilium/cilium:v1.17.2"}]}}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: cilium-config, namespace: kube-system}
data: {routing-mode: tunnel, tunnel-protocol: vxlan}
"""


@pytest.mark.parametrize(
    ("image", "severity"), [("jellyfin/jellyfin:10.10", Severity.INFO), ("ollama/ollama:0.6.0", Severity.WARNING)]
)
def test_a_gpu_alone_makes_no_traffic_of_models(image: str, severity: Severity) -> None:
    text = deployment("media", f"image: '{image}', resources: {{limits: {{nvidia.com/gpu: 1}}}}") + CILIUM
    assert [f.severity for f in findings(text, "cni-overlay")] == [severity]


ROUTER = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: routes, namespace: prod}
data:
  config.yaml: |
    model_list:
    - model_name: llama
      litellm_params: {model: openai/llama, api_base: "http://llama:8000/v1"}
"""


@pytest.mark.parametrize(("namespace", "found"), [("models", 1), ("your-namespace", 0), ("my-namespace", 0)])
def test_a_namespace_that_asks_to_be_replaced_is_the_callers_too(namespace: str, found: int) -> None:
    mounted = "volumeMounts: [{name: c, mountPath: /app/config.yaml, subPath: config.yaml}]"
    text = deployment("litellm", f"image: 'ghcr.io/berriai/litellm:v1.70', {mounted}", "prod").replace(
        "spec: {containers", "spec: {volumes: [{name: c, configMap: {name: routes}}], containers"
    )
    text += ROUTER + deployment("llama", "image: 'vllm/vllm-openai:v0.10.1'", namespace)
    text += service("llama", "{selector: {app: llama}, ports: [{port: 8000}]}", namespace)
    assert len(findings(text, "call-host")) == found


SIDE_BY_SIDE = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: api, namespace: ml}
spec:
  selector: {matchLabels: {app: api}}
  template:
    metadata: {labels: {app: api}}
    spec:
      containers:
      - name: vllm
        image: vllm/vllm-openai:v0.10.1
        args: [--port, "8001"]
        ports: [{containerPort: 8001}]
        livenessProbe: {httpGet: {path: /health, port: PORT}, initialDelaySeconds: 30}
        readinessProbe: {httpGet: {path: /health, port: 8001}}
      - {name: front, image: "registry.test/front:1", ports: [{containerPort: 8000}]}
"""


@pytest.mark.parametrize(("port", "found"), [(8001, 1), (8000, 0)])
def test_a_probe_of_the_container_beside_gives_the_model_all_its_time(port: int, found: int) -> None:
    assert len(findings(SIDE_BY_SIDE.replace("PORT", str(port)), "startup-budget")) == found
