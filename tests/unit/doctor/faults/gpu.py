"""Faults of placement, EFA and GPU nodes."""

from __future__ import annotations

from typing import Any

from kubectl_genainet.model.finding import Severity
from tests.unit.doctor.faults.case import GPU1, MODEL, eks_training, fault
from tests.unit.doctor.worlds.clusters import eks, training
from tests.unit.doctor.worlds.world import World, meta


@fault("training-zones", eks_training, "StatefulSet chatbot/llama-train", "spec.nodeName", also=("efa-invisible",))
def training_over_zones(world: World) -> None:
    world.get("Node", "ip-10-0-3-11.ec2.internal", "")["metadata"]["labels"]["topology.kubernetes.io/zone"] = (
        "us-east-1b"
    )


@fault(
    "training-placement",
    eks_training,
    "StatefulSet chatbot/llama-train",
    "metadata.labels[topology.k8s.aws/network-node-layer-3]",
    also=("efa-invisible",),
)
def training_over_placements(world: World) -> None:
    labels = world.get("Node", "ip-10-0-3-11.ec2.internal", "")["metadata"]["labels"]
    labels["topology.k8s.aws/network-node-layer-3"] = "nn-0ff"


@fault("cross-zone-calls", eks, "Service chatbot/my-llama-svc", "spec.trafficDistribution")
def any_zone_will_do(world: World) -> None:
    del world.get("Service", "my-llama-svc")["spec"]["trafficDistribution"]


P4D = "Node ip-10-0-3-10.ec2.internal"
TRAIN = "StatefulSet chatbot/llama-train"


@fault("efa-advertised", eks_training, P4D, "status.allocatable[vpc.amazonaws.com/efa]", also=("efa-invisible",))
def node_without_efa(world: World) -> None:
    del world.get("Node", "ip-10-0-3-10.ec2.internal", "")["status"]["allocatable"]["vpc.amazonaws.com/efa"]


@fault(
    "efa-plugin",
    eks_training,
    "DaemonSet kube-system/aws-efa-k8s-device-plugin",
    "status.numberReady",
    also=("efa-invisible",),
)
def efa_plugin_not_ready(world: World) -> None:
    world.get("DaemonSet", "aws-efa-k8s-device-plugin", "kube-system")["status"]["numberReady"] = 1


def train_container(world: World) -> dict[str, Any]:
    found: dict[str, Any] = world.spec("StatefulSet", "llama-train")["containers"][0]
    return found


@fault("efa-requested", eks_training, TRAIN, "spec.template.spec.containers[0].resources.limits[vpc.amazonaws.com/efa]")
def efa_not_requested(world: World) -> None:
    train_container(world)["resources"] = {"limits": {"nvidia.com/gpu": "8"}}
    train_container(world)["env"] = []


@fault(
    "efa-hugepages",
    eks_training,
    TRAIN,
    "spec.template.spec.containers[0].resources.limits[hugepages-2Mi]",
    also=("efa-invisible",),
    severity=Severity.INFO,
)
def efa_without_huge_pages(world: World) -> None:
    train_container(world)["resources"] = {"limits": {"nvidia.com/gpu": "8", "vpc.amazonaws.com/efa": "4"}}


@fault("nccl-settings", eks_training, TRAIN, "spec.template.spec.containers[0].env[1].value", also=("efa-invisible",))
def nccl_on_a_device_that_pods_lack(world: World) -> None:
    train_container(world)["env"][1]["value"] = "ens5"


@fault("nccl-settings", eks_training, TRAIN, "spec.template.spec.containers[0].env[0].value", also=("efa-invisible",))
def another_provider_than_efa(world: World) -> None:
    train_container(world)["env"][0]["value"] = "tcp"


@fault("gloo-interface", eks_training, TRAIN, "spec.template.spec.containers[0].env[2].value", also=("efa-invisible",))
def gloo_with_the_syntax_of_nccl(world: World) -> None:
    train_container(world)["env"].append({"name": "GLOO_SOCKET_IFNAME", "value": "^lo,docker"})


@fault("efa-invisible", eks, TRAIN, "spec.template.spec.containers[0].resources.limits[vpc.amazonaws.com/efa]")
def efa_in_use(world: World) -> None:
    training(world)


@fault("efa-security-group", eks_training, "SecurityGroup infra/efa", "spec.egressRules", also=("efa-invisible",))
def group_without_itself(world: World) -> None:
    itself = {"ipProtocol": "-1", "userIDGroupPairs": [{"groupID": "sg-0efa"}]}
    world.add(
        {
            "apiVersion": "ec2.services.k8s.aws/v1alpha1",
            "kind": "SecurityGroup",
            "metadata": meta("efa", "infra"),
            "spec": {
                "ingressRules": [itself],
                "egressRules": [{"ipProtocol": "-1", "ipRanges": [{"cidrIP": "0.0.0.0/0"}]}],
            },
            "status": {"id": "sg-0efa"},
        }
    )


@fault("gpu-advertised", eks, f"Node {GPU1}", "status.allocatable[nvidia.com/gpu]")
def device_plugin_missing(world: World) -> None:
    del world.get("Node", GPU1, "")["status"]["allocatable"]["nvidia.com/gpu"]


@fault("gpu-pending", eks, MODEL, "status.conditions[PodScheduled].message")
def no_gpu_left(world: World) -> None:
    pod = world.pods("my-llama-finetuned")[0]
    del pod["spec"]["nodeName"]
    pod["status"] = {
        "phase": "Pending",
        "conditions": [
            {
                "type": "PodScheduled",
                "status": "False",
                "reason": "Unschedulable",
                "message": "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.",
            }
        ],
    }


@fault("gpu-node-taints", eks, "DaemonSet kube-system/kube-proxy", "spec.template.spec.tolerations")
def taint_not_tolerated(world: World) -> None:
    world.spec("DaemonSet", "kube-proxy", "kube-system")["tolerations"] = [
        {"key": "CriticalAddonsOnly", "operator": "Exists"}
    ]
