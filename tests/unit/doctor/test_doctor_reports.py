"""Public bug reports rebuilt as minimal manifests: each fault is found, and gone once it is mended as the report was.

The sources are the reports' own; names and addresses are made up. What objects do not tell is in `NOT_TOLD`: there
doctor has to stay silent.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.unit.doctor.manifest_reports import report_of


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


def policy(name: str, spec: str) -> str:
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: ai}}
spec: {spec}
"""


def backend_config(name: str, timeout_s: int) -> str:
    return f"""
---
apiVersion: cloud.google.com/v1
kind: BackendConfig
metadata: {{name: {name}, namespace: ai}}
spec: {{timeoutSec: {timeout_s}}}
"""


READY = "readinessProbe: {httpGet: {path: /health, port: 8000}}"
VLLM = deployment("llm", "vllm/vllm-openai:v0.10.1", f"ports: [{{containerPort: 8000}}]\n        {READY}")
LLM = service("llm", "llm")
ROUTE = """
---
apiVersion: route.openshift.io/v1
kind: Route
metadata: {name: llm, namespace: ai, annotations: {NOTE}}
spec: {to: {kind: Service, name: llm}}
"""
INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: chat, namespace: ai, annotations: {NOTES}}
spec:
  ingressClassName: CLASS
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: llm, port: {number: 80}}}}]}}]
"""
HTTP_ROUTE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm, namespace: ai}
spec:
  parentRefs: [{name: gw}]
  rules: [{backendRefs: [BACKEND], timeouts: {request: TIME}}]
"""
GATEWAY = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: ai}
spec: {gatewayClassName: edge, listeners: [{name: http, port: 80, protocol: HTTP}]}
"""
POOL = (
    """
---
apiVersion: GROUP
kind: InferencePool
metadata: {name: llm, namespace: ai}
spec:
  selector: {matchLabels: {app: llm}}
  targetPorts: [{number: PORT}]
  endpointPickerRef: {name: llm-picker, port: {number: 9002}}
"""
    + service("llm-picker", "epp", "[{port: 9002}]")
    + deployment("epp", "registry.test/epp:1", "ports: [{containerPort: 9002}]")
)
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
RAY = """
---
apiVersion: ray.io/v1
kind: RayCluster
metadata: {name: ray, namespace: ai}
spec:
  headGroupSpec:
    rayStartParams: {}
    template: {spec: {containers: [{name: head, image: "rayproject/ray:2.49.0", ports: [{containerPort: 6379, name: gcs}]}]}}
  workerGroupSpecs:
  - groupName: w
    replicas: 2
    rayStartParams: {}
    template: {spec: {containers: [{name: worker, image: "rayproject/ray:2.49.0"}]}}
"""
STRICT = """
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: ai}
spec: {mtls: {mode: STRICT}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ai, labels: {istio-injection: enabled}}
---
apiVersion: v1
kind: Namespace
metadata: {name: web}
"""
OUTSIDE = """
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: front, namespace: web}
spec:
  selector: {matchLabels: {app: front}}
  template:
    metadata: {labels: {app: front}}
    spec: {containers: [{name: c, image: "registry.test/front:1", env: [{name: LLM_URL, value: "http://llm.ai.svc:80"}]}]}
"""
APP = deployment("app", "registry.test/app:1", 'env: [{name: LLM_URL, value: "http://HOST"}]')
CLUSTERED = "args: [./entrypoint.sh, --uri, http://db-0.db-headless:6335]"

MISSPELT = "{group: inference.networking.k8s.io, kind: InferencePool, name: lama-pool}"

FOUND = (
    Reported(
        "vllm-project/vllm#34199", "service-variable", VLLM + service("vllm", "llm"), ("name: vllm,", "name: vllm-api,")
    ),
    Reported(
        "langflow-ai/langflow#4330",
        "service-variable",
        deployment("flow", "langflowai/langflow:1.5", "ports: [{containerPort: 7860}]")
        + service("langflow", "flow", "[{port: 7860}]"),
        ("restartPolicy: Always", "enableServiceLinks: false"),
    ),
    Reported(
        "n8n-io/n8n#8650",
        "service-variable",
        deployment("n8n", "n8nio/n8n:1.100.0") + service("n8n", "n8n", "[{port: 5678}]"),
        ("imagePullPolicy: Always", 'env: [{name: N8N_PORT, value: "5678"}]'),
    ),
    Reported(
        "trustyai-explainability/trustyai-service-operator#692",
        "openshift-route-timeout",
        VLLM + LLM + ROUTE.replace("NOTE", ""),
        ("annotations: {}}\nspec: {to", 'annotations: {haproxy.router.openshift.io/timeout: "5m"}}\nspec: {to'),
    ),
    Reported(
        "SeldonIO/seldon-core#3368",
        "openshift-route-timeout",
        VLLM + LLM + ROUTE.replace("NOTE", 'haproxy.router.openshift.io/timeout: "30s"'),
        ('"30s"', '"600s"'),
    ),
    Reported(
        "llm-d/llm-d-benchmark#1435",
        "server-port",
        deployment(
            "llm",
            "vllm/vllm-openai:v0.10.1",
            f'args: ["--model", "m", "--port", "8200"]\n        ports: [{{containerPort: 8200}}]\n        {READY}',
        )
        + service("llm", "llm", "[{port: 80, targetPort: 8200}]"),
        ("path: /health, port: 8000", "path: /health, port: 8200"),
    ),
    Reported(
        "vllm-project/vllm#4462",
        "readiness-probe-model",
        deployment(
            "llm",
            "ollama/ollama:0.9",
            "ports: [{containerPort: 11434}]\n        readinessProbe: {tcpSocket: {port: 11434}}",
        ),
        ("tcpSocket: {port: 11434}", "exec: {command: [ollama, show, llama3]}"),
    ),
    Reported("llm-d/llm-d#329", "readiness-probe", VLLM.replace(READY, "tty: false"), ("tty: false", READY)),
    Reported(
        "ai-dynamo/grove#134",
        "headless-not-ready",
        stateful(
            "llm",
            "vllm/vllm-openai:v0.10.1",
            "ring",
            "command: [torchrun, --rdzv-endpoint=llm-0.ring, serve.py]\n        readinessProbe: {exec: {command: [ready]}}"
            "\n        resources: {limits: {nvidia.com/gpu: 8}}",
        )
        + service("ring", "llm", "[{port: 29500}]", ", clusterIP: None"),
        ("clusterIP: None", "clusterIP: None, publishNotReadyAddresses: true"),
    ),
    Reported(
        "qdrant/qdrant-helm#115",
        "headless-not-ready",
        stateful(
            "db",
            "qdrant/qdrant:v1.13.4",
            "db-headless",
            CLUSTERED + "\n        readinessProbe: {httpGet: {path: /readyz, port: 6333}}",
        )
        + service("db-headless", "db", "[{port: 6335}]", ", clusterIP: None"),
        ("clusterIP: None", "clusterIP: None, publishNotReadyAddresses: true"),
    ),
    Reported(
        "milvus-io/milvus-helm#450",
        "headless-missing",
        stateful("etcd", "registry.test/etcd:3.5", "etcd-headles")
        + service("etcd-headless", "etcd", "[{port: 2380}]", ", clusterIP: None"),
        ("serviceName: etcd-headles\n", "serviceName: etcd-headless\n"),
    ),
    Reported(
        "ray-project/kuberay#1282",
        "policy-blocks-peers",
        RAY + policy("head", "{podSelector: {matchLabels: {ray.io/node-type: head}}, ingress: []}"),
        ("ingress: []", "ingress: [{from: [{podSelector: {matchLabels: {ray.io/cluster: ray}}}]}]"),
    ),
    Reported(
        "ray-project/ray#32831",
        "policy-blocks-peers",
        RAY
        + policy(
            "ray",
            "{podSelector: {matchLabels: {ray.io/cluster: ray}}, ingress: [{from: [{podSelector: {}}], ports: [{port: 6379}]}]}",
        ),
        (", ports: [{port: 6379}]", ""),
    ),
    Reported(
        "ray-project/kuberay#4638",
        "egress-without-dns",
        RAY
        + policy(
            "ray",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {ray.io/cluster: ray}}}]}]}",
        )
        + APP.replace("HOST", "ray-head-svc:8000"),
        (
            "egress: [{to: [{podSelector: {matchLabels: {ray",
            "egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}, {to: [{podSelector: {matchLabels: {ray",
        ),
    ),
    Reported("istio/istio#27169", "mesh-strict", VLLM + LLM + STRICT + OUTSIDE, ("mode: STRICT", "mode: PERMISSIVE")),
    Reported(
        "SeldonIO/seldon-operator#64",
        "mesh-strict",
        VLLM + LLM + STRICT + OUTSIDE,
        ("{name: web}", "{name: web, labels: {istio-injection: enabled}}"),
    ),
    Reported(
        "OpenRobOps/oro#151",
        "ingress-stream-timeout",
        VLLM
        + service("llm", "llm", more=", type: NodePort")
        + INGRESS.replace(
            "NOTES", 'kubernetes.io/ingress.class: gce, nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"'
        ).replace("  ingressClassName: CLASS\n", ""),
        (
            "annotations: {}}\nspec: {selector",
            'annotations: {cloud.google.com/backend-config: \'{"default":"long"}\'}}\nspec: {selector',
        ),
        backend_config("long", 3600),
    ),
    Reported(
        "FlowiseAI/Flowise#1468",
        "ingress-stream-timeout",
        VLLM
        + service("llm", "llm", more=", type: NodePort")
        + INGRESS.replace("NOTES", "kubernetes.io/ingress.class: gce").replace("  ingressClassName: CLASS\n", "")
        + backend_config("b", 30),
        (
            "annotations: {}}\nspec: {selector",
            'annotations: {cloud.google.com/backend-config: \'{"default":"b"}\'}}\nspec: {selector',
        ),
        backend_config("b", 1800),
    ),
    Reported(
        "opea-project/Enterprise-Inference#98",
        "ingress-stream-timeout",
        VLLM
        + LLM
        + INGRESS.replace("NOTES", "").replace("CLASS", "nginx")
        + deployment("ingress-nginx-controller", "registry.k8s.io/ingress-nginx/controller:v1.12.0"),
        (
            "metadata: {name: chat, namespace: ai, annotations: {}",
            'metadata: {name: chat, namespace: ai, annotations: {nginx.ingress.kubernetes.io/proxy-read-timeout: "300"}',
        ),
    ),
    Reported(
        "langwatch/langwatch#7020",
        "ingress-buffering",
        VLLM
        + LLM
        + INGRESS.replace(
            "NOTES",
            'nginx.ingress.kubernetes.io/proxy-buffering: "on", nginx.ingress.kubernetes.io/proxy-read-timeout: "3600"',
        ).replace("CLASS", "nginx")
        + deployment("ingress-nginx-controller", "registry.k8s.io/ingress-nginx/controller:v1.12.0"),
        ('proxy-buffering: "on"', 'proxy-buffering: "off"'),
    ),
    Reported(
        "vllm-project/aibrix#1176",
        "route-stream-timeout",
        VLLM + LLM + HTTP_ROUTE.replace("BACKEND", "{name: llm, port: 80}").replace("TIME", "120s") + GATEWAY,
        ("request: 120s", "request: 3600s"),
    ),
    Reported(
        "defilantech/LLMKube#734",
        "route-stream-timeout",
        VLLM + LLM + HTTP_ROUTE.replace("BACKEND", "{name: llm, port: 80}").replace("TIME", "60s") + GATEWAY,
        ("request: 60s", "request: 0s"),
    ),
    Reported(
        "kubernetes-sigs/gateway-api-inference-extension#1530",
        "route-backend",
        VLLM
        + POOL.replace("GROUP", "inference.networking.k8s.io/v1").replace("PORT", "8000")
        + HTTP_ROUTE.replace(
            "BACKEND", "{group: inference.networking.x-k8s.io, kind: InferencePool, name: llm}"
        ).replace("TIME", "0s")
        + GATEWAY,
        ("{group: inference.networking.x-k8s.io", "{group: inference.networking.k8s.io"),
    ),
    Reported(
        "kubernetes-sigs/gateway-api-inference-extension#1591",
        "route-backend",
        VLLM
        + POOL.replace("GROUP", "inference.networking.k8s.io/v1")
        .replace("PORT", "8000")
        .replace("name: llm,", "name: llama-pool,")
        + HTTP_ROUTE.replace("BACKEND", MISSPELT).replace("TIME", "0s")
        + GATEWAY,
        ("name: lama-pool}", "name: llama-pool}"),
    ),
    Reported(
        "kubernetes-sigs/gateway-api-inference-extension#959",
        "inference-pool",
        VLLM
        + POOL.replace("GROUP", "inference.networking.k8s.io/v1")
        .replace("PORT", "8000")
        .replace("Ref: {name: llm-picker", "Ref: {name: llm-piker"),
        ("Ref: {name: llm-piker,", "Ref: {name: llm-picker,"),
    ),
    Reported(
        "kgateway-dev/kgateway#10987",
        "inference-pool",
        VLLM + POOL.replace("GROUP", "inference.networking.k8s.io/v1").replace("PORT", "8080"),
        ("{number: 8080}", "{number: 8000}"),
    ),
    Reported(
        "kubeflow/mpi-operator#427",
        "host-network-dns",
        JOB.replace("POD", "hostNetwork: true")
        .replace("MORE", "")
        .replace("ENV", "{name: MASTER_ADDR, value: master.ring.ai.svc.cluster.local}"),
        ("hostNetwork: true", "hostNetwork: true\n          dnsPolicy: ClusterFirstWithHostNet"),
    ),
    Reported(
        "kubernetes/dns#316",
        "host-network-dns",
        deployment(
            "app", "registry.test/app:1", 'env: [{name: LLM_URL, value: "http://llm.ai.svc:80"}]', "hostNetwork: true"
        )
        + VLLM
        + LLM,
        ("hostNetwork: true", "hostNetwork: true\n      dnsPolicy: ClusterFirstWithHostNet"),
    ),
    Reported(
        "NVIDIA/nccl#1016",
        "nccl-settings",
        JOB.replace("POD", "restartPolicy: Never")
        .replace("MORE", "")
        .replace("ENV", "{name: NCCL_SOCKET_IFNAME, value: net1}"),
        ("value: net1", "value: eth0"),
    ),
    Reported(
        "horovod/horovod#584",
        "nccl-settings",
        JOB.replace("POD", "restartPolicy: Never")
        .replace("MORE", "")
        .replace("ENV", "{name: NCCL_SOCKET_IFNAME, value: lo}"),
        ("value: lo", 'value: "^lo"'),
    ),
    Reported(
        "NVIDIA/nccl#719 (without the capability)",
        "rdma-memlock",
        JOB.replace("POD", "restartPolicy: Never").replace("MORE", ", rdma/rdma_shared_device_a: 1").replace("ENV", ""),
        (
            "image: registry.test/tune:1",
            "image: registry.test/tune:1\n            securityContext: {capabilities: {add: [IPC_LOCK]}}",
        ),
    ),
    Reported(
        "awslabs/awsome-distributed-ai#386",
        "nccl-settings",
        JOB.replace("POD", "restartPolicy: Never")
        .replace("MORE", "")
        .replace("ENV", "{name: FI_PROVIDER, value: efa}"),
        ("nvidia.com/gpu: 8", "nvidia.com/gpu: 8, vpc.amazonaws.com/efa: 4, hugepages-2Mi: 5Gi, memory: 8Gi"),
    ),
    Reported(
        "aws/sagemaker-hyperpod-cli#282",
        "efa-plugin-version",
        """
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: aws-efa-k8s-device-plugin, namespace: kube-system}
spec:
  selector: {matchLabels: {name: efa}}
  template:
    metadata: {labels: {name: efa}}
    spec: {containers: [{name: c, image: "602401143452.dkr.ecr.us-west-2.amazonaws.com/eks/aws-efa-k8s-device-plugin:v0.5.8"}]}
---
apiVersion: v1
kind: Node
metadata: {name: n, labels: {node.kubernetes.io/instance-type: p6-b200.48xlarge}}
spec: {providerID: "aws:///us-west-2a/i-1"}
""",
        ("plugin:v0.5.8", "plugin:v0.5.10"),
    ),
    Reported(
        "crate/crate#12018",
        "call-port",
        stateful("db", "qdrant/qdrant:v1.13.4", "db")
        + service("db", "db", "[{port: 6333}]")
        + APP.replace("HOST", "db:6335"),
        ("http://db:6335", "http://db:6333"),
    ),
    Reported(
        "kubernetes/kubernetes#112481",
        "service-selector",
        VLLM + service("llm", "lm", "[{port: 80, targetPort: 8000}]"),
        ("selector: {app: lm}", "selector: {app: llm}"),
    ),
    Reported(
        "kubernetes/ingress-gce#1803",
        "ingress-stream-timeout",
        VLLM
        + service("llm", "llm", more=", type: NodePort")
        + INGRESS.replace(
            "NOTES", 'kubernetes.io/ingress.class: gce, cloud.google.com/backend-config: \'{"default":"b"}\''
        ).replace("  ingressClassName: CLASS\n", "")
        + backend_config("b", 7200),
        (
            "annotations: {}}\nspec: {selector",
            'annotations: {cloud.google.com/backend-config: \'{"default":"b"}\'}}\nspec: {selector',
        ),
    ),
    Reported(
        "vllm-project/vllm#20119 (the port that clients ask)",
        "server-port",
        deployment("llm", "vllm/vllm-openai:v0.10.1", 'args: ["--port", "13345"]')
        + service("llm", "llm", "[{port: 80, targetPort: 8000}]"),
        ('"13345"', '"8000"'),
    ),
    Reported(
        "llm-d/llm-d#394 (a server on loopback)",
        "server-loopback",
        deployment(
            "llm",
            "vllm/vllm-openai:v0.10.1",
            f'args: ["--host", "127.0.0.1"]\n        ports: [{{containerPort: 8000}}]\n        {READY}',
        )
        + LLM,
        ('"127.0.0.1"', '"0.0.0.0"'),
    ),
    Reported(
        "kubernetes-sigs/lws#105 (a Service in front of workers)",
        "service-target-port",
        VLLM + service("llm", "llm", "[{port: 80, targetPort: http}]"),
        ("targetPort: http", "targetPort: 8000"),
    ),
    Reported(
        "cadence-workflow/cadence#2063",
        "call-host",
        VLLM + service("llama-api", "llm") + APP.replace("HOST", "lama-api.ai.svc:80"),
        ("http://lama-api", "http://llama-api"),
    ),
    Reported(
        "kagent-dev/kagent#1973",
        "openshift-route-timeout",
        APP.replace("HOST", "llm:80")
        + VLLM
        + LLM
        + service("app", "app", "[{port: 80, targetPort: 8080}]")
        + ROUTE.replace("NOTE", "").replace("name: llm}", "name: app}"),
        ("annotations: {}}\nspec: {to", 'annotations: {haproxy.router.openshift.io/timeout: "120m"}}\nspec: {to'),
    ),
)

NOT_TOLD = (
    # The name of a device on the nodes' own network.
    (
        "marin-community/marin#6940",
        "nccl-settings",
        JOB.replace("POD", "hostNetwork: true")
        .replace("MORE", "")
        .replace(
            "ENV", "{name: NCCL_SOCKET_IFNAME, value: =enp90s0np0}, {name: GLOO_SOCKET_IFNAME, value: enp90s0np0}"
        ),
    ),
    # A resolver of the cluster that answers "server misbehaving".
    ("milvus-io/milvus-helm#297", "dns-failures", stateful("etcd", "registry.test/etcd:3.5", "etcd")),
    # An operator that makes another object than was asked for.
    ("envoyproxy/ai-gateway#2230", "route-backend", VLLM + LLM),
    # Raft that times out between pods that reach each other.
    (
        "qdrant/qdrant#7585",
        "policy-blocks-peers",
        stateful("db", "qdrant/qdrant:v1.13.6", "db-headless", CLUSTERED, 2)
        + service("db-headless", "db", "[{port: 6335}]", ", clusterIP: None, publishNotReadyAddresses: true"),
    ),
)


def checks_of(text: str) -> set[str]:
    return {f.check for f in report_of(text).findings}


@pytest.mark.parametrize("reported", FOUND, ids=lambda r: r.source)
def test_a_reported_fault_is_found_and_gone_once_it_is_mended(reported: Reported) -> None:
    assert reported.check in checks_of(reported.text)
    assert reported.check not in checks_of(reported.sound)


@pytest.mark.parametrize(("source", "check", "text"), NOT_TOLD, ids=[n[0] for n in NOT_TOLD])
def test_of_what_objects_do_not_tell_nothing_is_said(source: str, check: str, text: str) -> None:
    assert check not in checks_of(text)
