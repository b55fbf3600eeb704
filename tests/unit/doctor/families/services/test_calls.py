"""Configured calls and where servers listen: what is sound, or can't be known, is left alone."""

from __future__ import annotations

import pytest

from kubectl_genainet.doctor.objects.calls import litellm_targets
from tests.unit.doctor.worlds.manifests import findings, unchecked

APP = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: ui, namespace: ai}
spec:
  template:
    metadata: {labels: {app: ui}}
    spec: {containers: [{name: c, image: "registry.test/ui:1", env: [{name: MODEL, value: "%s"}]}]}
---
apiVersion: v1
kind: Service
metadata: {name: ollama, namespace: ai}
spec: {selector: {app: ollama}, ports: [{port: 11434}]}
---
apiVersion: v1
kind: Service
metadata: {name: ring, namespace: ai}
spec: {clusterIP: None, selector: {app: ring}, ports: [{port: 80}]}
"""
SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: model, namespace: ai}
spec:
  template:
    metadata: {labels: {app: model}}
    spec:
      containers:
      - name: m
        image: "vllm/vllm-openai:v0.10.1"
        args: [%s]
        ports: [{containerPort: %d}]
        readinessProbe: {httpGet: {path: /health, port: %d}}
---
apiVersion: v1
kind: Service
metadata: {name: model, namespace: ai}
spec: {selector: {app: model}, ports: [{port: 80, targetPort: %d}]}
"""


@pytest.mark.parametrize(
    ("url", "broken"),
    [
        ("http://ollama:11434", set()),
        ("http://ollama.ai.svc.cluster.local:11434/api", set()),
        ("http://ring:9000", set()),  # a headless Service's names are the pods'
        ("http://localhost:8080", set()),
        ("http://other:80", set()),  # may be elsewhere
        ("http://ollama:8080", {"call-port"}),
        ("http://olama:11434", {"call-host"}),
        ("http://ollama.llm.svc:11434", set()),  # that namespace may hold another one
    ],
)
def test_calls(url: str, broken: set[str]) -> None:
    assert {c for c in ("call-port", "call-host") if findings(APP % url, c)} == broken


@pytest.mark.parametrize(
    ("url", "titles"),
    [
        ("http://ollama", []),  # a program may add the port of the API that it speaks
        ("http://ollama/", []),
        ("http://ollama/v1", ["it is configured to call port 80 of Service ai/ollama, which has 11434"]),
    ],
)
def test_the_port_of_a_scheme_is_only_taken_where_a_path_follows_the_host(url: str, titles: list[str]) -> None:
    assert [f.title for f in findings(APP % url, "call-port")] == titles
    assert ("what the program adds is not seen" in unchecked(APP % url, "call-port")) is (titles == [])


def test_in_a_whole_cluster_a_namespace_that_is_written_out_holds_no_such_service() -> None:
    (finding,) = findings(APP % "http://ollama.llm.svc:11434", "call-host", complete=True)
    assert "but one in ai" in finding.evidence[1].statement


SHARED = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: NAME, namespace: ai}
spec:
  selector: {matchLabels: {app: NAME}}
  template:
    metadata: {labels: {app: NAME}}
    spec: {containers: [{name: c, image: "registry.test/app:1", envFrom: [{configMapRef: {name: shared}}]}]}
"""


@pytest.mark.parametrize(("url", "check"), [("http://ollama:8080", "call-port"), ("http://olama:11434", "call-host")])
def test_what_one_config_map_tells_several_workloads_is_found_once(url: str, check: str) -> None:
    config = f"""
---
apiVersion: v1
kind: ConfigMap
metadata: {{name: shared, namespace: ai}}
data: {{LLM: "{url}"}}
"""
    base = APP % "http://ollama:11434" + config
    (one,) = findings(base + SHARED.replace("NAME", "chat"), check)
    assert str(one.object) == "Deployment ai/chat"
    (several,) = findings(base + SHARED.replace("NAME", "chat") + SHARED.replace("NAME", "batch"), check)
    assert str(several.object) == "ConfigMap ai/shared"
    assert several.title.startswith("2 workloads that read it are configured to call")
    assert several.detail == "Deployment ai/batch, Deployment ai/chat"


@pytest.mark.parametrize(
    ("arguments", "declared", "probed", "target", "broken"),
    [
        ("--port, '8080'", 8080, 8080, 8080, set()),
        ("--model, x", 8000, 8000, 8000, set()),
        ("--host, 0.0.0.0", 8000, 8000, 8000, set()),
        ("--port, '8080'", 8000, 8080, 8000, {"server-port"}),
        ("--port=8080", 8080, 8000, 8080, {"server-port"}),
        ("--model, x", 8000, 8080, 8000, {"server-port"}),
        ("--host, 127.0.0.1", 8000, 8000, 8000, {"server-loopback"}),
    ],
)
def test_where_a_server_listens(arguments: str, declared: int, probed: int, target: int, broken: set[str]) -> None:
    text = SERVER % (arguments, declared, probed, target)
    assert {c for c in ("server-port", "server-loopback") if findings(text, c)} == broken


def test_the_pods_of_a_job_need_all_ports() -> None:
    job = """
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: tune, namespace: ai}
spec:
  pytorchReplicaSpecs:
    Master: &one
      template:
        metadata: {labels: {app: tune}}
        spec: {containers: [{name: pytorch, image: "registry.test/t:1", resources: {limits: {nvidia.com/gpu: 1}}}]}
    Worker: *one
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: tune, namespace: ai}
spec: {podSelector: {}, policyTypes: [Ingress], ingress: [{from: [{podSelector: {}}]%s}]}
"""
    assert findings(job % "", "policy-blocks-peers") == []
    (found,) = findings(job % ", ports: [{port: 23456}]", "policy-blocks-peers")
    assert found.remedy is not None
    assert found.remedy.trial.startswith("tried: heals it")


QDRANT = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: vectors, namespace: ai}
spec:
  replicas: %d
  template:
    metadata: {labels: {app: vectors}}
    spec: {containers: [{name: q, image: "qdrant/qdrant:v1.13.4", ports: [{containerPort: 6333}, {containerPort: 6335}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: vectors, namespace: ai}
spec: {podSelector: {matchLabels: {app: vectors}}, ingress: [{ports: [%s]}]}
"""


@pytest.mark.parametrize(
    ("replicas", "ports", "found"),
    [(3, "{port: 6333}", 1), (1, "{port: 6333}", 0), (3, "{port: 6333}, {port: 6335}", 0)],
)
def test_the_members_of_a_database_need_each_other(replicas: int, ports: str, found: int) -> None:
    assert len(findings(QDRANT % (replicas, ports), "policy-blocks-peers")) == found


def test_replicas_that_serve_by_themselves_need_no_peers() -> None:
    text = """
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: model, namespace: ai}
spec:
  replicas: 2
  template:
    metadata: {labels: {app: model}}
    spec: {containers: [{name: m, image: "vllm/vllm-openai:v0.10.1", resources: {limits: {nvidia.com/gpu: 1}}}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: model, namespace: ai}
spec: {podSelector: {}, ingress: [{ports: [{port: 8000}]}]}
"""
    assert findings(text, "policy-blocks-peers") == []


LITELLM = """
---
apiVersion: v1
kind: ConfigMap
metadata: {name: litellm, namespace: ai}
data:
  config.yaml: |
    model_list:
    - model_name: a
      litellm_params: {model: openai/a, api_base: "BASE"}
    - model_name: b
      litellm_params: {model: openai/b, api_base: os.environ/B_URL}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: litellm, namespace: ai}
spec:
  template:
    metadata: {labels: {app: litellm}}
    spec:
      containers: [{name: c, image: "ghcr.io/berriai/litellm:v1.80", volumeMounts: [{name: conf, mountPath: /app/config.yaml}]}]
      volumes: [{name: conf, configMap: {name: litellm}}]
"""


@pytest.mark.parametrize(
    ("base", "broken"),
    [
        ("http://ollama:11434", []),
        ("http://ollama.ai.svc:8080/v1", ["call-port"]),
        ("http://olama:11434", ["call-host"]),
        ("http://vllm:8000/v1", []),  # may be elsewhere
    ],
)
def test_the_servers_of_a_litellm_are_those_of_its_configuration(base: str, broken: list[str]) -> None:
    text = APP % "" + LITELLM.replace("BASE", base)
    assert [c for c in ("call-host", "call-port") if findings(text, c)] == broken


MODELS = "model_list:\n- model_name: a\n  litellm_params: {BASE}\n"


@pytest.mark.parametrize(
    ("config", "targets"),
    [
        (MODELS.replace("BASE", "model: x, api_base: http://a:1/v1, rpm: 3"), ("http://a:1/v1",)),
        (
            MODELS.replace("BASE", "}\n    api_base: 'http://a:1'  # the first\n    # api_base: http://b:2\n{"),
            ("http://a:1",),
        ),
        (MODELS, ()),
        ("api_base: http://a:1", ()),
        ("", ()),
    ],
)
def test_what_is_no_configuration_of_litellm_names_no_server(config: str, targets: tuple[str, ...]) -> None:
    assert litellm_targets(config) == targets
