"""Egress of a model server to the hub that it fetches its model from."""

from __future__ import annotations

import pytest

from tests.unit.doctor.worlds.manifests import report_of

SERVER = """
apiVersion: apps/v1
kind: Deployment
metadata: {{name: llm, namespace: serve}}
spec:
  selector: {{matchLabels: {{app: llm}}}}
  template:
    metadata: {{labels: {{app: llm}}}}
    spec: {{containers: [{{name: server, {container}}}]{rest}}}
---
"""
EGRESS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: names-only, namespace: serve}
spec:
  podSelector: {}
  policyTypes: [Egress]
  egress:
  - {to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]}
"""
INTERNET = "  - {to: [{ipBlock: {cidr: 0.0.0.0/0}}], ports: [{port: 443}]}\n"
VLLM = 'image: "vllm/vllm-openai:v0.9.0", args: [--model, Qwen/Qwen2.5-7B-Instruct]'
OLLAMA = (
    'image: "ollama/ollama:0.11.4", ports: [{containerPort: 11434}], '
    'lifecycle: {postStart: {exec: {command: [sh, -c, "sleep 5; ollama pull llama3.2:3b"]}}}'
)
EMPTY = ", volumes: [{name: hub, emptyDir: {}}]"


def titles(container: str, rest: str = "", policy: str = EGRESS) -> list[str]:
    found = report_of(SERVER.format(container=container, rest=rest) + policy).findings
    return [f.title for f in found if f.check == "fqdn-egress"]


@pytest.mark.parametrize(
    ("container", "rest", "host"),
    [
        (VLLM, "", "huggingface.co"),
        (VLLM + ", volumeMounts: [{name: hub, mountPath: /root/.cache}]", EMPTY, "huggingface.co"),
        (
            'image: "vllm/vllm-openai:v0.9.0", command: [sh, -c, "vllm serve Qwen/Qwen3-8B --port 8000"]',
            "",
            "huggingface.co",
        ),
        (
            'image: "ghcr.io/huggingface/text-generation-inference:3.3", env: [{name: MODEL_ID, value: google/gemma-2-9b}]',
            "",
            "huggingface.co",
        ),
        (OLLAMA, "", "registry.ollama.ai"),
    ],
)
def test_a_server_that_fetches_its_model_needs_its_hub(container: str, rest: str, host: str) -> None:
    assert titles(container, rest) == [f"egress to {host} is not admitted"]
    assert titles(container, rest, EGRESS + INTERNET) == []


@pytest.mark.parametrize(
    ("container", "rest"),
    [
        ('image: "vllm/vllm-openai:v0.9.0", args: [--model, /models/qwen]', ""),
        ('image: "vllm/vllm-openai:v0.9.0", args: [--model, models/qwen]', ""),
        (VLLM + ", env: [{name: HF_HUB_OFFLINE, value: '1'}]", ""),
        (VLLM + ", env: [{name: HTTPS_PROXY, value: 'http://proxy.corp:3128'}]", ""),
        (VLLM + ", envFrom: [{secretRef: {name: hub}}]", ""),
        (
            VLLM + ", volumeMounts: [{name: hub, mountPath: /root/.cache}]",
            ", volumes: [{name: hub, persistentVolumeClaim: {claimName: hub}}]",
        ),
        (VLLM, ', initContainers: [{name: fetch, image: "curlimages/curl"}]'),
        ('image: "ghcr.io/berriai/litellm:main", args: [--model, openai/gpt-4o]', ""),
    ],
)
def test_what_may_be_there_already_or_come_another_way_is_left_alone(container: str, rest: str) -> None:
    assert [title for title in titles(container, rest) if "hugging" in title or "ollama" in title] == []


def test_the_remedy_for_cilium_admits_the_hosts_of_the_files_too() -> None:
    cilium = """---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: cilium, namespace: kube-system, labels: {k8s-app: cilium}}
spec:
  template:
    metadata: {labels: {k8s-app: cilium}}
    spec: {containers: [{name: cilium-agent, image: "quay.io/cilium/cilium:v1.17.0"}]}
"""
    report = report_of(SERVER.format(container=VLLM, rest="") + EGRESS + cilium)
    (finding,) = [f for f in report.findings if f.check == "fqdn-egress"]
    assert finding.remedy is not None
    assert all(
        f"'{name}'" in finding.remedy.yaml or name in finding.remedy.yaml for name in ("*.hf.co", "*.xethub.hf.co")
    )
    assert finding.remedy.trial.startswith("tried: heals it")
