"""Faults of the mesh's layer 7, Istio's routes, TPU slices, GKE's networks, shared RDMA devices and instance credentials."""

from __future__ import annotations

import json
from typing import Any

from tests.unit.doctor.faults.case import eks_training, fault
from tests.unit.doctor.faults.entry import ambient, sidecars
from tests.unit.doctor.faults.fabric import DRA, POD
from tests.unit.doctor.faults.gpu import TRAIN, train_container
from tests.unit.doctor.worlds.clusters import eks, gke, kubeadm
from tests.unit.doctor.worlds.world import NS, World, meta

ISTIO = "networking.istio.io/v1"
TIMEOUT = {"default": {"timeoutSec": 3600}, "targetRef": {"kind": "Service", "name": "my-llama-svc"}}
MODEL = "Deployment chatbot/my-llama-finetuned"


def made(version: str, kind: str, name: str, namespace: str = "", **more: Any) -> dict[str, Any]:
    return {"apiVersion": version, "kind": kind, "metadata": meta(name, namespace), **more}


@fault("mesh-waypoint", ambient, "Namespace chatbot", "metadata.labels[istio.io/use-waypoint]", also=("mesh-ambient",))
def waypoint_that_is_not_there(world: World) -> None:
    world.get("Namespace", NS, "")["metadata"]["labels"]["istio.io/use-waypoint"] = "waypoint"


@fault("mesh-ambient-http", ambient, MODEL, "spec.rules[0].to[0].operation.methods", also=("mesh-ambient",))
def ztunnel_asked_for_methods(world: World) -> None:
    rules = [{"to": [{"operation": {"methods": ["POST"]}}]}]
    spec = {"selector": {"matchLabels": {"app.kubernetes.io/name": "my-llama-finetuned"}}, "rules": rules}
    world.add(made("security.istio.io/v1", "AuthorizationPolicy", "post-only", NS, spec=spec))


def istio_route(world: World, host: str, port: int = 80, gateway: str = "edge", name: str = "chat.example.com") -> None:
    destination = {"host": host, "port": {"number": port}}
    spec = {"hosts": [name], "gateways": [gateway], "http": [{"route": [{"destination": destination}]}]}
    world.add(made(ISTIO, "VirtualService", "chat", NS, spec=spec))
    servers = [{"port": {"number": 443, "name": "https", "protocol": "HTTPS"}, "hosts": ["*.example.com"]}]
    world.add(made(ISTIO, "Gateway", "edge", NS, spec={"selector": {"istio": "ingressgateway"}, "servers": servers}))


@fault(
    "virtual-service-backend",
    gke,
    "VirtualService chatbot/chat",
    "spec.http[0].route[0].destination.port.number",
)
def istio_leads_to_the_pods_port(world: World) -> None:
    istio_route(world, "my-llama-svc", 8080)


@fault(
    "virtual-service-backend",
    gke,
    "VirtualService chatbot/chat",
    "spec.http[0].route[0].destination.host",
)
def istio_leads_to_another_namespace(world: World) -> None:
    istio_route(world, "my-llama-svc.chat.svc.cluster.local")


@fault("virtual-service-gateway", gke, "VirtualService chatbot/chat", "spec.gateways")
def gateway_of_another_namespace(world: World) -> None:
    istio_route(world, "my-llama-svc", gateway="istio-system/edge")


@fault("virtual-service-gateway", gke, "VirtualService chatbot/chat", "spec.hosts")
def host_that_the_gateway_does_not_take(world: World) -> None:
    istio_route(world, "my-llama-svc", name="chat.example.org")


@fault(
    "load-balancer-health-path",
    gke,
    "HTTPRoute chatbot/my-llama",
    "spec.default.config.httpHealthCheck.requestPath",
)
def gateway_asks_the_root(world: World) -> None:
    world.get("HTTPRoute", "my-llama")["spec"]["rules"][0]["backendRefs"] = [{"name": "my-llama-svc", "port": 80}]
    world.add(made("networking.gke.io/v1", "GCPBackendPolicy", "llama", NS, spec=TIMEOUT))


def traefik_route(world: World, service: str, port: int | str) -> None:
    rule = {"match": "Host(`chat.example.com`)", "kind": "Rule", "services": [{"name": service, "port": port}]}
    world.add(made("traefik.io/v1alpha1", "IngressRoute", "chat", NS, spec={"routes": [rule]}))


@fault("traefik-route-backend", kubeadm, "IngressRoute chatbot/chat", "spec.routes[0].services[0].port")
def traefik_leads_to_the_pods_port(world: World) -> None:
    traefik_route(world, "my-llama-svc", 8080)


@fault("traefik-route-backend", kubeadm, "IngressRoute chatbot/chat", "spec.routes[0].services[0].name")
def traefik_leads_to_nobody(world: World) -> None:
    traefik_route(world, "my-llama", 80)


@fault("mesh-in-job", kubeadm, "Job chatbot/tune", "spec.containers[1].name", also=("mesh-sidecar",))
def trainer_with_a_sidecar(world: World) -> None:
    sidecars(world)
    gpu = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1"}}
    trainer = {"name": "t", "image": "registry.test/t:1", "command": ["torchrun", "tune.py"], "resources": gpu}
    pod = {"containers": [trainer], "restartPolicy": "Never"}
    world.add(made("batch/v1", "Job", "tune", NS, spec={"template": {"metadata": {}, "spec": pod}}))
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "tune", "uid": "u", "controller": True}
    live = made("v1", "Pod", "tune-x", NS, status={"phase": "Running"})
    live["metadata"]["ownerReferences"] = [owner]
    live["spec"] = {**pod, "containers": [trainer, {"name": "istio-proxy", "image": "registry.test/proxyv2:1"}]}
    world.add(live)


@fault(
    "linkerd-stream-timeout",
    gke,
    "Service chatbot/my-llama-svc",
    "metadata.annotations[timeout.linkerd.io/response]",
)
def linkerd_cuts_streams(world: World) -> None:
    world.get("Service", "my-llama-svc")["metadata"]["annotations"]["timeout.linkerd.io/response"] = "30s"


@fault("mesh-stream-timeout", gke, "VirtualService chatbot/chat", "spec.http[0].retries.retryOn")
def mesh_repeats_prompts(world: World) -> None:
    istio_route(world, "my-llama-svc")
    http = world.get("VirtualService", "chat")["spec"]["http"][0]
    http["retries"] = {"attempts": 3, "retryOn": "5xx,reset"}


@fault("tpu-slice", gke, "Job chatbot/tune", "spec.parallelism")
def half_a_slice(world: World) -> None:
    tpu = {"requests": {"google.com/tpu": "4"}, "limits": {"google.com/tpu": "4"}}
    selector = {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite", "cloud.google.com/gke-tpu-topology": "4x4"}
    pod = {"nodeSelector": selector, "containers": [{"name": "t", "image": "registry.test/t:1", "resources": tpu}]}
    world.add(made("batch/v1", "Job", "tune", NS, spec={"parallelism": 2, "template": {"metadata": {}, "spec": pod}}))


@fault(
    "gke-networks",
    eks_training,
    TRAIN,
    "spec.template.metadata.annotations[networking.gke.io/interfaces]",
    also=("efa-invisible",),
)
def three_networks_of_eight(world: World) -> None:
    names = [{"interfaceName": f"eth{i}", "network": f"vpc{i}"} for i in range(1, 4)]
    template = world.get("StatefulSet", "llama-train")["spec"]["template"]
    notes = {"networking.gke.io/interfaces": json.dumps(names), "devices.gke.io/container.tcpxo-daemon": "{}"}
    template["metadata"].setdefault("annotations", {}).update(notes)
    train_container(world)["env"] = [{"name": "NCCL_FASTRAK_CTRL_DEV", "value": "eth0"}]
    world.add(*(made("networking.gke.io/v1", "Network", f"vpc{i}", spec={}) for i in range(1, 4)))


@fault("rdma-claim-shared", eks_training, "ResourceClaim chatbot/nic", f"{POD}.resourceClaims", also=("efa-invisible",))
def one_claim_for_all_replicas(world: World) -> None:
    exactly = {
        "deviceClassName": "dra.net",
        "selectors": [{"cel": {"expression": 'device.attributes["dra.net"].ifName == "eth1"'}}],
    }
    spec = {"devices": {"requests": [{"name": "nic", "exactly": exactly}]}}
    world.add(made(DRA, "ResourceClaim", "nic", NS, spec=spec), made(DRA, "DeviceClass", "dra.net", spec={}))
    world.spec("StatefulSet", "llama-train")["resourceClaims"] = [{"name": "nic", "resourceClaimName": "nic"}]


@fault("rdma-exclusive", gke, "NetworkAttachmentDefinition chatbot/roce", "spec.rdmaMode")
def devices_moved_and_shared(world: World) -> None:
    config = json.dumps({"cniVersion": "1.0.0", "plugins": [{"type": "sriov"}, {"type": "rdma"}]})
    world.add(made("k8s.cni.cncf.io/v1", "NetworkAttachmentDefinition", "roce", NS, spec={"config": config}))
    pool = made(
        "sriovnetwork.openshift.io/v1", "SriovNetworkPoolConfig", "workers", "sriov", spec={"rdmaMode": "shared"}
    )
    world.add(pool)


@fault(
    "efa-plugin-version",
    eks_training,
    "DaemonSet kube-system/aws-efa-k8s-device-plugin",
    f"{POD}.containers[0].image",
    also=("efa-invisible",),
)
def plugin_that_does_not_know_nvlink(world: World) -> None:
    plugin = world.spec("DaemonSet", "aws-efa-k8s-device-plugin", "kube-system")
    plugin["containers"][0]["image"] = "registry.test/eks/aws-efa-k8s-device-plugin:v0.5.6"
    labels = world.get("Node", "ip-10-0-3-10.ec2.internal", "")["metadata"]["labels"]
    labels["node.kubernetes.io/instance-type"] = "p6-b200.48xlarge"


@fault("imds-hop-limit", eks, "Deployment chatbot/rag-app", "spec.metadataOptions.httpPutResponseHopLimit")
def metadata_one_hop_away(world: World) -> None:
    world.add(made("karpenter.k8s.aws/v1", "EC2NodeClass", "default", spec={"amiFamily": "AL2023"}))
    for found in world.of("Node"):
        found["metadata"]["labels"]["karpenter.k8s.aws/ec2nodeclass"] = "default"
    world.spec("Deployment", "rag-app")["containers"][0]["env"].append({"name": "AWS_REGION", "value": "us-east-1"})
