"""Objects of public bug reports rebuilt as minimal manifests; a report is a fault, the check that tells it, the mend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Reported:
    """`mend` is what turns the faulty text into the sound one: (old, new); empty where a part is added (`add`)."""

    source: str
    check: str
    text: str
    mend: tuple[str, str] = ("", "")
    add: str = ""

    @property
    def sound(self) -> str:
        assert not self.mend[0] or self.mend[0] in self.text
        return self.text.replace(*self.mend) + self.add if self.mend[0] else self.text + self.add


def deployment(name: str, image: str, more: str = "", pod: str = "", meta: str = "") -> str:
    return f"""
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: ai{meta}}}
spec:
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      {pod or "restartPolicy: Always"}
      containers:
      - name: main
        image: {image}
        {more or "imagePullPolicy: Always"}
"""


def service(name: str, app: str, ports: str = "[{port: 80, targetPort: 8000}]", more: str = "", notes: str = "") -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: ai, annotations: {{{notes}}}}}
spec: {{selector: {{app: {app}}}, ports: {ports}{more}}}
"""


def stateful(name: str, image: str, service_name: str, more: str = "", replicas: int = 3) -> str:
    return f"""
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {{name: {name}, namespace: ai}}
spec:
  replicas: {replicas}
  serviceName: {service_name}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      containers:
      - name: main
        image: {image}
        {more or "imagePullPolicy: Always"}
"""


READY = "readinessProbe: {httpGet: {path: /health, port: 8000}}"

VLLM = deployment("llm", "vllm/vllm-openai:v0.10.1", f"ports: [{{containerPort: 8000}}]\n        {READY}")

LLM = service("llm", "llm")

JOB = """
---
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: tune, namespace: ai}
spec:
  pytorchReplicaSpecs:
    Worker:
      replicas: 2
      template:
        spec:
          POD
          containers:
          - name: pytorch
            image: registry.test/tune:1
            command: [torchrun, train.py]
            resources: {limits: {nvidia.com/gpu: 8MORE}}
            env: [ENV]
"""

APP = deployment("app", "registry.test/app:1", 'env: [{name: LLM_URL, value: "http://HOST"}]')

CLUSTERED = "args: [./entrypoint.sh, --uri, http://db-0.db-headless:6335]"
