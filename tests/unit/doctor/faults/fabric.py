"""Faults of RDMA, resource claims, multi-node jobs, the mesh's routes and credentials."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.doctor.inputs import FabricMeasurement
from kubectl_genainet.fabric.judge import conclude
from tests.unit.doctor.faults.case import eks_training, fault
from tests.unit.doctor.faults.gpu import TRAIN, train_container
from tests.unit.doctor.worlds.clusters import eks, gke
from tests.unit.doctor.worlds.policies import egress_policy
from tests.unit.doctor.worlds.world import NS, World, config_map, meta
from tests.unit.fabric.fabric_nodes import POD as FABRIC_PODS
from tests.unit.fabric.fabric_nodes import reading, worker

POD = "spec.template.spec"
RDMA = {"nvidia.com/gpu": "8", "rdma/hca_a": "1"}
DRA = "resource.k8s.io/v1"


def on_rdma(world: World, **more: Any) -> dict[str, Any]:
    """The training job on an RDMA device instead of EFA."""
    found = train_container(world)
    found["resources"] = {"limits": dict(RDMA), "requests": dict(RDMA)}
    found["env"] = []
    found.update(more)
    return found


@fault(
    "rdma-memlock",
    eks_training,
    TRAIN,
    f"{POD}.containers[0].securityContext.capabilities.add",
    also=("sriov-invisible", "efa-requested"),
)
def rdma_without_locked_memory(world: World) -> None:
    on_rdma(world)


@fault("rdma-host-path", eks_training, TRAIN, f"{POD}.volumes[0].hostPath.path", also=("efa-requested",))
def device_files_of_the_node(world: World) -> None:
    found = train_container(world)
    found["resources"] = {"limits": {"nvidia.com/gpu": "8"}}
    found["env"] = []
    found["volumeMounts"] = [{"name": "ib", "mountPath": "/dev/infiniband"}]
    world.spec("StatefulSet", "llama-train")["volumes"] = [{"name": "ib", "hostPath": {"path": "/dev/infiniband"}}]


@fault("shared-memory", eks_training, TRAIN, f"{POD}.volumes[0].emptyDir.sizeLimit", also=("efa-invisible",))
def little_shared_memory(world: World) -> None:
    train_container(world)["volumeMounts"] = [{"name": "shm", "mountPath": "/dev/shm"}]
    volume = {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "256Mi"}}
    world.spec("StatefulSet", "llama-train")["volumes"] = [volume]


@fault(
    "gke-gpudirect",
    eks_training,
    TRAIN,
    "spec.template.metadata.annotations[networking.gke.io/interfaces]",
    also=("efa-invisible",),
)
def gpudirect_without_its_networks(world: World) -> None:
    train_container(world)["env"].append({"name": "NCCL_FASTRAK_CTRL_DEV", "value": "eth0"})


@fault("nccl-settings", eks_training, TRAIN, "data[NCCL_SOCKET_IFNAME]", also=("efa-invisible",))
def loopback_from_a_config_map(world: World) -> None:
    world.add(config_map("fabric", {"NCCL_SOCKET_IFNAME": "lo"}, NS))
    train_container(world)["env"] = []
    train_container(world)["envFrom"] = [{"configMapRef": {"name": "fabric"}}]


@fault("host-network-dns", eks_training, TRAIN, f"{POD}.dnsPolicy", also=("efa-invisible",))
def node_resolver_asked_for_a_service(world: World) -> None:
    world.spec("StatefulSet", "llama-train")["hostNetwork"] = True
    for pod in world.pods("llama-train"):
        pod["spec"]["hostNetwork"] = True
    env = [{"name": "MASTER_ADDR", "value": "llama-train-0.ring.chatbot.svc.cluster.local"}]
    train_container(world)["env"] = env


@fault(
    "headless-not-ready", eks_training, "Service chatbot/ring", "spec.publishNotReadyAddresses", also=("efa-invisible",)
)
def names_wait_for_readiness(world: World) -> None:
    world.spec("StatefulSet", "llama-train")["subdomain"] = "ring"
    train_container(world)["readinessProbe"] = {"exec": {"command": ["check-ring"]}}
    for pod in world.of("Pod"):
        if pod["metadata"]["name"].startswith("llama-train"):
            pod["metadata"]["labels"]["app"] = "llama-train"
    world.add(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta("ring", NS),
            "spec": {"clusterIP": "None", "selector": {"app": "llama-train"}, "ports": []},
        }
    )


def claim(world: World, *classes: str, constraints: list[dict[str, str]] | None = None) -> None:
    """The training job claims a device of each class, in one claim."""
    requests = [{"name": c.partition(".")[0], "exactly": {"deviceClassName": c}} for c in classes]
    spec = {"devices": {"requests": requests, "constraints": constraints or []}}
    template = {
        "apiVersion": DRA,
        "kind": "ResourceClaimTemplate",
        "metadata": meta("ring", NS),
        "spec": {"spec": spec},
    }
    world.add(template, *(device_class(c) for c in classes), *(device_slice(c) for c in classes))
    pod = world.spec("StatefulSet", "llama-train")
    pod["resourceClaims"] = [{"name": "ring", "resourceClaimTemplateName": "ring"}]
    train_container(world)["resources"]["claims"] = [{"name": "ring"}]


def device_class(name: str) -> dict[str, Any]:
    selectors = [{"cel": {"expression": f'device.driver == "{name}"'}}]
    return {"apiVersion": DRA, "kind": "DeviceClass", "metadata": meta(name), "spec": {"selectors": selectors}}


def device_slice(driver: str) -> dict[str, Any]:
    spec = {"driver": driver, "nodeName": "ip-10-0-3-10.ec2.internal", "devices": [{"name": "d0"}]}
    return {"apiVersion": DRA, "kind": "ResourceSlice", "metadata": meta(f"s-{driver}"), "spec": spec}


@fault(
    "dra-device-class", eks_training, "ResourceClaimTemplate chatbot/ring", "spec.selectors", also=("efa-invisible",)
)
def class_that_no_slice_serves(world: World) -> None:
    same_root = [{"matchAttribute": "resource.kubernetes.io/pcieRoot"}]
    claim(world, "dra.net", "gpu.nvidia.com", constraints=same_root)
    world.remove("ResourceSlice", "s-dra.net", "")


@fault("dra-nic-and-gpu", eks_training, TRAIN, f"{POD}.resourceClaims[0]", also=("efa-invisible",))
def network_device_anywhere(world: World) -> None:
    claim(world, "dra.net")


@fault("dra-claim-missing", eks_training, TRAIN, f"{POD}.resourceClaims[0]", also=("efa-invisible",))
def claim_that_no_container_names(world: World) -> None:
    claim(world, "gpu.nvidia.com")
    del train_container(world)["resources"]["claims"]


@fault("mesh-stream-timeout", gke, "VirtualService chatbot/model", "spec.http[0].timeout", also=())
def mesh_cuts_streams(world: World) -> None:
    world.add(
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": meta("model", NS),
            "spec": {
                "hosts": ["my-llama-svc"],
                "http": [{"route": [{"destination": {"host": "my-llama-svc"}}], "timeout": "20s"}],
            },
        }
    )


@fault(
    "egress-to-credentials",
    eks,
    "Deployment chatbot/rag-app",
    "spec.egress",
    also=("policy-blocks-call", "egress-without-dns"),
)
def agent_of_pod_identity_closed_off(world: World) -> None:
    uri = {"name": "AWS_CONTAINER_CREDENTIALS_FULL_URI", "value": "http://169.254.170.23/v1/credentials"}
    world.spec("Deployment", "rag-app")["containers"][0]["env"].append(uri)
    world.add(egress_policy("rag-app-egress", "rag-app", {"to": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}))


def measured_fabric(**ways: Any) -> FabricMeasurement:
    """Two workers on two nodes, each read twice."""
    members = tuple(worker(node) for node in FABRIC_PODS)
    return FabricMeasurement(conclude(members, {node: reading(node, **ways) for node in FABRIC_PODS}))


@fault("nccl-on-tcp", eks_training, "Pod ml/worker-node-a", "rate", also=("efa-invisible",))
def collectives_on_sockets(world: World) -> None:
    world.fabric = measured_fabric(tcp=(10**9, 10**9))


@fault("rdma-trouble", eks_training, "Node node-a", "counters", also=("efa-invisible",))
def retransmissions_of_the_device(world: World) -> None:
    world.fabric = measured_fabric(rdma=(10**9, 10**9), users=((101, 8),), grown={"retrans_timeout_events": 3})
