"""Faults of Services, load balancers and health checks."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.faults.case import AWS, MODEL, N1, fault
from tests.unit.doctor.worlds.clusters import eks, kubeadm
from tests.unit.doctor.worlds.world import NS, Builder, World, container, each, http_probe, meta


@fault("service-selector", eks, "Service chatbot/qdrant", "spec.selector")
def selector_with_a_typo(world: World) -> None:
    world.get("Service", "qdrant")["spec"]["selector"] = {"app.kubernetes.io/name": "qdrnt"}


@fault("service-target-port", eks, "Service chatbot/rag-app", "spec.ports[0].targetPort", severity=Severity.ERROR)
def named_port_unknown(world: World) -> None:
    world.get("Service", "rag-app")["spec"]["ports"][0]["targetPort"] = "web"


@fault(
    "service-target-port",
    eks,
    "Service chatbot/my-llama-svc",
    "spec.ports[0].targetPort",
    severity=Severity.WARNING,
    also=("policy-blocks-call",),
)
def target_port_of_another_server(world: World) -> None:
    world.get("Service", "my-llama-svc")["spec"]["ports"][0]["targetPort"] = 8000


@fault("service-selects-others", eks, "Service chatbot/my-llama-svc", "spec.selector")
def selector_on_a_label_of_all_components(world: World) -> None:
    common = {"app.kubernetes.io/part-of": "chatbot"}
    for kind, name in (("Deployment", "my-llama-finetuned"), ("StatefulSet", "qdrant")):
        world.get(kind, name)["spec"]["template"]["metadata"]["labels"] |= common
        for pod in world.pods(name):
            pod["metadata"]["labels"] |= common
    world.get("Service", "my-llama-svc")["spec"]["selector"] = common


@fault("grpc-one-endpoint", eks, "Deployment chatbot/rag-app", "spec.clusterIP", severity=Severity.INFO)
def grpc_behind_a_cluster_ip(world: World) -> None:
    for spec in each(world, "Deployment", "rag-app"):
        spec["containers"][0]["env"].append({"name": "MODEL_ADDRESS", "value": "grpc://my-llama-svc:80"})


@fault("host-port-replicas", eks, "Deployment chatbot/rag-app", "spec.template.spec.containers[0].ports[0].hostPort")
def a_port_of_the_node_for_more_pods_than_nodes(world: World) -> None:
    for spec in each(world, "Deployment", "rag-app"):
        spec["containers"][0]["ports"][0]["hostPort"] = 8080
    world.get("Deployment", "rag-app")["spec"]["replicas"] = 1 + len(world.of("Node"))


@fault(
    "node-port-twice", kubeadm, "Service chatbot/my-llama-svc", "spec.ports[0].nodePort", also=("service-node-port",)
)
def one_node_port_for_two_services(world: World) -> None:
    for name in ("my-llama-svc", "rag-app"):
        spec = world.get("Service", name)["spec"]
        spec["type"], spec["ports"][0]["nodePort"] = "NodePort", 31080


@fault("service-protocol", eks, "Service chatbot/qdrant", "spec.ports[0].protocol", also=("service-endpoints",))
def udp_service_of_a_tcp_port(world: World) -> None:
    world.get("Service", "qdrant")["spec"]["ports"][0]["protocol"] = "UDP"
    world.get("NetworkPolicy", "qdrant-ingress-policy")["spec"]["ingress"][0]["ports"][0]["protocol"] = "UDP"


@fault("service-endpoints", eks, "Service chatbot/my-llama-svc", "spec.ports[0]")
def no_endpoint_is_ready(world: World) -> None:
    for endpoint in world.get("EndpointSlice", "my-llama-svc-x7k2p")["endpoints"]:
        endpoint["conditions"]["ready"] = False
    for pod in world.pods("my-llama-finetuned"):
        pod["status"]["conditions"][1]["status"] = "False"


def external_name(world: World, target: str, **spec: Any) -> None:
    world.add(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta("embeddings", NS),
            "spec": {"type": "ExternalName", "externalName": target, **spec},
        }
    )


@fault("external-name-address", eks, "Service chatbot/embeddings", "spec.externalName")
def external_name_is_an_address(world: World) -> None:
    external_name(world, "10.20.30.40")


@fault("external-name-port", eks, "Service chatbot/embeddings", "spec.ports[0].targetPort")
def external_name_maps_a_port(world: World) -> None:
    external_name(world, "embeddings.acme.net", ports=[{"name": "http", "port": 80, "targetPort": 8443}])


@fault("external-policy-local", kubeadm, "Service chatbot/frontend", "spec.externalTrafficPolicy")
def local_policy_on_node_ports(world: World) -> None:
    build = Builder(world, {}, "")
    build.next_service = 40
    world.add({**_plain_pod("frontend", "worker1")})
    build.service(
        "frontend",
        NS,
        {"app": "frontend"},
        [{"name": "http", "port": 80, "targetPort": 80, "nodePort": 30080}],
        type="NodePort",
        externalTrafficPolicy="Local",
    )


def _plain_pod(name: str, where: str, ip: str = "10.244.7.200") -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": meta(name, NS, {"app": name}),
        "spec": {"nodeName": where, "containers": [container("web", "nginx:1.27", 80)]},
        "status": {
            "phase": "Running",
            "podIP": ip,
            "podIPs": [{"ip": ip}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


@fault("internal-policy-local", eks, "Service chatbot/my-llama-svc", "spec.internalTrafficPolicy")
def model_only_for_its_own_node(world: World) -> None:
    world.get("Service", "my-llama-svc")["spec"]["internalTrafficPolicy"] = "Local"


@fault("service-node-port", kubeadm, "Service chatbot/my-llama-svc", "spec.type")
def model_on_a_node_port(world: World) -> None:
    spec = world.get("Service", "my-llama-svc")["spec"]
    spec["type"] = "NodePort"
    spec["ports"][0]["nodePort"] = 31080


@fault(
    "vector-database-exposed",
    kubeadm,
    "Service chatbot/qdrant",
    "spec.type",
    also=("policy-blocks-outside",),  # its own policy admits pods alone
)
def qdrant_to_the_world(world: World) -> None:
    service = world.get("Service", "qdrant")
    service["spec"]["type"] = "LoadBalancer"
    service["status"]["loadBalancer"] = {"ingress": [{"ip": "192.0.2.10"}]}


@fault("load-balancer-pending", eks, "Service chatbot/chatbot-ui", "status.loadBalancer.ingress")
def nlb_without_an_address(world: World) -> None:
    world.get("Service", "chatbot-ui")["status"]["loadBalancer"] = {}


def notes(world: World) -> dict[str, str]:
    found: dict[str, str] = world.get("Service", "chatbot-ui")["metadata"]["annotations"]
    return found


@fault("nlb-target-type", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}nlb-target-type]")
def target_type_absent(world: World) -> None:
    del notes(world)[AWS + "nlb-target-type"]


@fault("nlb-target-type", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}nlb-target-type]")
def target_type_instance(world: World) -> None:
    notes(world)[AWS + "nlb-target-type"] = "instance"


@fault(
    "nlb-legacy",
    eks,
    "Service chatbot/chatbot-ui",
    f"metadata.annotations[{AWS}type]",
    also=("nlb-idle-timeout",),
)
def in_tree_nlb(world: World) -> None:
    del world.get("Service", "chatbot-ui")["spec"]["loadBalancerClass"]
    notes(world)[AWS + "type"] = "nlb"


@fault("nlb-controller", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}type]")
def controller_not_installed(world: World) -> None:
    world.remove("Deployment", "aws-load-balancer-controller", "kube-system")


@fault("nlb-idle-timeout", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}listener-attributes.TCP-80]")
def idle_timeout_left_at_350_s(world: World) -> None:
    del notes(world)[AWS + "listener-attributes.TCP-80"]


@fault("nlb-cross-zone", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}attributes]")
def targets_in_one_zone(world: World) -> None:
    for endpoint in world.get("EndpointSlice", "chatbot-ui-x7k2p")["endpoints"]:
        endpoint["nodeName"] = N1


@fault("readiness-probe", eks, MODEL, "spec.template.spec.containers[0].readinessProbe")
def no_readiness_probe(world: World) -> None:
    server = world.spec("Deployment", "my-llama-finetuned")["containers"][0]
    del server["readinessProbe"]
    server["startupProbe"]["httpGet"]["path"] = "/livez"  # which does not wait for the model either


@fault("readiness-probe-model", eks, MODEL, "spec.template.spec.containers[0].readinessProbe.tcpSocket")
def readiness_by_tcp(world: World) -> None:
    world.spec("Deployment", "my-llama-finetuned")["containers"][0]["readinessProbe"] = {"tcpSocket": {"port": 8080}}


@fault("readiness-probe-model", eks, MODEL, "spec.template.spec.containers[0].readinessProbe.httpGet.path")
def readiness_asks_for_liveness(world: World) -> None:
    for spec in each(world, "Deployment", "my-llama-finetuned"):
        spec["containers"][0] |= {
            "image": "nvcr.io/nvidia/tritonserver:25.01-py3",
            "args": [],
            "readinessProbe": http_probe("/v2/health/live", 8080),
        }


@fault("startup-budget", eks, MODEL, "spec.template.spec.containers[0].livenessProbe")
def liveness_shorter_than_the_measured_load(world: World) -> None:
    model = world.spec("Deployment", "my-llama-finetuned")["containers"][0]
    del model["startupProbe"]
    model["livenessProbe"] |= {"failureThreshold": 15}  # 150 s; the pods took 150 s


@fault("startup-budget", eks, MODEL, "spec.template.spec.containers[0].startupProbe")
def startup_probe_kills_the_loading_model(world: World) -> None:
    world.spec("Deployment", "my-llama-finetuned")["containers"][0]["startupProbe"]["failureThreshold"] = 3
    for pod in world.pods("my-llama-finetuned"):
        pod["status"]["containerStatuses"][0]["restartCount"] = 4


@fault("nlb-health-check", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}healthcheck-protocol]")
def health_check_left_at_tcp(world: World) -> None:
    for key in ("protocol", "path", "port"):
        del notes(world)[f"{AWS}healthcheck-{key}"]


@fault("nlb-health-check", eks, "Service chatbot/chatbot-ui", f"metadata.annotations[{AWS}healthcheck-path]")
def health_check_of_another_path(world: World) -> None:
    notes(world)[AWS + "healthcheck-path"] = "/ping"


@fault("nlb-readiness-gate", eks, "Namespace chatbot", "metadata.labels[elbv2.k8s.aws/pod-readiness-gate-inject]")
def no_readiness_gate(world: World) -> None:
    del world.get("Namespace", NS, "")["metadata"]["labels"]["elbv2.k8s.aws/pod-readiness-gate-inject"]


@fault(
    "nlb-health-threshold",
    eks,
    "Service chatbot/chatbot-ui",
    f"metadata.annotations[{AWS}healthcheck-unhealthy-threshold]",
)
def load_balancer_gives_up_early(world: World) -> None:
    notes(world).update({AWS + "healthcheck-unhealthy-threshold": "2", AWS + "healthcheck-interval": "5"})
