"""Public reports of token streams and of the routes that lead to models."""

from __future__ import annotations

from tests.unit.doctor.public.reported import APP, LLM, VLLM, Reported, deployment, service


def backend_config(name: str, timeout_s: int) -> str:
    return f"""
---
apiVersion: cloud.google.com/v1
kind: BackendConfig
metadata: {{name: {name}, namespace: ai}}
spec: {{timeoutSec: {timeout_s}}}
"""


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

MISSPELT = "{group: inference.networking.k8s.io, kind: InferencePool, name: lama-pool}"

ATTACHED = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: llm, namespace: ai}
spec:
  parentRefs: [{name: gw, namespace: edge}]
  rules: [{backendRefs: [BACKEND]}]
"""
EDGE = """
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: gw, namespace: edge}
spec:
  gatewayClassName: cilium
  listeners: [{name: https, port: 443, protocol: HTTPS, allowedRoutes: {namespaces: {from: FROM}}}]
"""
GRANT = """
---
apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: llm, namespace: ai}
spec:
  from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: edge}]
  to: [{group: "", kind: Service, name: llm}]
"""
NLB = (
    "service.beta.kubernetes.io/aws-load-balancer-type: external,"
    " service.beta.kubernetes.io/aws-load-balancer-nlb-target-type: ip"
)
VIRTUAL = """
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: llm, namespace: ai}
spec: {hosts: [llm], http: [{timeout: TIME, route: [{destination: {host: llm}}]}]}
"""


STREAMS = (
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
        "kagent-dev/kagent#1973",
        "openshift-route-timeout",
        APP.replace("HOST", "llm:80")
        + VLLM
        + LLM
        + service("app", "app", "[{port: 80, targetPort: 8080}]")
        + ROUTE.replace("NOTE", "").replace("name: llm}", "name: app}"),
        ("annotations: {}}\nspec: {to", 'annotations: {haproxy.router.openshift.io/timeout: "120m"}}\nspec: {to'),
    ),
    Reported(
        "vdupain/gitops-k8s#53",
        "route-listener",
        VLLM + LLM + ATTACHED.replace("BACKEND", "{name: llm, port: 80}") + EDGE.replace("FROM", "Same"),
        ("from: Same", "from: All"),
    ),
    Reported(
        "Kong/kubernetes-ingress-controller#2828",
        "reference-grant",
        VLLM
        + LLM
        + ATTACHED.replace("namespace: ai", "namespace: edge").replace(
            "BACKEND", "{name: llm, namespace: ai, port: 80}"
        )
        + EDGE.replace("FROM", "Same"),
        add=GRANT,
    ),
    Reported(
        "kubernetes-sigs/aws-load-balancer-controller#3843",
        "nlb-idle-timeout",
        VLLM + service("llm", "llm", more=", type: LoadBalancer", notes=NLB),
        (
            "target-type: ip",
            "target-type: ip, service.beta.kubernetes.io/aws-load-balancer-listener-attributes.TCP-80: "
            "tcp.idle_timeout.seconds=3600",
        ),
    ),
    Reported(
        "kubernetes/ingress-nginx#5695",
        "nlb-idle-timeout",
        VLLM
        + service(
            "llm",
            "llm",
            more=", type: LoadBalancer",
            notes=f'{NLB}, service.beta.kubernetes.io/aws-load-balancer-connection-idle-timeout: "3600"',
        ),
        (
            'aws-load-balancer-connection-idle-timeout: "3600"',
            "aws-load-balancer-listener-attributes.TCP-80: tcp.idle_timeout.seconds=3600",
        ),
    ),
    Reported(
        "kubernetes/ingress-nginx#6273",
        "ingress-grpc",
        deployment("triton", "nvcr.io/nvidia/tritonserver:24.05-py3", "ports: [{containerPort: 8001}]")
        + service("llm", "triton", "[{name: grpc, port: 80, targetPort: 8001}]")
        + INGRESS.replace("NOTES", "a: b").replace("CLASS", "nginx"),
        ("a: b", "nginx.ingress.kubernetes.io/backend-protocol: GRPC"),
    ),
    Reported(
        "milvus-io/milvus-helm#313 (without the annotation)",
        "ingress-grpc",
        deployment("milvus", "milvusdb/milvus:v2.6.0", "ports: [{containerPort: 19530}]")
        + service("llm", "milvus", "[{port: 80, targetPort: 19530}]")
        + INGRESS.replace("NOTES", "a: b").replace("CLASS", "nginx"),
        ("a: b", "nginx.ingress.kubernetes.io/backend-protocol: GRPC"),
    ),
    Reported(
        "SeldonIO/seldon-core#5156",
        "mesh-stream-timeout",
        VLLM + LLM + VIRTUAL.replace("TIME", "60s"),
        ("timeout: 60s", "timeout: 3600s"),
    ),
)
