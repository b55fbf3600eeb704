"""Faults of configured calls, of where servers listen, of serving systems' own timeouts, and between the pods of a job."""

from __future__ import annotations

from typing import Any

from tests.unit.doctor.faults.case import eks_training, fault
from tests.unit.doctor.faults.gpu import TRAIN
from tests.unit.doctor.faults.routes import made
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm
from tests.unit.doctor.worlds.world import NS, World, ingress, meta

MODEL = "Deployment chatbot/my-llama-finetuned"
RAG = "Deployment chatbot/rag-app"
FIRST = "spec.template.spec.containers[0]"


def rag(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.spec("Deployment", "rag-app")["containers"][0]
    return found


@fault("call-port", kubeadm, RAG, f"{FIRST}.env[1].value")
def pods_port_called_at_the_service(world: World) -> None:
    rag(world)["env"][1]["value"] = "http://my-llama-svc.chatbot.svc:8080/v1"


@fault("call-host", kubeadm, RAG, f"{FIRST}.env[0].value")
def service_that_was_renamed(world: World) -> None:
    rag(world)["env"][0]["value"] = "http://vectors:6333"


@fault("headless-missing", kubeadm, "StatefulSet chatbot/qdrant", "spec.serviceName")
def names_without_a_service(world: World) -> None:
    world.get("StatefulSet", "qdrant")["spec"]["serviceName"] = "qdrant-headless"
    first = ["./qdrant", "--uri", "http://qdrant-0.qdrant-headless:6335"]
    world.spec("StatefulSet", "qdrant")["containers"][0]["command"] = first


@fault("probe-path", kubeadm, "StatefulSet chatbot/qdrant", f"{FIRST}.readinessProbe.httpGet.path")
def probe_of_another_server(world: World) -> None:
    asked = {"httpGet": {"path": "/health", "port": 6333}}
    world.spec("StatefulSet", "qdrant")["containers"][0]["readinessProbe"] = asked


@fault("server-loopback", kubeadm, MODEL, f"{FIRST}.args")
def server_told_loopback(world: World) -> None:
    world.spec("Deployment", "my-llama-finetuned")["containers"][0]["args"] += ["--host", "127.0.0.1"]


@fault("server-port", kubeadm, MODEL, f"{FIRST}.livenessProbe.httpGet.port")
def server_told_another_port(world: World) -> None:
    world.spec("Deployment", "my-llama-finetuned")["containers"][0]["args"][-1] = "8090"


@fault(
    "ingress-grpc",
    kubeadm,
    "Ingress chatbot/vectors",
    "metadata.annotations[nginx.ingress.kubernetes.io/backend-protocol]",
    also=("service-endpoints", "ingress-tls"),
)
def grpc_behind_http(world: World) -> None:
    world.get("Service", "qdrant")["spec"]["ports"].append({"name": "grpc", "port": 6334, "targetPort": 6333})
    world.add(ingress("vectors", "vectors.example.com", "qdrant", 6334))


@fault("service-selects-workers", gke, "Service chatbot/my-llama-svc", "spec.selector")
def workers_behind_the_service(world: World) -> None:
    image = "vllm/vllm-openai:v0.8.4"
    port = {"name": "http", "containerPort": 8080}
    probe = {"httpGet": {"path": "/health", "port": 8080}}
    labels = {"app.kubernetes.io/name": "my-llama-finetuned"}
    leader = {"name": "m", "image": image, "args": ["--port", "8080"], "ports": [port], "readinessProbe": probe}
    worker = {"name": "m", "image": image, "command": ["sh", "-c", "ray start --block --address=$(LWS_LEADER_ADDRESS)"]}
    parts = {
        "leaderTemplate": {"metadata": {"labels": labels}, "spec": {"containers": [leader]}},
        "workerTemplate": {"metadata": {"labels": labels}, "spec": {"containers": [worker]}},
        "size": 2,
    }
    world.add(made("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet", "big", NS, spec={"leaderWorkerTemplate": parts}))


@fault("serving-stream-timeout", kubeadm, "Service chatbot/scaled", "spec.template.spec.timeoutSeconds")
def knative_cuts_streams(world: World) -> None:
    probe = {"httpGet": {"path": "/health", "port": 8000}}
    container = {"image": "vllm/vllm-openai:v0.8.4", "ports": [{"containerPort": 8000}], "readinessProbe": probe}
    spec = {"template": {"spec": {"timeoutSeconds": 60, "containers": [container]}}}
    world.add(made("serving.knative.dev/v1", "Service", "scaled", NS, spec=spec))


@fault("ai-gateway-timeout", kubeadm, "AIGatewayRoute chatbot/models", "spec.rules[0].timeouts.request")
def ai_gateway_cuts_streams(world: World) -> None:
    spec = {"rules": [{"backendRefs": [{"name": "my-llama"}]}]}
    world.add(made("aigateway.envoyproxy.io/v1alpha1", "AIGatewayRoute", "models", NS, spec=spec))


@fault("route-retries", gke, "BackendTrafficPolicy chatbot/again", "spec.retry.retryOn.triggers")
def gateway_repeats_prompts(world: World) -> None:
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "inference"}
    spec = {"targetRefs": [target], "retry": {"retryOn": {"triggers": ["reset", "connect-failure"]}}}
    world.add(made("gateway.envoyproxy.io/v1alpha1", "BackendTrafficPolicy", "again", NS, spec=spec))


@fault("policy-blocks-peers", eks_training, TRAIN, "spec.ingress", also=("efa-invisible",))
def rendezvous_alone_is_admitted(world: World) -> None:
    labels = world.get("StatefulSet", "llama-train")["spec"]["template"]["metadata"]["labels"]
    rule = {"from": [{"podSelector": {"matchLabels": labels}}], "ports": [{"protocol": "TCP", "port": 29500}]}
    spec = {"podSelector": {"matchLabels": labels}, "policyTypes": ["Ingress"], "ingress": [rule]}
    world.add(made("networking.k8s.io/v1", "NetworkPolicy", "train", NS, spec=spec))


@fault("route-listener", gke, "HTTPRoute edge/out", "spec.listeners[0].allowedRoutes.namespaces.from")
def gateway_that_takes_its_own_namespace_only(world: World) -> None:
    spec = {
        "parentRefs": [{"name": "inference", "namespace": NS}],
        "rules": [{"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]}],
    }
    world.add(made("gateway.networking.k8s.io/v1", "HTTPRoute", "out", "edge", spec=spec))


@fault(
    "nlb-proxy-protocol",
    eks,
    "Service chatbot/my-llama-svc",
    "metadata.annotations[service.beta.kubernetes.io/aws-load-balancer-proxy-protocol]",
    also=("nlb-idle-timeout", "nlb-target-type", "nlb-health-check", "policy-blocks-outside"),
)
def proxy_header_for_a_server(world: World) -> None:
    service = world.get("Service", "my-llama-svc")
    service["spec"].update(type="LoadBalancer", loadBalancerClass="service.k8s.aws/nlb")
    service["status"] = {"loadBalancer": {"ingress": [{"hostname": "nlb.example.com"}]}}
    notes = service["metadata"]["annotations"]
    notes["service.beta.kubernetes.io/aws-load-balancer-proxy-protocol"] = "*"


@fault("service-variable", kubeadm, MODEL, "metadata.name", also=("service-endpoints",))
def service_named_after_its_server(world: World) -> None:
    service = world.get("Service", "my-llama-svc")
    world.add({**service, "metadata": {**service["metadata"], "name": "vllm", "uid": "uid-vllm"}})


@fault(
    "openshift-route-timeout",
    kubeadm,
    "Route chatbot/chat",
    "metadata.annotations[haproxy.router.openshift.io/timeout]",
)
def route_with_the_routers_default(world: World) -> None:
    to = {"kind": "Service", "name": "my-llama-svc"}
    world.add(
        {"apiVersion": "route.openshift.io/v1", "kind": "Route", "metadata": meta("chat", NS), "spec": {"to": to}}
    )
