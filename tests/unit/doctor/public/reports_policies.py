"""Public reports of policies and meshes."""

from __future__ import annotations

from tests.unit.doctor.public.reported import APP, LLM, VLLM, Reported, deployment, service, stateful


def policy(name: str, spec: str) -> str:
    return f"""
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}, namespace: ai}}
spec: {spec}
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

INJECTED = """
---
apiVersion: v1
kind: Namespace
metadata: {name: ai, labels: {istio-injection: enabled}}
"""

CPU_JOB = """
---
apiVersion: kubeflow.org/v1
kind: PyTorchJob
metadata: {name: simple, namespace: ai}
spec: {pytorchReplicaSpecs: {Worker: {replicas: 3, template: {spec: {containers: [{name: pytorch, image: "a/m:1"}]}}}}}
"""

TRIAL = """
---
apiVersion: batch/v1
kind: Job
metadata: {name: trial, namespace: ai}
spec:
  template:
    spec: {restartPolicy: Never, containers: [{name: t, image: "registry.test/t:1", command: [python, train.py]}]}
"""

CILIUM = """
---
apiVersion: cilium.io/v2
kind: CiliumNetworkPolicy
metadata: {name: app, namespace: ai}
spec:
  endpointSelector: {matchLabels: {app: app}}
  egress:
  - toEndpoints: [{matchLabels: {"k8s:io.kubernetes.pod.namespace": kube-system, "k8s:k8s-app": kube-dns}}]
    toPorts: [{ports: [{port: "53"}]RULES}]
  - toFQDNs: [{matchName: api.openai.com}]
"""
WEBHOOK = deployment("webhook", "registry.test/webhook:1", "ports: [{containerPort: 9443}]") + service(
    "webhook", "webhook", "[{port: 443, targetPort: 9443}]"
)
NGINX = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: chat, namespace: ai}
spec:
  ingressClassName: nginx
  rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: llm, port: {number: 80}}}}]}}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: ingress-nginx-controller, namespace: web}
spec:
  selector: {matchLabels: {app: nginx}}
  template:
    metadata: {labels: {app: nginx}}
    spec: {containers: [{name: c, image: "registry.k8s.io/ingress-nginx/controller:v1.12.0", args: [--ingress-class=nginx]}]}
"""


POLICIES = (
    Reported(
        "kubeflow/trainer#1637",
        "mesh-in-job",
        INJECTED + CPU_JOB,
        ("template: {spec", 'template: {metadata: {labels: {sidecar.istio.io/inject: "false"}}, spec'),
    ),
    Reported(
        "kubeflow/katib#955", "mesh-in-job", INJECTED + TRIAL, ("istio-injection: enabled", "istio-injection: disabled")
    ),
    Reported(
        "DandyDeveloper/charts#151",
        "egress-without-dns",
        stateful("redis", "redis:7", "redis", "env: [{name: PEER, value: 'redis://redis-announce-0:6379'}]")
        + service("redis-announce-0", "redis", "[{port: 6379}]")
        + policy(
            "redis",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 6379}]}]}",
        ),
        (", egress: [", ", egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}, "),
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
        "aws/aws-network-policy-agent#230",
        "egress-without-dns",
        APP.replace("HOST", "llm:80")
        + VLLM
        + LLM
        + policy("egress", "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}]}]}"),
        ("egress: [{to", "egress: [{ports: [{port: 53, protocol: UDP}, {port: 53}]}, {to"),
    ),
    Reported(
        "kubernetes/website#50012",
        "egress-without-dns",
        APP.replace("HOST", "llm:80")
        + policy(
            "np",
            "{podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], "
            "ports: [{port: 53, protocol: TCP}, {port: 53, protocol: UDP}]}]}",
        ),
        ("{podSelector: {}}], ports:", "{podSelector: {}}]}, {ports:"),
    ),
    Reported(
        "cilium/cilium#7109",
        "cilium-fqdn-dns",
        CILIUM.replace("RULES", ""),
        ('"53"}]', '"53"}], rules: {dns: [{matchPattern: "*"}]}'),
    ),
    Reported(
        "apache/apisix-ingress-controller#2812",
        "policy-service-port",
        WEBHOOK + policy("hook", "{podSelector: {matchLabels: {app: webhook}}, ingress: [{ports: [{port: 443}]}]}"),
        ("ports: [{port: 443}]}]}", "ports: [{port: 9443}]}]}"),
    ),
    Reported(
        "projectcalico/calico#8049",
        "policy-service-port",
        APP.replace("HOST", "db1:80")
        + deployment("db1", "registry.test/db:1", "ports: [{containerPort: 8080}]")
        + service("db1", "db1", "[{port: 80, targetPort: 8080}]")
        + policy(
            "np",
            "{podSelector: {matchLabels: {app: app}}, policyTypes: [Egress], egress: [{ports: [{port: 53, protocol: UDP}]}, "
            "{to: [{podSelector: {matchLabels: {app: db1}}}], ports: [{port: 80}]}]}",
        ),
        ("ports: [{port: 80}]}]}", "ports: [{port: 8080}]}]}"),
    ),
    Reported("istio/istio#24668", "mesh-strict", VLLM + LLM + STRICT + NGINX, ("mode: STRICT", "mode: PERMISSIVE")),
)
