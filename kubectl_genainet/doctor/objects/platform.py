"""What a cluster is made of: where it runs, its CNI and mode, mesh, DNS, RDMA devices. Told from what is installed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

from kubectl_genainet.doctor.check import seen
from kubectl_genainet.doctor.objects.podspec import EFA_RESOURCE, ContainerSpec
from kubectl_genainet.doctor.objects.raw import at, items, json_in, mapping, text
from kubectl_genainet.model.cluster import ClusterSnapshot
from kubectl_genainet.model.finding import Evidence
from kubectl_genainet.model.kube import KubeObject
from kubectl_genainet.model.workload_kinds.kinds import TEMPLATE_PLACES


class Distribution(Enum):
    EKS = "EKS"
    GKE = "GKE"
    AKS = "AKS"
    KUBEADM = "kubeadm"
    UNKNOWN = "unknown"


class Routing(Enum):
    """How pod packets get to another node."""

    NATIVE = "native"
    OVERLAY = "overlay"
    CROSS_SUBNET = "native inside a subnet, overlay between subnets"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cni:
    """An installed CNI. `enforces` says whether it enforces NetworkPolicy as configured; None: not known."""

    name: str
    daemonset: KubeObject
    routing: Routing
    encapsulation: str  # "vxlan", "ipip", "geneve", …; empty for native routing
    enforces: bool | None
    evidence: Evidence

    @property
    def overhead(self) -> int:
        """Bytes that the encapsulation adds to a packet (IPv4 underlay).

        VXLAN and Geneve without options 50, IPIP 20, WireGuard 60 (RFC 7348, RFC 8926, RFC 2003; wireguard.com).
        """
        return {"vxlan": 50, "geneve": 50, "ipip": 20, "wireguard": 60}.get(self.encapsulation, 0)


def distribution(snapshot: ClusterSnapshot) -> tuple[Distribution, str]:
    """Where the cluster runs, and what told so."""
    for node in snapshot.of("Node", ""):
        labels, provider = node.labels, text(node.raw, "spec", "providerID")
        for key in labels:
            if key.startswith(("eks.amazonaws.com/", "alpha.eksctl.io/")):
                return Distribution.EKS, f"{node.ref}: label {key}"
            if key.startswith("cloud.google.com/gke-"):
                return Distribution.GKE, f"{node.ref}: label {key}"
            if key.startswith("kubernetes.azure.com/"):
                return Distribution.AKS, f"{node.ref}: label {key}"
        if provider.startswith("aws://") and any(o.name == "aws-node" for o in snapshot.of("DaemonSet", "apps")):
            return Distribution.EKS, f"{node.ref}: providerID {provider} and DaemonSet aws-node"
    for obj in snapshot.of("ConfigMap", ""):
        if (obj.namespace, obj.name) == ("kube-system", "kubeadm-config"):
            return Distribution.KUBEADM, str(obj.ref)
        if (obj.namespace, obj.name) == ("kube-system", "aws-auth"):
            return Distribution.EKS, str(obj.ref)
    return Distribution.UNKNOWN, "no label, providerID or ConfigMap tells"


def on_aws(snapshot: ClusterSnapshot) -> bool:
    """Whether anything shows that the nodes are EC2 instances or that the AWS controllers run, or a Service is for AWS."""
    return aws_installed(snapshot) or any(
        k.startswith("service.beta.kubernetes.io/aws-") for s in snapshot.of("Service", "") for k in s.annotations
    )


def aws_installed(snapshot: ClusterSnapshot) -> bool:
    """Whether nodes, controllers or devices show that the cluster is on AWS."""
    return (
        distribution(snapshot)[0] is Distribution.EKS
        or any(text(n.raw, "spec", "providerID").startswith("aws://") for n in snapshot.of("Node", ""))
        or any("aws-load-balancer-controller" in m for o in snapshot.of("Deployment", "apps") for m in marks(o))
        or any("aws-efa-k8s-device-plugin" in m for o in snapshot.of("DaemonSet", "apps") for m in marks(o))
        or any(_requests_efa(o) for key in TEMPLATE_PLACES for o in snapshot.of(key[1], key[0]))
    )


def _requests_efa(obj: KubeObject) -> bool:
    """Whether a workload asks for vpc.amazonaws.com/efa, which only AWS has; a custom one anywhere in its object."""
    if obj.group != "apps":
        return _names_efa(obj.raw)
    return any(_names_efa(container.get("resources")) for container in obj.pod_containers)


def _names_efa(value: Any) -> bool:
    if isinstance(value, dict):
        return EFA_RESOURCE in value or any(_names_efa(v) for v in value.values())
    return isinstance(value, list) and any(_names_efa(v) for v in value)


def marks(obj: KubeObject) -> tuple[str, ...]:
    """What a controller is known by: name, labels, images."""
    images = (text(c, "image") for c in items(obj.raw, "spec", "template", "spec", "containers"))
    return (obj.name, text(obj.labels, "app.kubernetes.io/name"), text(obj.labels, "app"), *images)


def config_map(snapshot: ClusterSnapshot, name: str, namespace: str = "kube-system") -> KubeObject | None:
    return next((o for o in snapshot.of("ConfigMap", "") if o.name == name and namespace in ("", o.namespace)), None)


def container_env(obj: KubeObject, container: str = "") -> dict[str, tuple[str, str]]:
    """Literal variables of a controller's containers: name -> (value, field path)."""
    variables: dict[str, tuple[str, str]] = {}
    for index, raw in enumerate(items(obj.raw, "spec", "template", "spec", "containers")):
        if container in ("", text(raw, "name")):
            read = ContainerSpec(raw, index)
            for name, value in read.env.items():
                variables[name] = (value, f"spec.template.spec.{read.env_field(name)}")
    return variables


def conf_value(conf: str, key: str) -> str:
    """The value of a top-level or nested scalar `key: value` line in YAML-like text; empty if absent or commented."""
    match = re.search(rf"^[ \t]*{re.escape(key)}:[ \t]*[\"']?([^\"'#\s]*)", conf, re.MULTILINE)
    return match[1] if match else ""


def find_cnis(snapshot: ClusterSnapshot) -> tuple[Cni, ...]:
    """Every CNI whose DaemonSet is installed, with its mode as configured."""
    cnis = []
    for obj in snapshot.of("DaemonSet", "apps"):
        for name, reader in _READERS:
            if re.fullmatch(name, obj.name):
                cnis.append(reader(snapshot, obj))
                break
    return tuple(cnis)


def _vpc_cni(snapshot: ClusterSnapshot, obj: KubeObject) -> Cni:
    enforces = False
    evidence = seen(obj.ref, "spec.template.spec.containers", obj.name, "the Amazon VPC CNI gives pods VPC addresses")
    for index, container in enumerate(items(obj.raw, "spec", "template", "spec", "containers")):
        for position, word in enumerate(at(container, "args") or ()):
            if str(word) == "--enable-network-policy=true":
                enforces = True
                field = f"spec.template.spec.containers[{index}].args[{position}]"
                evidence = seen(obj.ref, field, str(word), "the VPC CNI's policy agent is on")
    return Cni("Amazon VPC CNI", obj, Routing.NATIVE, "", enforces, evidence)


def _flannel(snapshot: ClusterSnapshot, obj: KubeObject) -> Cni:
    config = config_map(snapshot, "kube-flannel-cfg", "")
    enforces = obj.name == "canal"
    if config is None:
        unknown = seen(obj.ref, "metadata.name", obj.name, "Flannel is installed; its ConfigMap was not found")
        return Cni("Flannel", obj, Routing.UNKNOWN, "", enforces, unknown)
    settings = json_in(text(config.raw, "data", "net-conf.json"))
    backend = "unknown" if settings is None else text(settings, "Backend", "Type") or "udp"
    native = backend in ("host-gw", "alloc", "ali-vpc", "aws-vpc")
    routing = Routing.NATIVE if native else Routing.UNKNOWN if backend == "unknown" else Routing.OVERLAY
    evidence = seen(config.ref, "data[net-conf.json].Backend.Type", backend, f"Flannel's backend is {backend}")
    return Cni("Flannel", obj, routing, "" if native else backend, enforces, evidence)


def _calico(snapshot: ClusterSnapshot, obj: KubeObject) -> Cni:
    across: Cni | None = None
    for pool in snapshot.of("IPPool"):
        for field, kind in (("vxlanMode", "vxlan"), ("ipipMode", "ipip")):
            mode = text(pool.raw, "spec", field) or "Never"
            if mode != "Never" and at(pool.raw, "spec", "disabled") is not True:
                evidence = seen(pool.ref, f"spec.{field}", mode, f"Calico's pool {pool.name} uses {kind} ({mode})")
                if mode != "CrossSubnet":
                    return Cni("Calico", obj, Routing.OVERLAY, kind, True, evidence)
                across = Cni("Calico", obj, Routing.CROSS_SUBNET, kind, True, evidence)
    if across is not None:
        return across
    env = container_env(obj, "calico-node")
    for name, kind in (("CALICO_IPV4POOL_VXLAN", "vxlan"), ("CALICO_IPV4POOL_IPIP", "ipip")):
        value, field = env.get(name, ("Never", ""))
        if value not in ("Never", "Off", "off") and not snapshot.of("IPPool"):
            return Cni(
                "Calico",
                obj,
                Routing.OVERLAY,
                kind,
                True,
                seen(obj.ref, field, value, f"calico-node has {name}={value}"),
            )
    pools = snapshot.of("IPPool")
    if pools:
        evidence = seen(pools[0].ref, "spec.vxlanMode", "Never", "no Calico pool encapsulates")
        return Cni("Calico", obj, Routing.NATIVE, "", True, evidence)
    unknown = seen(obj.ref, "metadata.name", obj.name, "Calico is installed; its pools were not found")
    return Cni("Calico", obj, Routing.UNKNOWN, "", True, unknown)


def _cilium(snapshot: ClusterSnapshot, obj: KubeObject) -> Cni:
    config = config_map(snapshot, "cilium-config", "")
    name = "Cilium (GKE Dataplane V2)" if obj.name == "anetd" else "Cilium"
    if config is None:
        unknown = seen(obj.ref, "metadata.name", obj.name, f"{name} is installed; cilium-config was not found")
        return Cni(name, obj, Routing.NATIVE if obj.name == "anetd" else Routing.UNKNOWN, "", True, unknown)
    data = mapping(config.raw, "data")
    mode, old = text(data, "routing-mode"), text(data, "tunnel")
    if mode == "native" or (not mode and old == "disabled"):
        field = "data[routing-mode]" if mode else "data[tunnel]"
        return Cni(name, obj, Routing.NATIVE, "", True, seen(config.ref, field, mode or old, f"{name} routes natively"))
    protocol = text(data, "tunnel-protocol") or (old if old in ("vxlan", "geneve") else "vxlan")
    field = "data[routing-mode]" if mode or not old else "data[tunnel]"
    evidence = seen(config.ref, field, mode or old or None, f"{name} tunnels with {protocol}")
    return Cni(name, obj, Routing.OVERLAY, protocol, text(data, "enable-policy") != "never", evidence)


def _antrea(snapshot: ClusterSnapshot, obj: KubeObject) -> Cni:
    config = next((c for c in snapshot.of("ConfigMap", "") if c.name.startswith("antrea-config")), None)
    conf = text(config.raw, "data", "antrea-agent.conf") if config else ""
    mode, tunnel = conf_value(conf, "trafficEncapMode") or "encap", conf_value(conf, "tunnelType") or "geneve"
    native = mode in ("noEncap", "networkPolicyOnly")
    evidence = seen(
        config.ref if config else obj.ref, "data[antrea-agent.conf].trafficEncapMode", mode, f"Antrea's mode is {mode}"
    )
    return Cni("Antrea", obj, Routing.NATIVE if native else Routing.OVERLAY, "" if native else tunnel, True, evidence)


def _weave(snapshot: ClusterSnapshot, obj: KubeObject) -> Cni:
    evidence = seen(obj.ref, "metadata.name", obj.name, "Weave Net always tunnels between nodes")
    return Cni("Weave Net", obj, Routing.OVERLAY, "vxlan", True, evidence)


def _kindnet(snapshot: ClusterSnapshot, obj: KubeObject) -> Cni:
    evidence = seen(obj.ref, "metadata.name", obj.name, "kindnet routes natively")
    return Cni("kindnet", obj, Routing.NATIVE, "", None, evidence)


def _kube_router(snapshot: ClusterSnapshot, obj: KubeObject) -> Cni:
    arguments = [str(w) for c in items(obj.raw, "spec", "template", "spec", "containers") for w in at(c, "args") or ()]
    evidence = seen(obj.ref, "metadata.name", obj.name, "kube-router routes natively inside a subnet")
    return Cni("kube-router", obj, Routing.NATIVE, "", "--run-firewall=false" not in arguments, evidence)


_READERS = (
    (r"aws-node", _vpc_cni),
    (r"kube-flannel(-ds.*)?|canal", _flannel),
    (r"calico-node", _calico),
    (r"cilium|anetd", _cilium),
    (r"antrea-agent", _antrea),
    (r"weave-net", _weave),
    (r"kindnet", _kindnet),
    (r"kube-router", _kube_router),
)


_SHARED_PREFIX = "rdma"  # of the shared device plugin, where resourcePrefix is absent


@dataclass(frozen=True, slots=True)
class RdmaResources:
    """Resources by name, or by the part behind the slash where the prefix is an operator's own: whether they are RDMA."""

    told: dict[str, bool]

    def says(self, resource: str) -> bool | None:
        """Whether a resource is RDMA; None where no configuration is about it."""
        by_name = self.told.get(resource)
        return self.told.get(resource.rpartition("/")[2]) if by_name is None else by_name


def rdma_resources(snapshot: ClusterSnapshot) -> RdmaResources:
    """What SriovNetworkNodePolicies, NicClusterPolicies and the ConfigMaps of the SR-IOV and the shared device plugin say.

    One of several that speak of a resource is enough to make it RDMA.

    Sources: https://github.com/k8snetworkplumbingwg/sriov-network-operator#sriovnetworknodepolicy,
    https://github.com/k8snetworkplumbingwg/sriov-network-device-plugin#configurations,
    https://github.com/Mellanox/k8s-rdma-shared-dev-plugin#rdma-shared-device-plugin-configurations
    """
    told: dict[str, bool] = {}
    for name, is_rdma in (*_of_policies(snapshot), *_of_plugins(snapshot)):
        if name:
            told[name] = told.get(name, False) or is_rdma
    return RdmaResources(told)


def _of_policies(snapshot: ClusterSnapshot) -> Iterator[tuple[str, bool]]:
    for policy in snapshot.of("SriovNetworkNodePolicy", "sriovnetwork.openshift.io"):
        yield text(policy.raw, "spec", "resourceName"), at(policy.raw, "spec", "isRdma") is True


def _of_plugins(snapshot: ClusterSnapshot) -> Iterator[tuple[str, bool]]:
    for config_map in snapshot.of("ConfigMap", ""):
        for value in mapping(config_map.raw, "data").values():
            if isinstance(value, str) and ('"configList"' in value or '"resourceList"' in value):
                yield from _of_config(json_in(value))
    for policy in snapshot.of("NicClusterPolicy", "mellanox.com"):
        for plugin in ("rdmaSharedDevicePlugin", "sriovDevicePlugin"):
            yield from _of_config(json_in(text(policy.raw, "spec", plugin, "config")))


def _of_config(config: Any) -> Iterator[tuple[str, bool]]:
    for shared in items(config, "configList"):
        if text(shared, "resourceName") and "rdmaHcaMax" in shared:
            yield f"{text(shared, 'resourcePrefix') or _SHARED_PREFIX}/{text(shared, 'resourceName')}", True
    for pool in items(config, "resourceList"):
        if name := text(pool, "resourceName"):
            prefix, selectors = text(pool, "resourcePrefix"), at(pool, "selectors")
            alternatives = selectors if isinstance(selectors, list) else [selectors]
            yield f"{prefix}/{name}" if prefix else name, any(at(s, "isRdma") is True for s in alternatives)
