"""Faults of Ingresses, Gateways and service meshes."""

from __future__ import annotations

from kubectl_genainet.model.cluster import LeftOut
from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.faults.case import MODEL, fault
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm
from tests.unit.doctor.worlds.policies import egress_policy
from tests.unit.doctor.worlds.world import NS, Builder, World, container, daemon, ingress, meta


@fault("ingress-backend", kubeadm, "Ingress chatbot/chat", "spec.rules[0].http.paths[0].backend.service.name")
def ingress_to_no_service(world: World) -> None:
    world.get("Ingress", "chat")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"] = "chat-ui"


@fault("ingress-backend", kubeadm, "Ingress chatbot/chat", "spec.rules[0].http.paths[0].backend.service.port.number")
def ingress_to_no_port(world: World) -> None:
    world.get("Ingress", "chat")["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["port"]["number"] = 8080


@fault("ingress-controller", kubeadm, "Ingress chatbot/chat", "spec.ingressClassName")
def ingress_of_an_unknown_class(world: World) -> None:
    world.get("Ingress", "chat")["spec"]["ingressClassName"] = "haproxy"
    world.get("Ingress", "chat")["metadata"]["annotations"]["haproxy.org/timeout-server"] = "3600s"


@fault("ingress-controller", kubeadm, "Ingress chatbot/chat", "spec.controller")
def ingress_controller_gone(world: World) -> None:
    world.remove("Deployment", "ingress-nginx-controller", "ingress-nginx")


@fault("ingress-tls", kubeadm, "Ingress chatbot/chat", "spec.tls[0].secretName")
def tls_secret_missing(world: World) -> None:
    world.remove("Secret", "chat-tls")


def certificate(world: World, ready: str) -> None:
    """As on a live cluster: Secrets are never read, cert-manager's Certificates are."""
    world.remove("Secret", "chat-tls")
    world.left_out.append(LeftOut("Secret", "never read"))
    world.add(
        {
            "apiVersion": "cert-manager.io/v1",
            "kind": "Certificate",
            "metadata": meta("chat", NS),
            "spec": {"secretName": "chat-tls"},
            "status": {"conditions": [{"type": "Ready", "status": ready, "message": "waiting for it"}]},
        }
    )


@fault("ingress-tls", kubeadm, "Ingress chatbot/chat", "status.conditions[Ready]")
def certificate_not_issued(world: World) -> None:
    certificate(world, "False")


@fault(
    "ingress-buffering",
    kubeadm,
    "Ingress chatbot/chat",
    "metadata.annotations[nginx.ingress.kubernetes.io/proxy-buffering]",
)
def tokens_are_buffered(world: World) -> None:
    world.get("Ingress", "chat")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-buffering"] = "on"


@fault(
    "ingress-stream-timeout",
    kubeadm,
    "Ingress chatbot/chat",
    "metadata.annotations[nginx.ingress.kubernetes.io/proxy-read-timeout]",
)
def streams_cut_after_a_minute(world: World) -> None:
    world.get("Ingress", "chat")["metadata"]["annotations"] = {}


@fault(
    "ingress-rewrite",
    kubeadm,
    "Ingress chatbot/chat",
    "metadata.annotations[nginx.ingress.kubernetes.io/rewrite-target]",
)
def paths_are_lost(world: World) -> None:
    chat = world.get("Ingress", "chat")
    chat["metadata"]["annotations"]["nginx.ingress.kubernetes.io/rewrite-target"] = "/"
    chat["spec"]["rules"][0]["http"]["paths"][0]["path"] = "/chat"


def proxy(world: World, target: str, settings: str) -> None:
    """The chat front end's own nginx, which passes requests on to a Service."""
    location = f"location / {{ proxy_pass http://{target}; {settings} }}"
    data = {"nginx.conf": f"events {{}}\nhttp {{ server {{ listen 8080; {location} }} }}"}
    world.add({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta("edge-conf", NS), "data": data})
    spec = world.spec("Deployment", "chatbot-ui", NS)
    spec["volumes"] = [{"name": "edge", "configMap": {"name": "edge-conf"}}]
    spec["containers"][0]["volumeMounts"] = [
        {"name": "edge", "mountPath": "/etc/nginx/nginx.conf", "subPath": "nginx.conf"}
    ]


@fault("ingress-buffering", kubeadm, "ConfigMap chatbot/edge-conf", "data[nginx.conf]")
def proxy_keeps_tokens_back(world: World) -> None:
    proxy(world, "my-llama-svc", "proxy_read_timeout 1h; client_max_body_size 0;")


@fault("ingress-stream-timeout", kubeadm, "ConfigMap chatbot/edge-conf", "data[nginx.conf]")
def proxy_cuts_streams(world: World) -> None:
    proxy(world, "my-llama-svc", "proxy_buffering off; client_max_body_size 0;")


@fault("proxy-body-size", kubeadm, "ConfigMap chatbot/edge-conf", "data[nginx.conf]", severity=Severity.WARNING)
def proxy_refuses_pictures(world: World) -> None:
    world.spec("Deployment", "my-llama-finetuned", NS)["containers"][0]["args"][1] = "/models/my-llama-vision"
    proxy(world, "my-llama-svc", "proxy_buffering off; proxy_read_timeout 1h;")


@fault("proxy-upgrade", kubeadm, "ConfigMap chatbot/edge-conf", "data[nginx.conf]")
def proxy_drops_the_web_socket(world: World) -> None:
    world.spec("Deployment", "rag-app", NS)["containers"][0]["args"] = ["streamlit", "run", "app.py"]
    proxy(world, "rag-app", "proxy_http_version 1.1;")


def alb(world: World) -> None:
    world.add(
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "IngressClass",
            "metadata": meta("alb"),
            "spec": {"controller": "ingress.k8s.aws/alb"},
        },
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("model-tls", NS)},
        ingress("model", "model.acme.test", "my-llama-svc", 80, cls="alb"),
    )
    world.get("Ingress", "model")["metadata"]["annotations"] = {
        "alb.ingress.kubernetes.io/target-type": "ip",
        "alb.ingress.kubernetes.io/load-balancer-attributes": "idle_timeout.timeout_seconds=4000",
        "alb.ingress.kubernetes.io/healthcheck-path": "/health",
    }


def eks_alb() -> World:
    world = eks()
    alb(world)
    return world


@fault(
    "ingress-stream-timeout",
    eks_alb,
    "Ingress chatbot/model",
    "metadata.annotations[alb.ingress.kubernetes.io/load-balancer-attributes]",
)
def alb_idle_timeout(world: World) -> None:
    del world.get("Ingress", "model")["metadata"]["annotations"]["alb.ingress.kubernetes.io/load-balancer-attributes"]


@fault(
    "alb-target-type",
    eks_alb,
    "Ingress chatbot/model",
    "metadata.annotations[alb.ingress.kubernetes.io/target-type]",
    severity=Severity.ERROR,
)
def alb_to_instances(world: World) -> None:
    del world.get("Ingress", "model")["metadata"]["annotations"]["alb.ingress.kubernetes.io/target-type"]


@fault(
    "load-balancer-health-path",
    eks_alb,
    "Ingress chatbot/model",
    "metadata.annotations[alb.ingress.kubernetes.io/healthcheck-path]",
    severity=Severity.WARNING,
)
def alb_asks_the_root(world: World) -> None:
    del world.get("Ingress", "model")["metadata"]["annotations"]["alb.ingress.kubernetes.io/healthcheck-path"]


@fault("ingress-path-conflict", kubeadm, "Ingress chatbot/chat-two", "spec.rules[0].http.paths[0].backend.service.name")
def two_ingresses_one_path(world: World) -> None:
    world.add(
        ingress("chat-two", "chat.acme.test", "rag-app", 80),
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("chat-two-tls", NS)},
    )


@fault(
    "ingress-path-conflict",
    kubeadm,
    "Ingress chatbot/chat-canary",
    "metadata.annotations[nginx.ingress.kubernetes.io/canary]",
)
def canary_without_a_main_ingress(world: World) -> None:
    world.add(
        ingress("chat-canary", "canary.acme.test", "rag-app", 80),
        {"apiVersion": "v1", "kind": "Secret", "metadata": meta("chat-canary-tls", NS)},
    )
    world.get("Ingress", "chat-canary")["metadata"]["annotations"]["nginx.ingress.kubernetes.io/canary"] = "true"


@fault("gateway-accepted", gke, "Gateway chatbot/inference", "status.conditions[Programmed].status")
def gateway_not_programmed(world: World) -> None:
    world.get("Gateway", "inference")["status"]["conditions"][1] |= {"status": "False", "reason": "AddressNotAssigned"}


@fault("route-accepted", gke, "HTTPRoute chatbot/my-llama", "status.parents[0].conditions[Accepted].status")
def route_refused(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["status"]["parents"][0]["conditions"][0] |= {
        "status": "False",
        "reason": "NotAllowedByListeners",
    }


@fault("route-accepted", gke, "HTTPRoute chatbot/my-llama", "spec.parentRefs[0].name")
def route_of_no_gateway(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["parentRefs"][0]["name"] = "inferences"


@fault("route-backend", gke, "HTTPRoute chatbot/my-llama", "spec.rules[0].backendRefs[0].name")
def route_to_no_pool(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["rules"][0]["backendRefs"][0]["name"] = "my-lama"


@fault(
    "route-backend",
    gke,
    "HTTPRoute chatbot/my-llama",
    "spec.rules[0].backendRefs[0].port",
    also=("load-balancer-health-path",),
)
def route_to_no_port(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["rules"][0]["backendRefs"] = [{"name": "my-llama-svc", "port": 8080}]


@fault(
    "reference-grant",
    gke,
    "HTTPRoute edge/my-llama",
    "spec.rules[0].backendRefs[0].namespace",
    also=("route-stream-timeout", "route-listener", "load-balancer-health-path"),
)
def route_without_a_grant(world: World) -> None:
    world.add(
        {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": meta("my-llama", "edge"),
            "spec": {
                "parentRefs": [{"name": "inference", "namespace": NS}],
                "rules": [{"backendRefs": [{"name": "my-llama-svc", "namespace": NS, "port": 80}]}],
            },
        }
    )


@fault("route-stream-timeout", gke, "HTTPRoute chatbot/my-llama", "spec.rules[0].timeouts.request")
def route_cuts_streams(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["rules"][0]["timeouts"] = {"request": "30s"}


@fault("inference-pool", gke, "InferencePool chatbot/my-llama", "spec.selector")
def pool_without_pods(world: World) -> None:
    world.get("InferencePool", "my-llama")["spec"]["selector"] = {"matchLabels": {"app": "vllm"}}


@fault("inference-pool", gke, "InferencePool chatbot/my-llama", "spec.targetPorts[0].number")
def pool_with_a_wrong_port(world: World) -> None:
    world.get("InferencePool", "my-llama")["spec"]["targetPorts"] = [{"number": 8000}]


@fault("inference-pool", gke, "InferencePool chatbot/my-llama", "spec.endpointPickerRef.name")
def pool_without_a_picker(world: World) -> None:
    world.get("InferencePool", "my-llama")["spec"]["endpointPickerRef"]["name"] = "epp"


def sidecars(world: World, *names: str, proxy: str = "istio-proxy") -> None:
    for name in names:
        for pod in world.pods(name):
            pod["spec"]["containers"].append(container(proxy, "docker.io/istio/proxyv2:1.24.2"))
    build = Builder(world, {n["metadata"]["name"]: "192.168.10.11" for n in world.of("Node")}, "10.244.6")
    if ("Deployment", "istio-system", "istiod") not in world.objects:
        build.controller(
            "Deployment",
            "istiod",
            "istio-system",
            {"app": "istiod"},
            {"containers": [container("discovery", "docker.io/istio/pilot:1.24.2", 15012)]},
            [world.of("Node")[0]["metadata"]["name"]],
        )


ALL = ("chatbot-ui", "rag-app", "my-llama-finetuned", "qdrant")


def meshed() -> World:
    world = kubeadm()
    sidecars(world, *ALL)
    return world


def ambient() -> World:
    """Ambient with policies that admit HBONE."""
    world = kubeadm()
    world.get("Namespace", NS, "")["metadata"]["labels"]["istio.io/dataplane-mode"] = "ambient"
    names = [n["metadata"]["name"] for n in world.of("Node")]
    build = Builder(world, dict.fromkeys(names, "192.168.10.11"), "10.244.6")
    daemon(build, "ztunnel", "docker.io/istio/ztunnel:1.24.2", names, "istio-system")
    for found in world.of("NetworkPolicy"):
        found["spec"]["ingress"].append({"ports": [{"protocol": "TCP", "port": 15008}]})
    return world


@fault("mesh-sidecar", kubeadm, MODEL, "spec.containers[1].name")
def model_with_a_sidecar(world: World) -> None:
    sidecars(world, "my-llama-finetuned")


@fault("mesh-ambient", kubeadm, MODEL, "spec.template.metadata.labels[istio.io/dataplane-mode]")
def model_in_ambient(world: World) -> None:
    labels = world.get("Deployment", "my-llama-finetuned")["spec"]["template"]["metadata"]["labels"]
    labels["istio.io/dataplane-mode"] = "ambient"


@fault(
    "mesh-sidecar-missing",
    meshed,
    "Deployment chatbot/rag-app",
    "metadata.labels[istio-injection]",
    also=("mesh-sidecar",),
)
def injection_wanted_and_not_done(world: World) -> None:
    world.get("Namespace", NS, "")["metadata"]["labels"]["istio-injection"] = "enabled"
    for pod in world.pods("rag-app"):
        pod["spec"]["containers"].pop()


@fault("mesh-strict", meshed, MODEL, "spec.mtls.mode", also=("mesh-sidecar",))
def strict_mtls_and_a_plain_client(world: World) -> None:
    world.add(
        {
            "apiVersion": "security.istio.io/v1",
            "kind": "PeerAuthentication",
            "metadata": meta("default", NS),
            "spec": {"mtls": {"mode": "STRICT"}},
        }
    )
    for name in ("rag-app", "chatbot-ui"):
        for pod in world.pods(name):
            pod["spec"]["containers"].pop()
    world.get("Service", "rag-app")


@fault("mesh-policy-ports", ambient, "StatefulSet chatbot/qdrant", "spec.ingress", also=("mesh-ambient",))
def policy_forgets_hbone(world: World) -> None:
    world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"].pop()


@fault("mesh-policy-ports", meshed, "Deployment chatbot/rag-app", "spec.egress", also=("mesh-sidecar",))
def policy_forgets_istiod(world: World) -> None:
    dns = {"ports": [{"protocol": "UDP", "port": 53}]}
    world.add(egress_policy("rag-egress", "rag-app", dns, {"to": [{"podSelector": {}}]}))


@fault(
    "mesh-double-balancing",
    meshed,
    "Ingress chatbot/chat",
    "metadata.annotations[nginx.ingress.kubernetes.io/service-upstream]",
    also=("mesh-sidecar",),
)
def nginx_and_mesh_both_balance(world: World) -> None:
    for pod in [p for p in world.of("Pod") if p["metadata"]["name"].startswith("ingress-nginx")]:
        pod["spec"]["containers"].append(container("istio-proxy", "docker.io/istio/proxyv2:1.24.2"))
