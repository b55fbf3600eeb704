"""kube-proxy as it is configured, and what does its work where it is not there."""

from __future__ import annotations

from dataclasses import dataclass

from kubectl_genainet.doctor.objects.cluster import Cluster
from kubectl_genainet.doctor.objects.installed import Installed
from kubectl_genainet.doctor.objects.platform import conf_value, config_map
from kubectl_genainet.doctor.objects.raw import at, mapping, text
from kubectl_genainet.model.finding import ObjectRef
from kubectl_genainet.model.kube import KubeObject


@dataclass(frozen=True, slots=True)
class Configuration:
    """kube-proxy's configuration as the ConfigMap has it. `mode` is "iptables" where the field is empty."""

    ref: ObjectRef
    field: str
    conf: str
    mode: str


def configuration(cluster: Cluster) -> Configuration | None:
    """From ConfigMap kube-proxy-config (EKS: `config`) or kube-proxy (kubeadm: `config.conf`)."""
    for name in ("kube-proxy-config", "kube-proxy"):
        config = config_map(cluster.snapshot, name)
        for key, conf in mapping(config.raw, "data").items() if config else ():
            if config and "KubeProxyConfiguration" in str(conf):
                mode = conf_value(str(conf), "mode") or "iptables"
                return Configuration(config.ref, f"data[{key}].mode", str(conf), mode)
    return None


def daemonset(cluster: Cluster) -> KubeObject | None:
    return cluster.daemonset("kube-proxy")


def replaced(cluster: Installed) -> bool:
    """Whether an eBPF data plane is configured to do kube-proxy's work: Cilium (GKE Dataplane V2 always), or Calico."""
    if cluster.daemonset("anetd") or calico_ebpf(cluster):
        return True
    config = config_map(cluster.snapshot, "cilium-config", "")
    value = text(config.raw, "data", "kube-proxy-replacement") if config else ""
    return value in ("true", "strict") and cluster.cni("Cilium") is not None


def calico_ebpf(cluster: Installed) -> bool:
    """Whether Calico's eBPF data plane is on: bpfEnabled of its FelixConfiguration, linuxDataplane of its Installation.

    Source: https://docs.tigera.io/calico/latest/operations/ebpf/enabling-ebpf
    """
    felix = any(at(o.raw, "spec", "bpfEnabled") is True for o in cluster.snapshot.of("FelixConfiguration"))
    installed = cluster.snapshot.of("Installation", "operator.tigera.io")
    return felix or any(text(o.raw, "spec", "calicoNetwork", "linuxDataplane") == "BPF" for o in installed)


def in_process(node: KubeObject) -> str:
    """The distribution whose own process does kube-proxy's work on a node; empty where none is known to.

    Sources: https://docs.k3s.io/networking, https://microk8s.io/docs/services-and-ports
    """
    version, provider = text(node.raw, "status", "nodeInfo", "kubeletVersion"), text(node.raw, "spec", "providerID")
    if "+k3s" in version or provider.startswith("k3s://"):
        return "k3s"
    if any(label.startswith("microk8s.io/") for label in node.labels):
        return "MicroK8s"
    return ""


def instead(cluster: Cluster) -> str:
    """What does kube-proxy's work; empty where nothing is known to."""
    if replaced(cluster):
        return "an eBPF data plane"
    if cluster.cni("kube-router") or cluster.daemonset("ovnkube-node", "ovn-kubernetes"):
        return "the CNI"
    return next((name for node in cluster.nodes if (name := in_process(node))), "")
